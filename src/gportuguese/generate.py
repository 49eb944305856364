"""Continuing a prompt: sampling, streamed word by word, and the most likely next word."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from threading import Thread
from typing import TYPE_CHECKING, Any

import torch

from gportuguese import model as models
from gportuguese.config import UserError

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


class GenerateError(UserError):
    """The prompt or a sampling option cannot be used."""


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """How the next token is drawn; `top_k=1` always takes the most likely one."""

    max_new_tokens: int = 50
    top_k: int = 40
    """Only the k most likely tokens; 0 means all."""
    top_p: float = 1.0
    """Only the most likely tokens that together reach this probability."""
    temperature: float = 1.0
    repetition_penalty: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        valid = (
            self.max_new_tokens >= 1
            and self.top_k >= 0
            and 0 < self.top_p <= 1
            and self.temperature > 0
            and self.repetition_penalty > 0
        )
        if not valid:
            raise GenerateError(
                "sampling: max_new_tokens >= 1, top_k >= 0, 0 < top_p <= 1, temperature > 0 and "
                f"repetition_penalty > 0 are needed; got {self}"
            )


@dataclass(frozen=True)
class Writer:
    """A model and its tokenizer on a device."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    device: str

    @classmethod
    def load(cls, folder: str | Path, device: str) -> Writer:
        """The writer of a model folder; raises `UserError` if there is none."""
        if not (Path(folder) / "config.json").is_file():
            raise GenerateError(f"no model in {folder}; name a folder such as train-.../model")
        model, tokenizer = models.load_base(str(Path(folder).resolve()))
        return cls(model.eval().to(device), tokenizer, device)

    def next_word(self, prompt: str) -> str:
        """The most likely continuation up to the end of one word, as the model card shows.

        A word may take several tokens: it ends where the next one begins.
        """
        text = ""
        for piece in self.stream(prompt, Sampling(max_new_tokens=16, top_k=1)):
            text += piece
            head, space, _ = text.lstrip().partition(" ")
            if space:
                return f"{text[: len(text) - len(text.lstrip())]}{head}"
        return text

    def stream(self, prompt: str, sampling: Sampling) -> Iterator[str]:
        """Yields the continuation piece by piece, whole UTF-8 characters only."""
        from transformers import TextIteratorStreamer

        ids_BT = self._encode(prompt, sampling.max_new_tokens)
        streamer = TextIteratorStreamer(
            self.tokenizer, skip_prompt=True, skip_special_tokens=True, timeout=600
        )
        torch.manual_seed(sampling.seed)
        failure: list[BaseException] = []

        def run() -> None:
            try:
                self._generate(ids_BT, sampling, streamer)
            except BaseException as error:  # noqa: BLE001 - raised again in the caller's thread
                failure.append(error)
                streamer.end()

        thread = Thread(target=run, daemon=True)
        thread.start()
        yield from (piece for piece in streamer if piece)
        thread.join()
        if failure:
            raise failure[0]

    def write(self, prompt: str, sampling: Sampling) -> str:
        """The continuation as one text."""
        return "".join(self.stream(prompt, sampling))

    @torch.no_grad()
    def _generate(self, ids_BT: torch.Tensor, sampling: Sampling, streamer: Any) -> None:
        greedy = sampling.top_k == 1
        drawn = {
            "top_k": sampling.top_k,
            "top_p": sampling.top_p,
            "temperature": sampling.temperature,
        }
        self.model.generate(
            ids_BT,
            attention_mask=torch.ones_like(ids_BT),
            max_new_tokens=sampling.max_new_tokens,
            do_sample=not greedy,
            repetition_penalty=sampling.repetition_penalty,
            streamer=streamer,
            **({} if greedy else drawn),
        )

    def prompt_ids(self, prompt: str) -> list[int]:
        """The tokens of a prompt, at least one."""
        # an empty prompt starts a document, which is what end of text announces
        return self.tokenizer(prompt)["input_ids"] or [self.tokenizer.eos_token_id]

    def _encode(self, prompt: str, max_new_tokens: int) -> torch.Tensor:
        ids = self.prompt_ids(prompt)
        positions = models.num_positions(self.model)
        if len(ids) + max_new_tokens > positions:
            raise GenerateError(
                f"{len(ids)} tokens of prompt and {max_new_tokens} new ones do not fit the model's "
                f"{positions} positions; shorten one of them"
            )
        return torch.tensor([ids], device=self.device)
