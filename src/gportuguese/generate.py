"""Continuing a prompt: sampling, streamed word by word, and the most likely next word."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
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
    stop: tuple[str, ...] = ()
    """Texts that end the continuation; they are not part of it."""

    def __post_init__(self) -> None:
        valid = (
            self.max_new_tokens >= 1
            and self.top_k >= 0
            and 0 < self.top_p <= 1
            and self.temperature > 0
            and self.repetition_penalty > 0
            and all(self.stop)
        )
        if not valid:
            raise GenerateError(
                "sampling: max_new_tokens >= 1, top_k >= 0, 0 < top_p <= 1, temperature > 0 and "
                f"repetition_penalty > 0 are needed, and no empty stop; got {self}"
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

    def stream(
        self,
        prompt: str,
        sampling: Sampling,
        window: bool = False,
        on_end: Callable[[int], None] = lambda num_tokens: None,
    ) -> Iterator[str]:
        """Yields the continuation piece by piece, whole UTF-8 characters only.

        A prompt too long for the model is refused, or with `window` loses its beginning. `on_end`
        gets the number of new tokens.
        """
        from transformers import TextIteratorStreamer

        ids_BT = torch.tensor([self._encode(prompt, sampling.max_new_tokens, window)])
        streamer = TextIteratorStreamer(
            self.tokenizer, skip_prompt=True, skip_special_tokens=True, timeout=600
        )
        torch.manual_seed(sampling.seed)
        failure: list[BaseException] = []
        lengths: list[int] = []

        def run() -> None:
            try:
                lengths.append(self._generate(ids_BT, None, sampling, streamer).shape[1])
            except BaseException as error:  # noqa: BLE001 - raised again in the caller's thread
                failure.append(error)
                streamer.end()

        thread = Thread(target=run, daemon=True)
        thread.start()
        yield from until(streamer, sampling.stop)
        thread.join()
        if failure:
            raise failure[0]
        on_end(lengths[0])

    def write(self, prompt: str, sampling: Sampling) -> str:
        """The continuation as one text."""
        return "".join(self.stream(prompt, sampling))

    def write_all(
        self, prompts: list[str], sampling: Sampling, window: bool = False
    ) -> tuple[list[str], int]:
        """The continuations of several prompts, written at once, and their number of tokens.

        Greedy ones are what each prompt alone would get.
        """
        rows = [self._encode(prompt, sampling.max_new_tokens, window) for prompt in prompts]
        length = max(map(len, rows))
        end = self.tokenizer.eos_token_id
        # on the left, so that what is written follows the prompt
        ids_BT = torch.tensor([[end] * (length - len(row)) + row for row in rows])
        mask_BT = torch.tensor([[0] * (length - len(row)) + [1] * len(row) for row in rows])
        torch.manual_seed(sampling.seed)
        new_BT = self._generate(ids_BT, mask_BT, sampling, None)
        texts = self.tokenizer.batch_decode(new_BT, skip_special_tokens=True)
        num_tokens = int(((new_BT == end).cumsum(1) == 0).sum())  # what follows an end is padding
        return ["".join(until([text], sampling.stop)) for text in texts], num_tokens

    @torch.no_grad()
    def _generate(
        self,
        ids_BT: torch.Tensor,
        mask_BT: torch.Tensor | None,
        sampling: Sampling,
        streamer: Any,
    ) -> torch.Tensor:
        """The new tokens alone."""
        greedy = sampling.top_k == 1
        drawn = {
            "top_k": sampling.top_k,
            "top_p": sampling.top_p,
            "temperature": sampling.temperature,
        }
        stop = {"stop_strings": list(sampling.stop), "tokenizer": self.tokenizer}
        ids_BT = ids_BT.to(self.device)
        mask_BT = torch.ones_like(ids_BT) if mask_BT is None else mask_BT.to(self.device)
        whole_BT = self.model.generate(
            ids_BT,
            attention_mask=mask_BT,
            max_new_tokens=sampling.max_new_tokens,
            do_sample=not greedy,
            repetition_penalty=sampling.repetition_penalty,
            streamer=streamer,
            **({} if greedy else drawn),
            **(stop if sampling.stop else {}),
        )
        return whole_BT[:, ids_BT.shape[1] :]  # type: ignore[no-any-return]

    def prompt_ids(self, prompt: str) -> list[int]:
        """The tokens of a prompt, at least one."""
        # an empty prompt starts a document, which is what end of text announces
        return list(self.tokenizer(prompt)["input_ids"]) or [self.tokenizer.eos_token_id]

    def _encode(self, prompt: str, max_new_tokens: int, window: bool) -> list[int]:
        ids = self.prompt_ids(prompt)
        positions = models.num_positions(self.model)
        if window and max_new_tokens < positions:
            ids = ids[-(positions - max_new_tokens) :]
        if len(ids) + max_new_tokens > positions:
            raise GenerateError(
                f"{len(ids)} tokens of prompt and {max_new_tokens} new ones do not fit the model's "
                f"{positions} positions; shorten one of them, or let the prompt lose its beginning (--window)"
            )
        return ids


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


def until(pieces: Iterable[str], stops: Sequence[str]) -> Iterator[str]:
    """The pieces up to a stop text; nothing of it shows.

    >>> list(until(["a casa", " d", "o mar"], [" do"]))
    ['a casa']
    """
    cutter = StopCutter(stops)
    for piece in pieces:
        if ready := cutter.push(piece):
            yield ready
        if cutter.stop is not None:
            return
    if rest := cutter.finish():
        yield rest
