# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
#     text_representation: {extension: .py, format_name: percent}
# ---

# %% [markdown]
# # 0. GPT-2 small into Portuguese, on a free GPU
# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/gportuguese/gportuguese/blob/main/notebooks/00_colab.ipynb)
#
# **You get** a Portuguese GPT-2 of 124 million parameters, trained on the newest dump of Portuguese Wikipedia, in a
# folder on your Google Drive. **Time**: 3.2 hours of training on a T4 and 7.9 GB of its memory, as `gpt-pt plan` estimates;
# before that, the download and the cleaning of the dump.
#
# Colab may end a session at any time. Everything is on your Drive, so open this notebook again and run all cells: the
# download, the corpus and the training go on where they stopped.
#
# This notebook has not been run on Colab: we had no GPU. Its commands are those of the tested program. If one
# fails, please [open an issue](https://github.com/gportuguese/gportuguese/issues).
#
# (`2>&1 | cat` makes the program write a line now and then, where it would draw a bar on a terminal.)
#
# First choose a GPU: *Runtime > Change runtime type > T4 GPU*.

# %%
# !nvidia-smi --query-gpu=name,memory.total --format=csv
# %pip install -q "gportuguese[vectors] @ git+https://github.com/gportuguese/gportuguese"

# %% [markdown]
# ## What to expect
# `plan` computes tokens, memory and hours before anything is downloaded. Its times are estimates from the card's data
# sheet. Look for the line `T4`.

# %%
# !gpt-pt plan --config t4 --no-measure 2>&1 | cat

# %% [markdown]
# Before the training, the CPU of the machine downloads the dump and cleans it. That is not in the estimate.
#
# ## Your Drive
# The run needs room on the Drive for the dump, the corpus and two checkpoints.

# %%
from google.colab import drive

drive.mount("/content/drive")

# %% [markdown]
# ## Train
# The `t4` config trains all layers for two epochs of 40 million tokens in fp16. For a first look, add
# `--set train.epoch_tokens=4_000_000`; for a better model, raise it: Portuguese Wikipedia has about 600 million tokens.
# A checkpoint is written every five minutes.

# %%
# !gpt-pt train --config t4 --set runtime.artifacts_dir=/content/drive/MyDrive/gportuguese 2>&1 | cat

# %% [markdown]
# ## The epoch table, curves and samples

# %%
# !gpt-pt evaluate --config t4 --set runtime.artifacts_dir=/content/drive/MyDrive/gportuguese 2>&1 | cat

# %%
from pathlib import Path

from IPython.display import Image, Markdown, display

report = max(
    Path("/content/drive/MyDrive/gportuguese").glob("evaluate-*"),
    key=lambda path: path.stat().st_mtime,
)
display(Image(report / "curves.png", width=600))
display(Markdown((report / "samples.md").read_text(encoding="utf-8")))

# %% [markdown]
# ## Write

# %%
# !gpt-pt generate /content/drive/MyDrive/gportuguese "Quem era Jim Henson? Jim Henson era um" --top-k 40 2>&1 | cat

# %% [markdown]
# ## Keep and share
# `export` writes the folder that users load with transformers, and its model card. `push` sends it to the Hugging Face
# Hub: first see with `--dry-run` what it would send, then log in and send it.

# %%
# !gpt-pt export --config t4 --set runtime.artifacts_dir=/content/drive/MyDrive/gportuguese 2>&1 | cat
# !gpt-pt push /content/drive/MyDrive/gportuguese --repo user/gpt2-small-portuguese --dry-run 2>&1 | cat

# %% [markdown]
# Another language? Add `--set name=it --set dump.wiki=itwiki` to each command
# ([notebook 7](07_your_language.ipynb)).
