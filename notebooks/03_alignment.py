# ---
# jupyter:
#   jupytext:
#     text_representation: {extension: .py, format_name: percent}
# ---

# %% [markdown]
# # English weights, Portuguese tokens
# The `align` stage gives the base model an embedding row for every token of the new vocabulary.
# `sources.parquet` lists the source of each row. The demo uses `mean`, the published method.
# `docs/results/alignment.md` compares it with the others.

# %%
from contextlib import nullcontext

import pyarrow.parquet as pq
from IPython.display import Image, Markdown, display

from gportuguese import Pipeline, causal_lm, init_world, load_config, metrics, tokens

config = load_config()
pipeline = Pipeline(config)
world = init_world(config.runtime)
artifact = pipeline.build("align", world)
artifact.facts

# %%
sources = pq.read_table(artifact.folder / "sources.parquet").to_pandas()
sources[["token", "row", "source_id"]].sample(12, random_state=0)

# %% [markdown]
# `focus` needs only text in the new language. It mixes the rows of shared tokens with similar use. Below are
# twenty rows of each kind with their nearest source tokens, and a map of all rows:

# %%
focus = Pipeline(load_config(None, ("align.method=focus",))).build("align", world)
display(Markdown((focus.folder / "examples.md").read_text(encoding="utf-8")))
Image(focus.folder / "map.png")

# %% [markdown]
# The loss on held-out text before any training, for the aligned models and for the same architecture with random
# weights. Random weights give about the logarithm of the vocabulary size, in nats per token. Most of the gain comes
# with training: see the next notebook.

# %%
ids = pipeline.build("tokens", world)
loader = tokens.BlockLoader(
    tokens.load_ids(ids.folder, "valid", ids.facts["dtype"]), config.tokens.block_size, 8
)
fresh = Pipeline(load_config(None, ("align.method=random",))).build("align", world)
for name, folder in (
    ("mean", artifact.folder),
    ("focus", focus.folder),
    ("random", fresh.folder),
):
    measures = metrics.measure(
        causal_lm.load(folder), loader, tokens.load_token_bytes(ids.folder, "cpu"), nullcontext
    )
    print(
        f"{name:8} {measures.loss:.3f} nats per token, {measures.bits_per_byte:.3f} bits per byte"
    )
