"""Continues prompts token by token, and predicts the next word."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from gportuguese import causal_lm
from gportuguese.generation.batch import Batch
from gportuguese.generation.drawing import draw
from gportuguese.generation.text import TextStream, TokenTexts
from gportuguese.sampling import GenerateError, Sampling

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

__all__ = ["Continuation", "GenerateError", "Sampling", "Writer"]

_ROWS_AT_ONCE = 16  # more rows need more memory and gain little speed


@dataclass(frozen=True)
class Writer:
    """A model and its tokenizer on a device."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    device: str

    @classmethod
    def load(cls, folder: str | Path, device: str) -> Writer:
        """Loads the model in a folder; raises `UserError` if there is none."""
        if not (Path(folder) / "config.json").is_file():
            raise GenerateError(f"no model in {folder}; pass a folder such as train-.../model")
        model, tokenizer = causal_lm.load_with_tokenizer(str(Path(folder).resolve()))
        return cls(model.eval().to(device), tokenizer, device)

    @cached_property
    def texts(self) -> TokenTexts:
        """The text of every token."""
        return TokenTexts(self.tokenizer)

    @cached_property
    def end_ids(self) -> frozenset[int]:
        """The tokens that end a text."""
        ends = self.model.generation_config.eos_token_id
        if ends is None:
            ends = self.tokenizer.eos_token_id
        return frozenset([] if ends is None else [ends] if isinstance(ends, int) else ends)

    def next_word(self, prompt: str, window: bool = False) -> str:
        """The most likely next word.

        A word may take several tokens: it ends where the next one begins.
        """
        text = ""
        for piece in self.stream(prompt, Sampling(max_new_tokens=16, top_k=1), window):
            text += piece
            if word := re.match(r"\s*\S+(?=\s)", text):
                return word[0]
        return text

    def write(self, prompt: str, sampling: Sampling) -> str:
        """Continues a prompt and returns the new text."""
        return "".join(self.stream(prompt, sampling))

    def stream(self, prompt: str, sampling: Sampling, window: bool = False) -> Iterator[str]:
        """Continues a prompt and yields the new text piece by piece, in whole characters.

        A prompt that is too long is rejected; with `window`, its beginning is cut off instead.
        """
        return self.run(self.begin(prompt, sampling, window))

    def begin(self, prompt: str, sampling: Sampling, window: bool = False) -> Continuation:
        """Creates an empty continuation of a prompt."""
        return Continuation(
            self.fitting_ids(prompt, sampling.max_new_tokens, window), sampling, self
        )

    def run(self, row: Continuation) -> Iterator[str]:
        """Generates a continuation and yields its text piece by piece."""
        batch = Batch(self.model)
        logits_V = batch.join(row.ids)
        while row.finish is None:
            if piece := row.take(logits_V):
                yield piece
            if row.finish is None:
                logits_V = batch.step([row.ids[-1]])[0]

    def write_all(
        self, prompts: Sequence[str], sampling: Sampling, window: bool = False
    ) -> Iterator[Continuation]:
        """Continues several prompts in one batch and yields the finished continuations in order.

        Each equals what `write` returns for its prompt.
        """
        rows = [self.begin(prompt, sampling, window) for prompt in prompts]
        waiting = deque(row for row in rows if row.finish is None)
        running, num_yielded = list[Continuation](), 0
        batch = Batch(self.model)
        while num_yielded < len(rows):
            while waiting and len(running) < _ROWS_AT_ONCE:
                row = waiting.popleft()
                running.append(row)
                row.take(batch.join(row.ids))
            unfinished = [index for index, row in enumerate(running) if row.finish is None]
            if len(unfinished) < len(running):
                batch.keep(unfinished)
                running = [running[index] for index in unfinished]
            while num_yielded < len(rows) and rows[num_yielded].finish is not None:
                yield rows[num_yielded]
                num_yielded += 1
            if running:
                logits_BV = batch.step([row.ids[-1] for row in running])
                for row, logits_V in zip(running, logits_BV, strict=True):
                    row.take(logits_V)

    def prompt_ids(self, prompt: str) -> list[int]:
        """The tokens of a prompt, at least one; raises `GenerateError` if the model lacks one of them."""
        # an empty prompt starts a new document, as after an end-of-text token
        ids = self.tokenizer(prompt, verbose=False)["input_ids"] or [self.tokenizer.eos_token_id]
        if max(ids) >= self.num_rows:  # added to the tokenizer alone, as some fine-tunings do
            name = self.tokenizer.convert_ids_to_tokens(max(ids))
            raise GenerateError(f"the model has no row for the token {name!r} of the prompt")
        return list(ids)

    @property
    def num_rows(self) -> int:
        """The number of tokens that the model knows, which may be more or less than the tokenizer's."""
        rows: int = self.model.get_input_embeddings().num_embeddings
        return rows

    def fitting_ids(self, prompt: str, max_new_tokens: int, window: bool) -> list[int]:
        """The tokens of a prompt; raises `GenerateError` if they leave no room for new ones."""
        ids = self.prompt_ids(prompt)
        positions = causal_lm.num_positions(self.model)
        if window and max_new_tokens < positions:
            ids = ids[-(positions - max_new_tokens) :]
        if max_new_tokens >= positions:
            raise GenerateError(
                f"{max_new_tokens} new tokens and a prompt do not fit the model's {positions} positions; "
                f"ask for at most {positions - 1}"
            )
        if len(ids) + max_new_tokens > positions:
            raise GenerateError(
                f"{len(ids)} prompt tokens and {max_new_tokens} new ones do not fit the model's "
                f"{positions} positions; shorten one of them, or cut the beginning of the prompt (--window)"
            )
        return ids


class Continuation:
    """A text being generated: one row of a batch."""

    def __init__(self, prompt_ids: Sequence[int], sampling: Sampling, writer: Writer) -> None:
        self.ids = list(prompt_ids)
        """Prompt and continuation."""
        self.sampling = sampling
        self.text = ""
        self.finish = None if sampling.max_new_tokens else "length"
        """Why the text ended, `stop` or `length`; None while it is unfinished."""
        self.stream = TextStream(writer.texts, sampling.stop)
        self._num_prompt_tokens = len(self.ids)
        self._end_ids = writer.end_ids
        self._generator = torch.Generator(writer.model.device).manual_seed(sampling.seed)

    @property
    def num_tokens(self) -> int:
        """Number of tokens drawn, including end of text."""
        return len(self.ids) - self._num_prompt_tokens

    def take(self, logits_V: torch.Tensor) -> str:
        """Draws the next token and returns the text that is now final."""
        token = draw(logits_V, self.sampling, self.ids, self._generator)
        self.ids.append(token)
        piece = ""
        if token in self._end_ids:
            self.finish = "stop"
        else:
            piece = self.stream.push_token(token)
            if self.stream.stop is not None:
                self.finish = "stop"
            elif self.num_tokens == self.sampling.max_new_tokens:
                self.finish = "length"
        if self.finish is not None:
            piece += self.stream.finish()
        self.text += piece
        return piece
