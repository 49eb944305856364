"""Which tokens can copy a source row: all with the same bytes, or only those that are literal."""

from __future__ import annotations

import numpy as np

_NAME_LETTERS = 4  # a shorter one may just be the first word of a sentence, like "Era"


def shared_rows(source: list[bytes], target: list[bytes]) -> np.ndarray:
    """For each target token the source id with the same bytes, else -1; int64 `[V_target]`.

    >>> shared_rows([b"a", b" de", b"the"], [b" de", b"\\xc3\\xa7", b"a"]).tolist()
    [1, -1, 0]
    """
    source_ids = {token: id for id, token in reversed(list(enumerate(source)))}
    return np.array([source_ids.get(token, -1) for token in target], np.int64)


def is_literal(token: bytes, vocabulary: set[bytes]) -> bool:
    """Whether a token means the same in any language: bytes, digits, punctuation, likely names.

    Other words with the same spelling may differ in meaning, like "pretend". A likely name is a
    capitalised token whose lower-case form is not a token: " Lisboa", but not " Actual".

    >>> [is_literal(t, {b" actual"}) for t in (b"\\xc3", b" 1998", b"),", b" Lisboa", b" Actual")]
    [True, True, True, True, False]
    """
    if len(token) == 1:
        return True
    try:
        word = token.decode().strip()
    except UnicodeDecodeError:
        return True  # part of a character
    if not any(character.isalpha() for character in word):
        return True
    is_capitalised = len(word) >= _NAME_LETTERS and word[0].isupper() and word[1:].islower()
    return is_capitalised and token.decode().lower().encode() not in vocabulary
