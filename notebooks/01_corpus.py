# ---
# jupyter:
#   jupytext:
#     text_representation: {extension: .py, format_name: percent}
# ---

# %% [markdown]
# # From wikitext to documents
# This notebook shows the `dump` and `corpus` stages on the packaged encyclopedia. For a real Wikipedia, load
# another config: `load_config("pilot", ("dump.source=...",))`.

# %%
import json

import matplotlib.pyplot as plt

from gportuguese import Pipeline, corpus, dump, init_world, load_config
from gportuguese.wikitext import language_of

config = load_config()
pipeline = Pipeline(config)
world = init_world(config.runtime)
artifact = pipeline.build("corpus", world)
artifact.facts

# %% [markdown]
# One page before and after cleaning. Templates, references and tables are removed; the running text stays.

# %%
pages = dump.read_pages(dump.load(pipeline.open("dump"), config.dump))
page = next(page for page in pages if page.title == "Fado")
print(page.wikitext[:700])

# %%
print(corpus.clean_page(page, config.corpus, language_of("pt")).text[:700])

# %% [markdown]
# No page is dropped silently. Every dropped page is counted with a reason, and `dropped.jsonl` lists examples
# of each reason.

# %%
for line in (artifact.folder / "dropped.jsonl").read_text(encoding="utf-8").splitlines()[::6]:
    print(json.loads(line))

# %% [markdown]
# SHA-256 of the page id decides the split, so the order of pages and the machine do not matter.
# Near-duplicates follow the first of them.

# %%
lengths = {
    split: [len(text) for texts in corpus.load(artifact, split) for text in texts]
    for split in corpus.SPLITS
}
figure, axes = plt.subplots(figsize=(7, 3))
axes.hist(list(lengths.values()), bins=20, stacked=True, label=list(lengths))
axes.set(xlabel="characters of a document", ylabel="documents")
axes.legend()
