# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
#     text_representation: {extension: .py, format_name: percent}
# ---

# %% [markdown]
# # 1. From wikitext to documents
# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/gportuguese/gportuguese/blob/main/notebooks/01_corpus.ipynb)
#
# **You learn** what a page of a Wikipedia dump looks like, what the `corpus` stage makes of it, which pages it drops and
# why, and how it splits the rest. **Time**: a few seconds on two CPU cores, without a network.
#
# The text is the small Portuguese encyclopedia that comes with the package. For a real Wikipedia, load another config:
# `load_config("pilot", ("dump.source=ptwiki-latest-pages-articles.xml.bz2",))`.

# %%
from importlib.util import find_spec

from IPython import get_ipython

if find_spec("gportuguese") is None:  # on Colab
    source = "git+https://github.com/gportuguese/gportuguese"
    get_ipython().run_line_magic(
        "pip", f"install -q 'gportuguese[vectors] @ {source}'"
    )

# %%
import json
from dataclasses import replace

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pyarrow.parquet as pq

from gportuguese import Pipeline, corpus, dump, load_config
from gportuguese.wikitext import language_of, wikitext_to_text

config = load_config()  # the demo
pipeline = Pipeline(config)
artifact = pipeline.build("corpus")

# %% [markdown]
# ## A page before and after
# A dump is one long XML file with the wikitext of every page: templates in `{{...}}`, tables in `{|...|}`, links in
# `[[...]]`, notes in `<ref>...</ref>`.

# %%
pages = list(dump.read_pages(dump.load(pipeline.open("dump"), config.dump)))
page = next(page for page in pages if page.title == "Fado")
print(page.wikitext[:1200])

# %% [markdown]
# The document keeps the running text that a reader sees. Headings, notes, pictures and boxes are gone. The template
# that computes a life span was replaced by its words.

# %%
documents = pd.concat(
    pq.read_table(artifact.folder / f"{split}.parquet")
    .to_pandas()
    .assign(split=split)
    for split in corpus.SPLITS
)
text = documents.set_index("title").text["Fado"]
print(text[:1200])

# %%
language = language_of("pt")
short = "'''Lisboa'''<ref>Atlas, 2004</ref> fica a {{convert|300|km}} do [[Porto (cidade)|Porto]]."
print(short, wikitext_to_text(short, "Lisboa", language), sep="\n")

# %% [markdown]
# ## What was dropped, and why
# No page disappears silently. Every dropped page is counted under the first reason that applies, and `dropped.jsonl`
# keeps examples of each reason.

# %%
lines = (artifact.folder / "dropped.jsonl").read_text(encoding="utf-8").splitlines()
examples = pd.DataFrame(map(json.loads, lines))
examples = examples.groupby("reason").title.agg(
    lambda titles: ", ".join(titles[:2])
)
pd.DataFrame({"pages": artifact.facts["dropped"], "such as": examples})

# %% [markdown]
# The threshold `corpus.min_chars` matters most. The 2020 recipe keeps pages of at least 1,800 characters:
# short pages are mostly stubs that say the same of many towns or players.

# %%
every = [
    corpus.clean_page(page, replace(config.corpus, min_chars=0), language)
    for page in pages
]
num_chars = np.array(
    [len(each.text) for each in every if isinstance(each, corpus.Document)]
)
limit = config.corpus.min_chars

figure, axes = plt.subplots(figsize=(6.4, 3.2), layout="constrained")
bins = np.geomspace(200, num_chars.max(), 30)
axes.hist(
    num_chars[num_chars >= limit],
    bins,
    label=f"kept ({(num_chars >= limit).sum()})",
)
axes.hist(
    num_chars[num_chars < limit],
    bins,
    label=f"dropped ({(num_chars < limit).sum()})",
    color="0.7",
)
axes.axvline(limit, color="tab:red", label=f"corpus.min_chars = {limit:,}")
axes.set(
    xscale="log",
    xlabel="characters of clean text",
    ylabel="articles",
    title="Length of the articles",
)
ticks = [200, 500, 1000, 2000, 5000]
axes.set_xticks(ticks, [f"{tick:,}" for tick in ticks])
axes.set_xticks([], minor=True)
axes.legend()
plt.show()

# %% [markdown]
# ## Training, validation, test
# SHA-256 of the page id decides the side of the split. Neither the order of the pages nor the machine matters, and a
# page that is on one side today is there in next year's dump. Exact copies are dropped. Near-duplicates stay
# together on the side of the first of them, so that no held-out document has a twin in the training set.

# %%
sizes = documents.assign(
    characters=documents.text.str.len(), words=documents.text.str.split().str.len()
)
sizes.groupby("split")[["characters", "words"]].agg(["count", "sum"]).loc[
    list(corpus.SPLITS)
]

# %% [markdown]
# Near-duplicates among them, found with MinHash: groups of documents that share most of their words. The packaged
# encyclopedia has none.

# %%
artifact.facts["near_duplicates"]

# %% [markdown]
# ## Your turn
# - How many documents more are there with `load_config(None, ("corpus.min_chars=1000",))`?
# - `corpus.clean_page(page, config.corpus, language)` returns a `Document` or a `Dropped` with its reason. Try it on
#   `pages[0]`.
#
# Next: [the tokenizer](02_tokenizer.ipynb).
