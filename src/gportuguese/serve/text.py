"""From tokens to text that may be shown: whole characters, nothing of a stop string."""

from __future__ import annotations

import codecs
from collections.abc import Sequence
from typing import TYPE_CHECKING

from gportuguese.tokenizer import bytes_of_tokens, check_byte_level

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


class TokenTexts:
    """What every token id stands for; raises `TokenizerError` if that is not bytes."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, name: str) -> None:
        check_byte_level(tokenizer, name)
        self._bytes = bytes_of_tokens(tokenizer)
        self._special = frozenset(tokenizer.all_special_ids)
        self.longest = max(map(len, self._bytes))
        """Bytes of the longest token."""

    def __len__(self) -> int:
        return len(self._bytes)

    def written(self, token: int) -> bytes:
        """The bytes it adds to a text: none for end of text and other special tokens."""
        # a model may have rows beyond its tokenizer, which pad the matrix to a round size
        if token in self._special or token >= len(self._bytes):
            return b""
        return self._bytes[token]

    def name(self, token: int) -> str:
        """Its text in a list of probabilities.

        A token that is not whole characters is named as OpenAI names it: `bytes:\\xc3`.
        """
        token_bytes = self._bytes[token] if token < len(self._bytes) else b""
        try:
            return token_bytes.decode()
        except UnicodeDecodeError:
            return "bytes:" + "".join(f"\\x{byte:02x}" for byte in token_bytes)


class TextStream:
    """The text of one row, piece by piece.

    A token may end within a character: such bytes wait for the rest. So does text that may be the
    beginning of a stop string.
    """

    def __init__(self, texts: TokenTexts, stops: Sequence[str]) -> None:
        self._texts = texts
        self._stops = stops
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._held = ""
        self.stop: str | None = None
        """The stop string that was met."""

    def push(self, token: int) -> str:
        """The text that is certain after one more token."""
        text = self._held + self._decoder.decode(self._texts.written(token))
        met = [(text.index(stop), stop) for stop in self._stops if stop in text]
        if met:
            end, self.stop = min(met)
            self._held = ""
            return text[:end]
        held = max((_overlap(text, stop) for stop in self._stops), default=0)
        self._held = text[len(text) - held :]
        return text[: len(text) - held]

    def finish(self) -> str:
        """What was held back and is text after all; half a character at the end is not."""
        text, self._held = self._held, ""
        return text


def _overlap(text: str, stop: str) -> int:
    """The length of the longest end of `text` that begins `stop`.

    >>> _overlap("fim. Era u", " Era uma vez")
    6
    """
    longest = min(len(text), len(stop) - 1)
    return next((size for size in range(longest, 0, -1) if stop.startswith(text[-size:])), 0)
