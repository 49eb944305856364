# ---
# jupyter:
#   jupytext:
#     text_representation: {extension: .py, format_name: percent}
# ---

# %% [markdown]
# # A tokenizer for Portuguese
# The `tokenizer` stage trains a byte-level BPE like GPT-2's on the training documents. The base model's
# English tokenizer needs more tokens for the same Portuguese text:

# %%
import matplotlib.pyplot as plt

from gportuguese import Pipeline, corpus, init_world, load_config, tokenizer
from gportuguese.config import asset_path

config = load_config()
pipeline = Pipeline(config)
artifact = pipeline.build("tokenizer", init_world(config.runtime))
portuguese = tokenizer.load(artifact.folder)
english = tokenizer.load(asset_path("english-nano"))
artifact.facts

# %%
for sentence in ("Gosto do queijo e vinho.", "A educação é um direito de todos os cidadãos."):
    print(" ".join(portuguese.tokenize(sentence)))
    print(" ".join(english.tokenize(sentence)), end="\n\n")

# %% [markdown]
# The odd characters stand for bytes: `Ġ` is a leading space, `Ã§Ã£o` is "ção". Decoding returns any text
# unchanged:

# %%
text = "Olá, 世界! 🙂\ttab"
assert portuguese.decode(portuguese.encode(text), clean_up_tokenization_spaces=False) == text

# %% [markdown]
# Fewer tokens per byte mean a longer context and fewer steps for the same text. These documents are held out:
# the Portuguese tokenizer has not seen them.

# %%
held_out = [text for texts in corpus.load(pipeline.open("corpus"), "valid") for text in texts]
num_bytes = sum(len(text.encode()) for text in held_out)
bytes_per_token = {
    name: num_bytes / sum(len(ids) for ids in bpe(held_out)["input_ids"])
    for name, bpe in (("English", english), ("Portuguese", portuguese))
}
figure, axes = plt.subplots(figsize=(5, 2))
axes.barh(list(bytes_per_token), list(bytes_per_token.values()))
axes.set(xlabel="UTF-8 bytes of Portuguese text per token")
bytes_per_token
