# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
#     text_representation: {extension: .py, format_name: percent}
# ---

# %% [markdown]
# # 2. A tokenizer for Portuguese
# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/gportuguese/gportuguese/blob/main/notebooks/02_tokenizer.ipynb)
#
# **You learn** how an English tokenizer cuts Portuguese words to pieces, what a tokenizer of its own changes, and for
# which words. **Time**: a few seconds on two CPU cores, without a network.

# %%
from importlib.util import find_spec

from IPython import get_ipython

if find_spec("gportuguese") is None:  # on Colab
    source = "git+https://github.com/gportuguese/gportuguese"
    get_ipython().run_line_magic(
        "pip", f"install -q 'gportuguese[vectors] @ {source}'"
    )

# %%
import re

import matplotlib.pyplot as plt
import pandas as pd

from gportuguese import Pipeline, corpus, load_config, tokenizer
from gportuguese.config import asset_path

config = load_config()
pipeline = Pipeline(config)
artifact = pipeline.build("tokenizer")
bpes = {
    "English": tokenizer.load(asset_path("english-nano")),
    "Portuguese": tokenizer.load(artifact.folder),
}

# %% [markdown]
# Both are byte-level BPE like GPT-2's, with 4,096 tokens. The English one came with the base model. The Portuguese
# one learned its merges from the training documents:

# %%
words = tokenizer.bytes_of_tokens(bpes["Portuguese"])
print(
    "first merges: ",
    *(repr(word.decode("utf-8", "replace")) for word in words[256:280]),
)
print(
    "longest tokens:",
    *(repr(word.decode()) for word in sorted(words, key=len)[-8:]),
)

# %% [markdown]
# ## A sentence in colours
# Each coloured box is a token.


# %%
def pieces_of(sentence, bpe):
    """The text of each token; parts of a character show as bytes."""
    ids = bpe(sentence)["input_ids"]
    table = tokenizer.bytes_of_tokens(bpe)
    return [table[id].decode("utf-8", "backslashreplace") for id in ids]


def draw_tokens(axes, pieces, title):
    """Writes the tokens side by side in boxes of different colours."""
    colours = plt.get_cmap("Pastel1").colors
    place, xy = axes.transAxes, (0, 0.3)
    for number, piece in enumerate(pieces):
        box = {"facecolor": colours[number % 5], "edgecolor": "none", "pad": 2}
        text = piece.replace(" ", "\N{OPEN BOX}")
        font = {"family": "monospace", "fontsize": 10}
        place = axes.annotate(
            text,
            xy,
            (5, 0),
            xycoords=(place, "axes fraction"),
            textcoords="offset points",
            bbox=box,
            **font,
        )
        xy = (1, 0.3)
    axes.set_title(title, loc="left", fontsize=10)
    axes.axis("off")


sentence = "A educação é um direito de todos os cidadãos."
figure, panels = plt.subplots(2, 1, figsize=(6.4, 1.8), gridspec_kw={"hspace": 1})
for axes, (name, bpe) in zip(panels, bpes.items(), strict=True):
    pieces = pieces_of(sentence, bpe)
    draw_tokens(axes, pieces, f"{name} tokenizer: {len(pieces)} tokens")
plt.show()

# %% [markdown]
# Decoding returns any text unchanged, because the 256 bytes are tokens too:

# %%
text = "Olá, 世界! 🙂\ttab"
assert all(
    bpe.decode(bpe.encode(text), clean_up_tokenization_spaces=False) == text
    for bpe in bpes.values()
)

# %% [markdown]
# ## Fertility
# Fertility is the number of tokens per word. The words below come from held-out documents, which the Portuguese
# tokenizer has not seen.

# %%
held_out = [
    text
    for texts in corpus.load(pipeline.open("corpus"), "valid")
    for text in texts
]
found = pd.Series([word for text in held_out for word in re.findall(r"\w+", text)])


def kind_of(word):
    if any(character.isdigit() for character in word):
        return "numbers"
    if word[0].isupper():
        return "names, first words"
    if not word.isascii():
        return "with an accent"
    return (
        "up to 3 letters"
        if len(word) <= 3
        else "4 to 7"
        if len(word) <= 7
        else "8 and more"
    )


kinds = found.map(kind_of)
fertility = pd.DataFrame(
    {
        name: found.map(
            {word: len(bpe(" " + word)["input_ids"]) for word in found.unique()}
        )
        for name, bpe in bpes.items()
    }
).groupby(kinds)
order = [
    "up to 3 letters",
    "4 to 7",
    "8 and more",
    "with an accent",
    "names, first words",
    "numbers",
]
table = fertility.mean().loc[order].assign(words=kinds.value_counts())
table.round(2)

# %%
axes = table[["English", "Portuguese"]].plot.bar(
    figsize=(6.4, 3.4), rot=20, width=0.75
)
axes.set(
    xlabel="",
    ylabel="tokens per word",
    title="Fertility by kind of word, held-out text",
)
axes.axhline(1, color="0.5", linewidth=0.8, linestyle="--")
axes.legend(title="tokenizer")
axes.figure.tight_layout()
plt.show()

# %% [markdown]
# Words with an accent gain most: to the English tokenizer, each accented letter is two bytes that it seldom joins.
#
# ## What it means for training
# Fewer tokens per byte mean a longer context and fewer steps for the same text. It also means that losses per
# token of two tokenizers must not be compared: a token of the better tokenizer holds more text. That is why all
# tables here also show bits per byte.

# %%
num_bytes = sum(len(text.encode()) for text in held_out)
num_tokens = {
    name: sum(map(len, bpe(held_out, verbose=False)["input_ids"]))
    for name, bpe in bpes.items()
}
pd.DataFrame(
    {
        name: {
            "tokens of the validation set": f"{tokens:,}",
            "bytes per token": round(num_bytes / tokens, 2),
            f"bytes in a context of {config.tokens.block_size} tokens": round(
                config.tokens.block_size * num_bytes / tokens
            ),
        }
        for name, tokens in num_tokens.items()
    }
)

# %% [markdown]
# ## Your turn
# - Try other sentences: `draw_tokens(plt.subplots(figsize=(6.4, 0.8))[1], pieces_of("...", bpes["Portuguese"]), "")`.
# - What does a vocabulary of 8,192 change? `load_config(None, ("tokenizer.vocab_size=8192",))`.
#
# Next: [embedding rows for the new tokens](03_alignment.ipynb).
