# ---
# jupyter:
#   jupytext:
#     text_representation: {extension: .py, format_name: percent}
# ---

# %% [markdown]
# # The epoch table
# Builds whatever is missing of the demonstration (or of another config: change the name) and shows
# its epoch table, curves and samples. Open it with jupytext: `jupytext --to ipynb 05_epoch_table.py`.

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
