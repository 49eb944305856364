"""Continued BPE: further tokens and merges on top of those of a finished byte-level tokenizer.

`BpeTrainer` of the package tokenizers cannot start from merges (its issues 839 and 879), but it accepts
any alphabet. Here each token of the base is one character of the alphabet. The base encodes the texts, a
word becomes the string of its tokens' characters, and the trainer learns merges of these.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np
from tokenizers import Tokenizer, models, pre_tokenizers, trainers

_FIRST_CHARACTER = 0x100  # of token 0: above the space, which separates words
_SURROGATES = 0xD800, 0x800  # the first code point that is not a character, and how many there are

Merge = tuple[str, str]


def learn(
    base: Tokenizer,
    batches: Callable[[], Iterable[list[str]]],
    vocab_size: int,
    min_frequency: int,
) -> tuple[dict[str, int], list[Merge]]:
    """The vocabulary and merges of `base`, and those learned on top of them.

    New tokens get the ids that are free, from the lowest. Merges the most frequent pair of adjacent
    tokens of a word, in a tie the one with the lowest ids, until the vocabulary has `vocab_size`
    entries, added tokens included, or no pair occurs `min_frequency` times. `batches` is called again in
    the rare case that many merges spell tokens that exist.
    """
    entries = base.get_vocab(with_added_tokens=True)
    letters = _letters(1 + max(entries.values()))
    spelled = {letters[id]: token for token, id in entries.items()}
    forbidden = {token.content for token in base.get_added_tokens_decoder().values()}
    old_merges = _model_of(base)["merges"]
    num_merges = vocab_size - len(entries)
    while True:
        num_merges += num_merges // 8 + 8  # a merge that spells an existing token adds none
        found = _train(_words(base, batches(), letters), letters, num_merges, min_frequency)
        vocab, merges = _spell(found, spelled, entries, forbidden, old_merges, vocab_size)
        if len(vocab) == vocab_size or len(found) < num_merges:
            return vocab, merges


def extended(base: Tokenizer, vocab: dict[str, int], merges: list[Merge]) -> Tokenizer:
    """The base with another vocabulary and merges; it adds no special tokens to a text.

    Added tokens must be in `vocab`: tokenizers gives ids after the last entry to those that are not.
    """
    parts = json.loads(base.to_str())
    parts["model"] |= {"vocab": vocab, "merges": merges}
    if "TemplateProcessing" in json.dumps(parts["post_processor"]):
        parts["post_processor"] = (
            None  # training texts begin without a special token; so do prompts
        )
    return Tokenizer.from_str(json.dumps(parts))


def unsupported(base: Tokenizer) -> str | None:
    """Why the tokenizer cannot be extended, in words; None if it can."""
    model = _model_of(base)
    if model["dropout"]:
        return "it drops merges at random (dropout)"
    if model["continuing_subword_prefix"] or model["end_of_word_suffix"]:
        return "it marks the beginnings or ends of words"
    if '"ByteLevel"' not in json.dumps(json.loads(base.to_str())["pre_tokenizer"]):
        return "its pre-tokenizer does not map text to bytes"
    if model["ignore_merges"]:
        # such a name becomes an entry of the model and would then be read in plain text
        for token in base.get_added_tokens_decoder().values():
            is_word = [word for word, _ in base.pre_tokenizer.pre_tokenize_str(token.content)]
            if token.special and is_word == [token.content] and token.content not in model["vocab"]:
                return f"its added token {token.content!r} is a word"
    return None


def _model_of(base: Tokenizer) -> dict[str, Any]:
    model: dict[str, Any] = json.loads(base.to_str())["model"]
    model["merges"] = [tuple(merge) for merge in model["merges"]]
    return model


def _letters(number: int) -> list[str]:
    """One character for each id; none is a surrogate or the space."""
    return [chr(code) for code in _code_points(number)]


def _code_points(number: int) -> np.ndarray:
    codes = np.arange(number, dtype="<u4") + _FIRST_CHARACTER
    first, length = _SURROGATES
    codes[codes >= first] += length
    return codes


def _words(base: Tokenizer, batches: Iterable[list[str]], letters: list[str]) -> Iterator[str]:
    """Each text as the letters of its tokens, with spaces between words."""
    codes, space = _code_points(len(letters)), ord(" ")
    for batch in batches:
        # `encode_batch_fast` does not say which tokens belong to one word
        for encoding in base.encode_batch(batch, add_special_tokens=False):
            words = np.array(encoding.word_ids, np.int64)
            starts = np.flatnonzero(np.diff(words)) + 1
            text = np.insert(codes[np.array(encoding.ids, np.int64)], starts, space)
            yield text.astype("<u4").tobytes().decode("utf-32-le")


def _train(
    words: Iterator[str], letters: list[str], num_merges: int, min_frequency: int
) -> list[Merge]:
    """Merges of letters, and of strings of letters, in the order in which they were learned."""
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.CharDelimiterSplit(" ")
    trainer = trainers.BpeTrainer(
        vocab_size=len(letters) + num_merges,
        min_frequency=min_frequency,
        initial_alphabet=letters,
        show_progress=False,
    )
    backend.train_from_iterator(words, trainer)
    merges: list[Merge] = _model_of(backend)["merges"]
    return merges


def _spell(
    found: list[Merge],
    letters: dict[str, str],
    entries: dict[str, int],
    forbidden: set[str],
    old_merges: list[Merge],
    vocab_size: int,
) -> tuple[dict[str, int], list[Merge]]:
    """Writes merges of letters as merges of tokens, until the vocabulary is full.

    No merge spells an added token, because text must not become a special token.
    """
    vocab, merges, known = dict(entries), list(old_merges), set(old_merges)
    spelled, taken = dict(letters), set(entries.values())
    free_ids = iter(id for id in range(vocab_size) if id not in taken)
    for left_letters, right_letters in found:
        left, right = spelled.get(left_letters), spelled.get(right_letters)
        if left is None or right is None or left + right in forbidden:
            continue
        whole = spelled[left_letters + right_letters] = left + right
        if (left, right) in known:  # a second entry would change the priority of the first
            continue
        known.add((left, right))
        merges.append((left, right))
        if whole not in vocab:
            vocab[whole] = next(free_ids)
            if len(vocab) == vocab_size:
                break
    return vocab, merges
