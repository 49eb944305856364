"""Turns tokens into text for display: whole characters, without stop strings."""

from __future__ import annotations

import codecs
from collections.abc import Sequence
from typing import TYPE_CHECKING

from gportuguese.tokenizer import bytes_of_tokens, check_byte_level

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


class TokenTexts:
    """The text of every token id; raises `TokenizerError` unless the tokenizer is byte-level."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        check_byte_level(tokenizer, tokenizer.name_or_path)
        self._bytes = bytes_of_tokens(tokenizer)
        self._special = frozenset(tokenizer.all_special_ids)
        self.longest = max(map(len, self._bytes))
        """Bytes of the longest token."""

    def __len__(self) -> int:
        return len(self._bytes)

    def written(self, token: int) -> bytes:
        """The bytes that a token adds to a text: none for end of text and other special tokens."""
        # a model may have more rows than its tokenizer has tokens, as padding
        if token in self._special or token >= len(self._bytes):
            return b""
        return self._bytes[token]

    def name(self, token: int) -> str:
        """The name of a token in a list of probabilities.

        A token that ends inside a character is named like in OpenAI's API: `bytes:\\xc3`.
        """
        token_bytes = self._bytes[token] if token < len(self._bytes) else b""
        try:
            return token_bytes.decode()
        except UnicodeDecodeError:
            return "bytes:" + "".join(f"\\x{byte:02x}" for byte in token_bytes)

    @property
    def bytes_per_character(self) -> float:
        """Mean bytes per character of the vocabulary: 1 for ASCII, about 2 for Cyrillic."""
        texts = [token_bytes.decode("utf-8", "ignore") for token_bytes in self._bytes]
        return sum(len(text.encode()) for text in texts) / sum(map(len, texts))

    def whole(self, ids: Sequence[int]) -> str:
        """The text of a prompt, including the names of special tokens."""
        return b"".join(self._bytes[token] for token in ids).decode("utf-8", "replace")

    def offsets(self, ids: Sequence[int]) -> list[int]:
        """For each token, the number of complete characters in the text before it."""
        decoder, offsets = _decoder(), [0]
        for token in ids:
            offsets.append(offsets[-1] + len(decoder.decode(self._bytes[token])))
        return offsets[:-1]


def _decoder() -> codecs.IncrementalDecoder:
    return codecs.getincrementaldecoder("utf-8")("replace")


class StopCutter:
    """Cuts a streamed text before the first stop string.

    It holds back the end of the text while that may be the beginning of a stop string.
    """

    def __init__(self, stops: Sequence[str]) -> None:
        self._stops = stops
        self._held = ""
        self.stop: str | None = None
        """The stop string that was found; do not push more text after that."""

    def push(self, piece: str) -> str:
        """Adds a piece and returns the text that is now final."""
        text = self._held + piece
        # if two end at the same position, cut at the longer one, so that no part of it shows
        found = [(text.index(s) + len(s), -len(s), s) for s in self._stops if s in text]
        if found:
            _, _, self.stop = min(found)
            self._held = ""
            return text[: text.index(self.stop)]
        held = max((_overlap(text, stop) for stop in self._stops), default=0)
        self._held = text[len(text) - held :]
        return text[: len(text) - held]

    def finish(self) -> str:
        """Returns the text that was held back; call it at the end."""
        text, self._held = self._held, ""
        return text


def _overlap(text: str, stop: str) -> int:
    """The length of the longest suffix of `text` that is a prefix of `stop`.

    >>> _overlap("fim. Era u", " Era uma vez")
    6
    """
    longest = min(len(text), len(stop) - 1)
    return next((size for size in range(longest, 0, -1) if stop.startswith(text[-size:])), 0)


class TextStream(StopCutter):
    """The text of one row, token by token.

    A token may end inside a character. Its bytes then wait for the rest; an incomplete character at
    the end is dropped.
    """

    def __init__(self, texts: TokenTexts, stops: Sequence[str]) -> None:
        super().__init__(stops)
        self._texts = texts
        self._decoder = _decoder()
        self.num_characters = 0
        """Complete characters of all tokens, including those of a stop string."""

    def push_token(self, token: int) -> str:
        """Adds a token and returns the text that is now final."""
        piece = self._decoder.decode(self._texts.written(token))
        self.num_characters += len(piece)
        return self.push(piece)
