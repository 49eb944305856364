# ---
# jupyter:
#   jupytext:
#     text_representation: {extension: .py, format_name: percent}
# ---

# %% [markdown]
# # The epoch table
# This notebook runs the missing stages of the demo, or of another config if you change its name, and shows the epoch
# table, curves and samples. `jupytext --to ipynb 05_epoch_table.py` converts it for Jupyter.

# %%
from IPython.display import Image, Markdown, display

from gportuguese import Pipeline, init_world, load_config

config = load_config()  # e.g. load_config("pilot", ("dump.source=...",))
report = Pipeline(config).build("evaluate", init_world(config.runtime)).folder

# %%
display(Markdown((report / "epochs.md").read_text(encoding="utf-8")))
display(Image(report / "curves.png"))

# %%
display(Markdown((report / "samples.md").read_text(encoding="utf-8")))
