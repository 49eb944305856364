"""Drawing the next token from a row's logits, as `transformers` draws it.

Order and ties are those of its `generate()`: repetition penalty, temperature, top-k, top-p.
Shapes: T positions, V vocabulary.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from gportuguese.config import UserError

_COLDEST = 1e-3  # below it the most likely token is as good as certain, and logits may overflow


class GenerateError(UserError):
    """The prompt or a sampling option cannot be used."""


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """How the next token is drawn."""

    max_new_tokens: int = 50
    top_k: int = 40
    """Only the k most likely tokens; 0 means all."""
    top_p: float = 1.0
    """Only the most likely tokens that together reach this probability."""
    temperature: float = 1.0
    """0 always takes the most likely token, as `top_k=1` does."""
    repetition_penalty: float = 1.0
    seed: int = 0
    stop: tuple[str, ...] = ()
    """Texts that end the continuation; they are not part of it."""

    def __post_init__(self) -> None:
        rules = {
            "max_new_tokens": (self.max_new_tokens >= 0, "at least 0"),
            "top_k": (self.top_k >= 0, "at least 0"),
            "top_p": (0 < self.top_p <= 1, "above 0 and at most 1"),
            "temperature": (0 <= self.temperature < math.inf, "at least 0"),
            "repetition_penalty": (0 < self.repetition_penalty < math.inf, "above 0"),
            "seed": (-(2**63) <= self.seed < 2**63, "between -2^63 and 2^63 - 1"),
        }
        wrong = [
            f"{name} must be {rule}, not {getattr(self, name)}"
            for name, (is_met, rule) in rules.items()
            if not is_met
        ]
        if not all(self.stop):
            wrong.append("a stop text must not be empty")
        if wrong:
            raise GenerateError("; ".join(wrong))

    @property
    def is_greedy(self) -> bool:
        """Whether the most likely token is always taken."""
        return self.top_k == 1 or self.temperature < _COLDEST


@torch.inference_mode()
def draw(
    logits_V: torch.Tensor, sampling: Sampling, ids: Sequence[int], generator: torch.Generator
) -> int:
    """The next token of a row whose prompt and text so far are `ids`."""
    logits_V = logits_V.float()
    if sampling.repetition_penalty != 1:
        logits_V = _penalize(logits_V, sampling.repetition_penalty, ids)
    if sampling.is_greedy:
        return int(logits_V.argmax())
    logits_V = logits_V / sampling.temperature
    if 0 < sampling.top_k < len(logits_V):
        least = logits_V.topk(sampling.top_k).values[-1]
        logits_V = logits_V.masked_fill(logits_V < least, -torch.inf)
    if sampling.top_p < 1:
        logits_V = _nucleus(logits_V, sampling.top_p)
    return int(torch.multinomial(logits_V.softmax(-1), 1, generator=generator))


def _penalize(logits_V: torch.Tensor, penalty: float, ids: Sequence[int]) -> torch.Tensor:
    seen = torch.tensor(ids, device=logits_V.device)
    logits = logits_V[seen]
    return logits_V.scatter(0, seen, torch.where(logits < 0, logits * penalty, logits / penalty))


def _nucleus(logits_V: torch.Tensor, top_p: float) -> torch.Tensor:
    """The logits with all but the most likely tokens of total probability `top_p` at -inf."""
    ascending, order = logits_V.sort()
    outside = ascending.softmax(-1).cumsum(-1) <= 1 - top_p
    outside[-1] = False  # the most likely token always stays
    return logits_V.masked_fill(outside.scatter(0, order, outside), -torch.inf)


@torch.inference_mode()
def log_probabilities(
    logits_TV: torch.Tensor, tokens_T: Sequence[int], count: int
) -> list[tuple[float, list[tuple[int, float]]]]:
    """The log-probability of each given token, and ids and values of the `count` most likely ones.

    They are the model's own, before temperature, top-k, top-p and penalty.
    """
    logprobs_TV = logits_TV.float().log_softmax(-1)
    tokens_T1 = torch.tensor(tokens_T, device=logits_TV.device).unsqueeze(-1)
    given_T = logprobs_TV.gather(-1, tokens_T1).squeeze(-1).tolist()
    top = logprobs_TV.topk(min(count, logprobs_TV.shape[-1]))
    return [
        (given, list(zip(ids, values, strict=True)))
        for given, ids, values in zip(
            given_T, top.indices.tolist(), top.values.tolist(), strict=True
        )
    ]
