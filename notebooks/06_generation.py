# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
#     text_representation: {extension: .py, format_name: percent}
# ---

# %% [markdown]
# # 6. Choosing the next word
# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/gportuguese/gportuguese/blob/main/notebooks/06_generation.ipynb)
#
# **You learn** how a model writes: it gives every token a probability, and something has to choose. What greedy decoding,
# temperature, top-k and top-p do to these probabilities, and how users load the exported model.
# **Time**: half a minute on two CPU cores if the demo has run, else two minutes; without a network.
#
# The model is that of the demo. It has 2.6 million parameters and has read a hundred pages: it shows how choosing works,
# not how well a model can write. For a better one, set `MODEL` to the folder of another run, or to a Hub id
# such as `pierreguillou/gpt2-small-portuguese`.

# %%
from importlib.util import find_spec

from IPython import get_ipython

if find_spec("gportuguese") is None:  # on Colab
    source = "git+https://github.com/gportuguese/gportuguese"
    get_ipython().run_line_magic(
        "pip", f"install -q 'gportuguese[vectors] @ {source}'"
    )

# %%
import matplotlib.pyplot as plt
import pandas as pd
import torch
from IPython.display import Markdown

from gportuguese import Pipeline, generate, load_config, load_model

MODEL = None
pipeline = Pipeline(load_config())
writer = load_model(MODEL or pipeline.build("train").folder)

# %% [markdown]
# ## The next word
# The 2020 notebook asked for the most likely next word. A word may take several tokens; it ends where the next one
# begins.

# %% tags=["varies"]
for prompt in ("Lisboa é a capital", "A água é", "O futebol", "Durante a Idade"):
    print(f"{prompt} |{writer.next_word(prompt)}")

# %% [markdown]
# ## Probabilities
# Behind each word is a probability for each of the 4,096 tokens.

# %%
PROMPT = "A cidade do Porto é a"


@torch.inference_mode()
def next_tokens(prompt):
    """Every token with its probability, the most likely first."""
    ids = torch.tensor([writer.prompt_ids(prompt)], device=writer.device)
    probabilities = writer.model(ids).logits[0, -1].float().softmax(-1).cpu()
    names = [writer.texts.name(token) for token in range(len(probabilities))]
    return pd.Series(probabilities, index=names).sort_values(ascending=False)


tokens = next_tokens(PROMPT)
figure, axes = plt.subplots(figsize=(6.4, 4), layout="constrained")
top = tokens.head(15)[::-1]
bars = axes.barh([repr(name) for name in top.index], 100 * top)
axes.bar_label(bars, fmt="%.1f", padding=2)
axes.set(xlabel="probability (%)", ylabel="next token", title=f"{PROMPT} ...")
axes.margins(x=0.1)
plt.show()

# %% [markdown]
# Three settings change what is drawn:
#
# - **temperature** divides the logits before they become probabilities: below 1 the likely tokens gain, above 1
#   the unlikely ones.
# - **top-k** keeps only the k most likely tokens.
# - **top-p** keeps the most likely tokens that together reach the probability p: few where the model is sure, many
#   where it is not.

# %%
figure, panels = plt.subplots(1, 2, figsize=(7.2, 3.4), layout="constrained")
for temperature in (0.5, 0.7, 1.0, 1.5):
    warmed = torch.tensor(tokens.to_numpy()).log().div(temperature).softmax(-1)
    panels[0].plot(range(1, 21), 100 * warmed[:20], ".-", label=f"{temperature}")
panels[0].set(
    xlabel="rank of the token",
    ylabel="probability (%)",
    title="Temperature",
    xticks=[1, 5, 10, 15, 20],
)
panels[0].legend(title="temperature")
together = 100 * tokens.cumsum().to_numpy()
panels[1].plot(
    range(1, len(together) + 1),
    together,
    color="0.3",
    label="sum of the most likely",
)
panels[1].axvline(40, color="tab:orange", label="top-k = 40")
nucleus = int((together < 95).sum()) + 1
panels[1].axhline(95, color="tab:green", label=f"top-p = 0.95: {nucleus:,} tokens")
panels[1].set(
    xscale="log",
    xlabel="rank of the token",
    ylabel="summed probability (%)",
    title="Top-k and top-p",
)
panels[1].legend(fontsize=9, loc="lower right")
plt.show()

# %% [markdown]
# How sure the model is differs from word to word, so a fixed k is at one place too many and at another too few:

# %% tags=["varies"]
surest = {}
for prompt in (
    "Idade",
    "Durante a Idade",
    "Fernando",
    "A cidade do Porto é a",
    "O",
):
    each = next_tokens(prompt)
    surest[prompt] = {
        "most likely": repr(each.index[0]),
        "its probability (%)": round(100 * float(each.iloc[0]), 1),
        "tokens in top-p 0.95": int((each.cumsum() < 0.95).sum()) + 1,
    }
pd.DataFrame(surest).T

# %% [markdown]
# ## Texts
# The same prompt, four ways. Greedy decoding always gives the same text and soon repeats itself. Sampling from all tokens
# wanders off. Top-k and top-p are between the two; a repetition penalty lowers the probability of tokens
# that are already there. The seed makes each draw repeatable.

# %% tags=["varies"]
ways = {
    "greedy": {"top_k": 1},
    "from all tokens": {"top_k": 0},
    "top-k 40": {"top_k": 40},
    "top-p 0.95, temperature 0.7, penalty 1.2": {
        "top_k": 0,
        "top_p": 0.95,
        "temperature": 0.7,
        "repetition_penalty": 1.2,
    },
}
texts = {
    way: generate(writer, PROMPT, max_new_tokens=40, **way_of)
    for way, way_of in ways.items()
}
lines = [f"- *{way}*: **{PROMPT}**{text}" for way, text in texts.items()]
Markdown("\n".join(line.replace("\n", " ") for line in lines))

# %% [markdown]
# ## The model card's examples
# `export` writes the folder that others load, with no need of this package, and its model card. These are the lines of
# the card, with the folder in place of a name on the Hub:

# %%
exported = pipeline.build("export").folder
print(
    *sorted(
        path.name for path in exported.iterdir() if path.name != "manifest.json"
    ),
    sep="\n",
)

# %% tags=["varies"]
from transformers import AutoModelForCausalLM, AutoTokenizer
from transformers.utils import logging

logging.disable_progress_bar()

tokenizer = AutoTokenizer.from_pretrained(exported)
model = AutoModelForCausalLM.from_pretrained(exported).eval()

inputs = tokenizer("Lisboa é a capital de", return_tensors="pt")
# greedy decoding
print(
    tokenizer.decode(
        model.generate(**inputs, max_new_tokens=20, do_sample=False)[0]
    )
)
# top-k sampling
torch.manual_seed(0)
print(
    tokenizer.decode(
        model.generate(**inputs, max_new_tokens=50, do_sample=True, top_k=40)[0]
    )
)

# %% [markdown]
# On the command line:
#
#     gpt-pt generate artifacts "Lisboa é a capital de" --top-k 40
#     gpt-pt serve artifacts      # a page to try the model in the browser
#
# Next: [your own language](07_your_language.ipynb).
