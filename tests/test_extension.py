"""Continued BPE: against a slow twin that encodes all texts again after every merge."""

import functools
import gzip
import json
import re
from collections import Counter
from dataclasses import replace
from itertools import accumulate, islice

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import GPT2Config, PreTrainedTokenizerFast

from gportuguese import extension, tokenizer
from gportuguese.config import Config, TokenizerConfig
from gportuguese.tokenizer import TokenizerError
from tests.conftest import SHARED, sentence

LLAMA_3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
BYTES = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
PRE_TOKENIZERS = {
    "gpt2": pre_tokenizers.ByteLevel(add_prefix_space=False),
    "llama3": pre_tokenizers.Sequence(
        [pre_tokenizers.Split(Regex(LLAMA_3), "isolated"), BYTES],
    ),
    "smollm2": pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    ),
}
PORTUGUESE = [f"Em {1900 + number}: {sentence(number, 60)}. Ação, coração." for number in range(30)]


def backend_of(kind, texts=("the house of the sea and the other houses " * 9,), entries=275):
    """A small tokenizer that reads text as GPT-2, Llama 3 or SmolLM2 do."""
    vocab, merges = tokenizer.train(iter(texts), entries, 2)
    del vocab[tokenizer.END_OF_TEXT]
    special = ["<|endoftext|>", "<|begin|>"]
    if kind == "smollm2":  # special tokens come first, and some ids have no token
        vocab = {token: id + (7 if id < 100 else 10) for token, id in vocab.items()}
        vocab |= {token: id for id, token in enumerate(special)}
    made = Tokenizer(models.BPE(vocab, merges, ignore_merges=kind == "llama3"))
    made.pre_tokenizer, made.decoder = PRE_TOKENIZERS[kind], decoders.ByteLevel()
    made.add_special_tokens(special)
    if kind == "llama3":
        made.add_tokens([AddedToken("=>", normalized=False)])
        made.post_processor = processors.TemplateProcessing(
            single="<|begin|> $A", special_tokens=[("<|begin|>", made.token_to_id("<|begin|>"))]
        )
    return made


@functools.cache
def source_of(kind):
    return PreTrainedTokenizerFast(
        tokenizer_object=backend_of(kind), bos_token="<|begin|>", eos_token="<|endoftext|>"
    )


@functools.cache
def extended_of(kind, texts=tuple(PORTUGUESE), vocab_size=None):
    source = source_of(kind)
    size = vocab_size or tokenizer.num_ids(source) + 60
    section = TokenizerConfig(method="extend", vocab_size=size)
    return tokenizer.extend(source, lambda: [list(texts)], section)


def slow_learn(base, texts, vocab_size, min_frequency):
    """Encodes all texts with the merges found until then, and joins the most frequent pair."""
    vocab = base.get_vocab(with_added_tokens=True)
    merges = [tuple(pair) for pair in json.loads(base.to_str())["model"]["merges"]]
    forbidden = {token.content for token in base.get_added_tokens_decoder().values()}
    free = iter(sorted(set(range(vocab_size)) - set(vocab.values())))
    ages = {}  # new tokens in the order in which they were learned, after all old ones
    while len(vocab) < vocab_size:
        current = extension.extended(base, vocab, merges)
        current.encode_special_tokens = True
        names = {id: token for token, id in vocab.items()}
        pairs = Counter()
        for text in texts:
            found = current.encode(text, add_special_tokens=False)
            for left, right, before, after in zip(
                found.ids, found.ids[1:], found.word_ids, found.word_ids[1:], strict=False
            ):
                if before == after and names[left] + names[right] not in forbidden:
                    pairs[left, right] += 1
        if not pairs:
            break
        (left, right), count = min(
            pairs.items(), key=lambda item: (-item[1], *(ages.get(id, id) for id in item[0]))
        )
        if count < min_frequency:
            break
        whole = names[left] + names[right]
        vocab[whole] = next(free)
        ages[vocab[whole]] = 10**6 + len(vocab)
        merges.append((names[left], names[right]))
    return vocab, merges


@pytest.mark.parametrize("kind", PRE_TOKENIZERS)
@pytest.mark.parametrize("min_frequency", [2, 60])
def test_merges_equal_the_slow_twin(kind, min_frequency):
    base = tokenizer.plain_backend(source_of(kind))
    size = tokenizer.num_ids(source_of(kind)) + 40
    args = (size, min_frequency)
    learned = extension.learn(base, lambda: [PORTUGUESE[:20], PORTUGUESE[20:]], *args)
    assert learned == slow_learn(base, PORTUGUESE, *args)
    assert (len(learned[0]) == size) == (min_frequency == 2)


@given(
    st.lists(st.text("ab 1é", max_size=12), max_size=5),
    st.sampled_from(list(PRE_TOKENIZERS)),
    st.integers(1, 3),
)
def test_merges_of_any_texts_equal_the_slow_twin(texts, kind, min_frequency):
    base = tokenizer.plain_backend(source_of(kind))
    args = (tokenizer.num_ids(source_of(kind)) + 6, min_frequency)
    assert extension.learn(base, lambda: [texts], *args) == slow_learn(base, texts, *args)


def pieces_of(made, text):
    """The byte strings of a text's tokens."""
    table = tokenizer.bytes_of_tokens(made)
    ids = tokenizer.plain_backend(made).encode(text, add_special_tokens=False).ids
    return [table[id] for id in ids]


def ends_of(pieces):
    return set(accumulate(map(len, pieces)))


SPELLINGS = st.text() | st.lists(
    st.sampled_from(
        [
            *"aeo 1ãç\n",
            " casa",
            "coração",
            "<|endoftext|>",
            "<|begin|>",
            "=>",
            " the",
            "house",
            "98",
        ]
    )
).map("".join)


@given(SPELLINGS, st.sampled_from(list(PRE_TOKENIZERS)))
def test_new_merges_only_join_tokens_of_the_base(text, kind):
    old, new = pieces_of(source_of(kind), text), pieces_of(extended_of(kind), text)
    assert b"".join(new) == b"".join(old) == text.encode()
    assert ends_of(new) <= ends_of(old)  # so there are at most as many tokens
    special = set(extended_of(kind).all_special_ids)
    assert not special & set(
        tokenizer.plain_backend(extended_of(kind)).encode(text, add_special_tokens=False).ids
    )


@pytest.mark.parametrize("kind", PRE_TOKENIZERS)
def test_all_old_tokens_keep_their_ids_and_new_ones_fill_the_gaps(kind):
    source, made = source_of(kind), extended_of(kind)
    vocab = made.get_vocab()
    assert source.get_vocab().items() <= vocab.items()
    assert sorted(vocab.values()) == list(range(tokenizer.num_ids(source) + 60))
    added = {id: str(token) for id, token in source.added_tokens_decoder.items()}
    assert {id: str(token) for id, token in made.added_tokens_decoder.items()} == added
    assert (made.eos_token, made.eos_token_id) == (source.eos_token, source.eos_token_id)
    merges = json.loads(made.backend_tokenizer.to_str())["model"]["merges"]
    old = json.loads(source.backend_tokenizer.to_str())["model"]["merges"]
    assert merges[: len(old)] == old
    text = PORTUGUESE[0]
    assert len(pieces_of(made, text)) < 0.8 * len(pieces_of(source, text))
    assert made("a")["input_ids"] == made("a", add_special_tokens=False)["input_ids"]
    assert made("a<|begin|>b")["input_ids"][1] == source.bos_token_id  # outside of training text


@pytest.mark.parametrize("kind", PRE_TOKENIZERS)
@pytest.mark.parametrize("model_type", ["gpt2", "llama"])
def test_saved_folder_reads_text_like_the_tokenizer_in_memory(kind, model_type, tmp_path):
    made = extended_of(kind)
    made.chat_template = "{{ messages }}"
    tokenizer.save(made, tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({"model_type": model_type}))
    loaded = tokenizer.load(tmp_path)
    assert loaded.get_vocab() == made.get_vocab()
    assert loaded.chat_template == made.chat_template
    assert (loaded.bos_token, loaded.eos_token) == (made.bos_token, made.eos_token)
    for text in (*PORTUGUESE, "in 1998 => the <|endoftext|> house", "\n\n  x"):
        assert pieces_of(loaded, text) == pieces_of(made, text)
        assert loaded(text)["input_ids"] == made(text)["input_ids"]
    config = json.loads((tmp_path / "tokenizer_config.json").read_text())
    assert config["tokenizer_class"] == "PreTrainedTokenizerFast"  # transformers 4 knows no other


def test_text_that_spells_a_special_token_does_not_become_one():
    texts = ["<|endoftext|> <|begin|>"] * 50
    made = tokenizer.extend(
        source_of("gpt2"), lambda: [texts], TokenizerConfig(method="extend", vocab_size=286)
    )
    ids = tokenizer.plain_backend(made).encode(texts[0], add_special_tokens=False).ids
    assert not set(made.all_special_ids) & set(ids)
    assert b"".join(pieces_of(made, texts[0])) == texts[0].encode()


def test_an_entry_that_no_merges_reach_is_reached_without_a_second_one():
    """Such entries are found only whole words, as in Llama 3."""
    base = backend_of("llama3")
    parts = json.loads(base.to_str())
    id = parts["model"]["vocab"]["casa"] = len(parts["model"]["vocab"])  # its merges are missing
    base = Tokenizer.from_str(json.dumps(parts))

    def tokens(made, text):
        return made.encode(text, add_special_tokens=False).tokens

    assert tokens(base, "casa") == ["casa"]
    assert len(tokens(base, "casas")) == 5
    size = base.get_vocab_size() + 3
    vocab, merges = extension.learn(base, lambda: [["casax\ncasay\ncasaz\n"] * 9], size, 2)
    made = extension.extended(base, vocab, merges)
    assert vocab["casa"] == id
    assert tokens(made, "casax") == ["casax"]
    assert len(vocab) == size
    assert len(merges) == len(set(merges)) == len(parts["model"]["merges"]) + 4


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model": {"dropout": 0.1}}, "drops merges at random"),
        ({"model": {"end_of_word_suffix": "</w>"}}, "ends of words"),
        ({"pre_tokenizer": {"type": "Whitespace"}}, "does not map text to bytes"),
        ({"added_tokens": [{"content": "SEP", "id": 274}]}, "'SEP' is a word"),
    ],
)
def test_unsupported_tokenizers_are_named(change, message, tmp_path):
    parts = json.loads(backend_of("llama3").to_str())
    for key, value in change.items():
        if key == "model":
            parts["model"] |= value
        elif key == "added_tokens":
            flags = ("single_word", "lstrip", "rstrip", "normalized")
            parts[key] = [{**value[0], **dict.fromkeys(flags, False), "special": True}]
        else:
            parts[key] = value
    made = Tokenizer.from_str(json.dumps(parts))
    assert message in extension.unsupported(made)
    for kind in PRE_TOKENIZERS:
        assert extension.unsupported(backend_of(kind)) is None


def saved_base(folder, kind="gpt2", **special):
    """A folder with a config and a tokenizer, but no weights."""
    made = PreTrainedTokenizerFast(tokenizer_object=backend_of(kind), **special)
    made.save_pretrained(folder)
    GPT2Config(vocab_size=len(made)).save_pretrained(folder)
    return str(folder)


def config_of(base, vocab_size):
    config = Config(name="x", tokenizer=TokenizerConfig(method="extend", vocab_size=vocab_size))
    return replace(config, align=replace(config.align, base=base))


def test_a_vocabulary_that_is_not_larger_is_rejected_with_the_number_to_set(tmp_path):
    base = saved_base(tmp_path, eos_token="<|endoftext|>")
    with pytest.raises(TokenizerError, match=re.escape("vocab_size=276 counts the 276 tokens")):
        tokenizer.load_extendable(config_of(base, 276))
    assert len(tokenizer.load_extendable(config_of(base, 277))) == 276


def test_a_base_without_an_end_of_text_token_is_rejected(tmp_path):
    with pytest.raises(TokenizerError, match="no end-of-text token"):
        tokenizer.load_extendable(config_of(saved_base(tmp_path), 300))


def test_a_base_without_a_tokenizer_is_rejected(tmp_path):
    GPT2Config().save_pretrained(tmp_path)
    with pytest.raises(TokenizerError, match="no tokenizer"):
        tokenizer.load_extendable(config_of(str(tmp_path), 300))


def test_too_little_text_is_an_error_that_says_how_many_entries_it_fills():
    section = TokenizerConfig(method="extend", vocab_size=400)
    with pytest.raises(TokenizerError, match=r"fills only 279 of tokenizer.vocab_size=400"):
        tokenizer.extend(source_of("gpt2"), lambda: [["casa"] * 9], section)


@pytest.mark.data
@pytest.mark.skipif(not SHARED.exists(), reason="needs ../shared/data")
def test_gpt2_gets_shorter_in_portuguese_and_no_longer_in_english():
    folder = SHARED / "gpt2_tokenizer"
    vocab = json.loads((folder / "vocab.json").read_text(encoding="utf-8"))
    lines = (folder / "merges.txt").read_text(encoding="utf-8").splitlines()[1:]
    source = tokenizer.make_tokenizer(vocab, [tuple(line.split(" ")) for line in lines])

    def texts_of(name):
        with gzip.open(SHARED / name, "rt", encoding="utf-8") as file:
            return [json.loads(line)["text"] for line in islice(file, 300)]

    portuguese = texts_of("ptwiki/rendered-2000.jsonl.gz")
    english = texts_of("english/enwiki-paragraphs.jsonl.gz")
    section = TokenizerConfig(method="extend", vocab_size=52_257)
    made = tokenizer.extend(source, lambda: [portuguese[:250]], section)
    merges = json.loads(made.backend_tokenizer.to_str())["model"]["merges"]
    assert len(merges) == 52_000  # none spells a token of GPT-2, since its merges reach all of them
    lengths = {}
    for name, texts in (("pt", portuguese[250:]), ("en", english)):
        old, new = (
            [len(e.ids) for e in tokenizer.plain_backend(bpe).encode_batch(texts)]
            for bpe in (source, made)
        )
        assert all(after <= before for before, after in zip(old, new, strict=True))
        lengths[name] = sum(new) / sum(old)
    assert lengths["pt"] < 0.8
    assert 0.99 < lengths["en"] <= 1
