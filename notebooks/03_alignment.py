# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
#     text_representation: {extension: .py, format_name: percent}
# ---

# %% [markdown]
# # 3. English weights, Portuguese tokens
# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/gportuguese/gportuguese/blob/main/notebooks/03_alignment.ipynb)
#
# **You learn** how the `align` stage gives the English model an embedding row for every Portuguese token, by five
# methods; which words are neighbours before and after; and what the methods are worth before any training.
# **Time**: a minute on two CPU cores, without a network. `focus` needs `pip install 'gportuguese[vectors]'`.

# %%
from importlib.util import find_spec

from IPython import get_ipython

if find_spec("gportuguese") is None:  # on Colab
    source = "git+https://github.com/gportuguese/gportuguese"
    get_ipython().run_line_magic(
        "pip", f"install -q 'gportuguese[vectors] @ {source}'"
    )

# %%
import math

import matplotlib.pyplot as plt
import pandas as pd
import pyarrow.parquet as pq
import torch
from IPython.display import Image

from gportuguese import (
    Pipeline,
    causal_lm,
    corpus,
    evaluate,
    load_config,
    tokenizer,
)
from gportuguese.config import asset_path

config = load_config()
methods = ("random", "gaussian", "mean", "pieces", "focus")
aligned = {
    method: Pipeline(load_config(None, (f"align.method={method}",))).build("align")
    for method in methods
}

# %% [markdown]
# ## Where the rows come from
# A token that both vocabularies have keeps its English row: punctuation, digits, names, and by chance some words. The
# methods differ in all other rows:
#
# | method | a row that is not shared |
# | --- | --- |
# | `random` | random, and the rest of the model too: training from scratch |
# | `gaussian` | drawn from a normal distribution with the mean and covariance of the English rows |
# | `mean` | the mean of all English rows: the published method |
# | `pieces` | the mean of the English tokens that spell it |
# | `focus` | a mixture of shared tokens that are used alike in Portuguese text |
#
# Two more, `wechsel` and `bridge`, need text in English and a dictionary
# ([comparison](https://github.com/gportuguese/gportuguese/blob/main/docs/results/alignment.md)).
# `sources.parquet` lists the source of every row:

# %%
sources = pq.read_table(aligned["focus"].folder / "sources.parquet").to_pandas()
english = tokenizer.load(asset_path("english-nano"))
sources["source token"] = sources.source_id.map(
    lambda id: english.convert_ids_to_tokens(int(id)), na_action="ignore"
)
sources.query("token.str.startswith('Ġ')").iloc[300:312][
    ["token", "row", "source token"]
]

# %%
pd.DataFrame(
    {method: artifact.facts["rows"] for method, artifact in aligned.items()}
).T.fillna(0).astype(int)

# %% [markdown]
# ## Neighbours before and after
# Which English tokens have the rows most similar (by cosine) to those of a Portuguese word? With `mean` all new rows are the
# same, so every word has the same neighbours. With `pieces` they are the pieces of its spelling. With `focus` they
# should be shared tokens from the same contexts; but it learns the contexts from word vectors, and a hundred pages
# are too few for these.

# %% tags=["varies"]
portuguese = tokenizer.load(aligned["mean"].folder)


def rows_of(folder):
    """The embedding matrix of a model, each row scaled to length 1; `[V, D]`."""
    weight = causal_lm.load(folder).get_input_embeddings().weight.detach()
    return torch.nn.functional.normalize(weight, dim=1)


def nearest(row_D, rows_VD, bpe, count=4, skip=()):
    """The tokens whose rows are nearest, as text."""
    cosines = rows_VD @ row_D
    cosines[list(skip)] = -1
    return ", ".join(
        bpe.decode(id).strip() or repr(bpe.decode(id))
        for id in cosines.topk(count).indices
    )


is_new = sources.row.to_numpy() != "copied"
ids = [
    id
    for id, token in enumerate(sources.token)
    if is_new[id] and token[0] == "Ġ" and len(token) > 6
]
ids = ids[:60:5]
english_rows = rows_of(asset_path("english-nano"))
new_rows = {
    method: rows_of(aligned[method].folder)
    for method in ("mean", "pieces", "focus")
}
pd.set_option("display.width", 200)
pd.DataFrame(
    {
        method: {
            portuguese.decode(id).strip(): nearest(rows[id], english_rows, english)
            for id in ids
        }
        for method, rows in new_rows.items()
    }
)

# %% [markdown]
# Training moves the rows. Below are the nearest *Portuguese* tokens after the demo's five epochs. They started from
# `mean`, all at one point, so half a million tokens of text taught the model which of them belong together. (If there is
# no finished demo in this folder, the next cell trains it in about two minutes.)

# %% tags=["varies"]
trained = Pipeline(config).build("train").folder / "model"
tables = {"before (mean)": new_rows["mean"], "after training": rows_of(trained)}
pd.DataFrame(
    {
        when: {
            portuguese.decode(id).strip(): nearest(
                rows[id], rows, portuguese, 5, [id]
            )
            for id in ids
        }
        for when, rows in tables.items()
    }
)

# %% [markdown]
# ## A map
# All rows on the plane in which the English rows vary most: first `mean`, then `focus`. With `mean` all new tokens lie
# on one point, the star. With `focus` the ones that are frequent enough for a vector lie close together (on so little text, the
# vectors hardly differ), and the rest are drawn at random (`gaussian`). The far group on the left are
# bytes and pieces of words that hardly ever stand alone in the base model's training text.

# %%
Image(aligned["mean"].folder / "map.png", width=600)

# %%
Image(aligned["focus"].folder / "map.png", width=600)

# %% [markdown]
# ## The loss before training
# On held-out text, before any step. A model that knows nothing gives every token the same probability: its loss is the natural
# logarithm of the vocabulary size. *Calibrated* rows are moved along the mean hidden state until each token is
# as likely as it is frequent in the training text (`align.calibration_tokens`, on by default; the demo turns it off, as
# the recipe of 2020 had none).

# %%
held_out = [
    text
    for texts in corpus.load(Pipeline(config).open("corpus"), "valid")
    for text in texts
]


def loss_of(method, calibration_tokens):
    overrides = (
        f"align.method={method}",
        f"align.calibration_tokens={calibration_tokens}",
    )
    artifact = Pipeline(load_config(None, overrides)).build("align")
    return evaluate(
        artifact.folder, held_out, block_size=config.tokens.block_size
    ).loss


losses = pd.DataFrame(
    {
        "plain": {method: loss_of(method, 0) for method in methods},
        "calibrated": {method: loss_of(method, 8192) for method in methods[1:]},
    }
).loc[list(methods)]
losses.round(2)

# %%
figure, axes = plt.subplots(figsize=(6.4, 3.4), layout="constrained")
for kind, marker in (("plain", "o"), ("calibrated", "D")):
    axes.plot(losses[kind], losses.index, marker, markersize=9, label=kind)
uniform = math.log(config.tokenizer.vocab_size)
axes.axvline(
    uniform, color="tab:red", label=f"every token equally likely: {uniform:.2f}"
)
axes.set(
    xlabel="validation loss before training (nats per token)",
    title="A start by each method",
    ylim=(len(losses) - 0.5, -0.5),
)
axes.grid(alpha=0.3)
figure.legend(loc="outside lower center", ncols=3)
plt.show()

# %% [markdown]
# On so little text the methods hardly differ before training; calibration is worth more than all of them. With 24,000 pages and better
# vectors they do differ ([measurements](https://github.com/gportuguese/gportuguese/blob/main/docs/results/alignment.md)).
# `align.method: auto`, the default of new configs, tries the methods that your files allow, and takes the one with the
# lowest loss on training text.
#
# Next: [training by hand](04_training.ipynb).
