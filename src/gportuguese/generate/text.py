"""From tokens to text that may be shown: whole characters, nothing of a stop text."""

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

    @property
    def bytes_per_character(self) -> float:
        """The mean over the vocabulary: 1 for ASCII, about 2 where most letters are Cyrillic."""
        texts = [token_bytes.decode("utf-8", "ignore") for token_bytes in self._bytes]
        return sum(len(text.encode()) for text in texts) / sum(map(len, texts))

    def whole(self, ids: Sequence[int]) -> str:
        """The text of a prompt, special tokens by their names."""
        return b"".join(self._bytes[token] for token in ids).decode("utf-8", "replace")

    def offsets(self, ids: Sequence[int]) -> list[int]:
        """How many characters of the text of `ids` are complete before each token."""
        decoder, offsets = _decoder(), [0]
        for token in ids:
            offsets.append(offsets[-1] + len(decoder.decode(self._bytes[token])))
        return offsets[:-1]


def _decoder() -> codecs.IncrementalDecoder:
    return codecs.getincrementaldecoder("utf-8")("replace")


class StopCutter:
    """Ends a text that comes in pieces before whichever stop text is complete first.

    What may turn out to begin one of them is held back.
    """

    def __init__(self, stops: Sequence[str]) -> None:
        self._stops = stops
        self._held = ""
        self.stop: str | None = None
        """The stop text that was met; nothing more is to be pushed."""

    def push(self, piece: str) -> str:
        """The text that is certain after one more piece."""
        text = self._held + piece
        # of two that are complete at once, the longer: nothing of either shows
        met = [(text.index(s) + len(s), -len(s), s) for s in self._stops if s in text]
        if met:
            _, _, self.stop = min(met)
            self._held = ""
            return text[: text.index(self.stop)]
        held = max((_overlap(text, stop) for stop in self._stops), default=0)
        self._held = text[len(text) - held :]
        return text[: len(text) - held]

    def finish(self) -> str:
        """What was held back and is text after all."""
        text, self._held = self._held, ""
        return text


def _overlap(text: str, stop: str) -> int:
    """The length of the longest end of `text` that begins `stop`.

    >>> _overlap("fim. Era u", " Era uma vez")
    6
    """
    longest = min(len(text), len(stop) - 1)
    return next((size for size in range(longest, 0, -1) if stop.startswith(text[-size:])), 0)


class TextStream(StopCutter):
    """The text of one row, token by token.

    A token may end within a character: such bytes wait for the rest; at the end they are no text.
    """

    def __init__(self, texts: TokenTexts, stops: Sequence[str]) -> None:
        super().__init__(stops)
        self._texts = texts
        self._decoder = _decoder()
        self.num_characters = 0
        """Complete characters of all tokens so far, those of a stop text included."""

    def push_token(self, token: int) -> str:
        """The text that is certain after one more token."""
        piece = self._decoder.decode(self._texts.written(token))
        self.num_characters += len(piece)
        return self.push(piece)
