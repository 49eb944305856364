# ---
# jupyter:
#   jupytext:
#     text_representation: {extension: .py, format_name: percent}
# ---

# %% [markdown]
# # English weights, Portuguese tokens
# The `align` stage gives the base model an embedding row for every token of the new vocabulary. Where
# a row came from stands in `sources.parquet`.

# %%
from contextlib import nullcontext

import pyarrow.parquet as pq

from gportuguese import Pipeline, init_world, load_config, metrics, tokens
from gportuguese import model as models

config = load_config()
pipeline = Pipeline(config)
world = init_world(config.runtime)
artifact = pipeline.build("align", world)
artifact.facts

# %%
sources = pq.read_table(artifact.folder / "sources.parquet").to_pandas()
sources[["token", "row", "source_id"]].sample(12, random_state=0)

# %% [markdown]
# What the transfer is worth before any training, on held-out text: the aligned model against the same
# architecture with random weights (which knows nothing: about the logarithm of the vocabulary, in
# nats per token). The gain comes with training: see the next notebook.

# %%
ids = pipeline.build("tokens", world)
loader = tokens.BlockLoader(
    tokens.load_ids(ids.folder, "valid", ids.facts["dtype"]), config.tokens.block_size, 8
)
fresh = Pipeline(load_config(None, ("align.method=random",))).build("align", world)
for name, folder in (("aligned", artifact.folder), ("random", fresh.folder)):
    measures = metrics.measure(
        models.load(folder), loader, tokens.load_token_bytes(ids.folder, "cpu"), nullcontext
    )
    print(
        f"{name:8} {measures.loss:.3f} nats per token, {measures.bits_per_byte:.3f} bits per byte"
    )
