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
    get_ipython().run_line_magic(
        "pip", "install -q 'gportuguese[vectors] @ git+https://github.com/gportuguese/gportuguese'"
    )

# %%
import math
from contextlib import nullcontext

import matplotlib.pyplot as plt
import pandas as pd
import pyarrow.parquet as pq
import torch
from IPython.display import Image

from gportuguese import Pipeline, causal_lm, init_world, load_config, metrics, tokenizer, tokens
from gportuguese.config import asset_path

config = load_config()
world = init_world(config.runtime)
methods = ("random", "gaussian", "mean", "pieces", "focus")
aligned = {
    method: Pipeline(load_config(None, (f"align.method={method}",))).build("align", world)
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
sources.query("token.str.startswith('Ġ')").iloc[300:312][["token", "row", "source token"]]

# %%
pd.DataFrame({method: artifact.facts["rows"] for method, artifact in aligned.items()}).T.fillna(
    0
).astype(int)

# %% [markdown]
# ## Neighbours before and after
# Which English tokens have the rows most similar (by cosine) to those of a Portuguese word? With `mean` all new rows are the
# same, so every word has the same neighbours. With `pieces` they are the pieces of its spelling. With `focus` they
# are shared tokens from the same contexts.

# %%
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
        bpe.decode(id).strip() or repr(bpe.decode(id)) for id in cosines.topk(count).indices
    )


is_new = sources.row.to_numpy() != "copied"
ids = [
    id
    for id, token in enumerate(sources.token)
    if is_new[id] and token[0] == "Ġ" and len(token) > 6
]
ids = ids[:60:5]
english_rows = rows_of(asset_path("english-nano"))
new_rows = {method: rows_of(aligned[method].folder) for method in ("mean", "pieces", "focus")}
pd.DataFrame(
    {
        method: {
            portuguese.decode(id).strip(): nearest(rows[id], english_rows, english) for id in ids
        }
        for method, rows in new_rows.items()
    }
)

# %% [markdown]
# Training moves the rows. After the demo's five epochs, these are the nearest *Portuguese* tokens. They started from
# `mean`, so all of the order among them was learned from half a million tokens of text. (If there is no finished
# demo in this folder, the next cell trains it in about two minutes.)

# %%
trained_rows = rows_of(Pipeline(config).build("train", world).folder / "model")
pd.DataFrame(
    {
        "after training": {
            portuguese.decode(id).strip(): nearest(
                trained_rows[id], trained_rows, portuguese, 6, [id]
            )
            for id in ids
        }
    }
)

# %% [markdown]
# ## A map
# All rows on the plane in which the English rows vary most: first `mean`, then `focus`. With `mean` all new tokens lie
# on one point, the star. With `focus` they spread among the English rows.

# %%
Image(aligned["mean"].folder / "map.png", width=600)

# %%
Image(aligned["focus"].folder / "map.png", width=600)

# %% [markdown]
# ## The loss before training
# On held-out text, before any step. A model that knows nothing gives every token the same probability: the natural
# logarithm of the vocabulary size, in nats per token.

# %%
ids_of = Pipeline(config).build("tokens", world)
valid = tokens.load_ids(ids_of.folder, "valid", ids_of.facts["dtype"])
token_bytes = tokens.load_token_bytes(ids_of.folder, "cpu")


def loss_of(folder):
    loader = tokens.BlockLoader(valid, config.tokens.block_size, batch_size=8)
    return metrics.measure(causal_lm.load(folder), loader, token_bytes, nullcontext)


measures = {method: loss_of(artifact.folder) for method, artifact in aligned.items()}
losses = pd.DataFrame(
    {
        "nats per token": {method: each.loss for method, each in measures.items()},
        "bits per byte": {method: each.bits_per_byte for method, each in measures.items()},
    }
)
losses.round(3)

# %%
figure, axes = plt.subplots(figsize=(6.4, 3), layout="constrained")
bars = axes.barh(losses.index[::-1], losses["nats per token"][::-1])
axes.bar_label(bars, fmt="%.2f", padding=-34, color="white")
axes.axvline(
    math.log(config.tokenizer.vocab_size), color="tab:red", label="every token equally likely"
)
axes.set(
    xlabel="validation loss before training (nats per token)",
    title="A start by each method",
    xlim=(losses["nats per token"].min() - 1, None),
)
axes.legend(loc="lower right")
plt.show()

# %% [markdown]
# Most of the gain comes with training: the layers above the embeddings already know much of what is common to both
# languages, and need rows that fit them.
#
# `align.method: auto`, the default of new configs, tries the methods that your files allow, and takes the one with the
# lowest loss on training text.
#
# Next: [training by hand](04_training.ipynb).
