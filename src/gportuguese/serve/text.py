"""From tokens to text that may be shown: whole characters, nothing of a stop string."""

from __future__ import annotations

import codecs
from collections.abc import Sequence
from typing import TYPE_CHECKING

from gportuguese.generate import StopCutter
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


class TextStream(StopCutter):
    """The text of one row, token by token.

    A token may end within a character: such bytes wait for the rest; at the end they are no text.
    """

    def __init__(self, texts: TokenTexts, stops: Sequence[str]) -> None:
        super().__init__(stops)
        self._texts = texts
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def push_token(self, token: int) -> str:
        """The text that is certain after one more token."""
        return self.push(self._decoder.decode(self._texts.written(token)))
