"""Draws the next token from a row's logits, like `generate()` of transformers.

Filters are applied in the same order (repetition penalty, temperature, top-k, top-p), and ties are
handled the same way. Shapes: T positions, V vocabulary.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from gportuguese.config import UserError

_MIN_TEMPERATURE = 1e-3  # lower values are greedy in effect, and logits could overflow


class GenerateError(UserError):
    """A prompt or sampling option is invalid."""


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """How the next token is drawn."""

    max_new_tokens: int = 50
    top_k: int = 40
    """Draw only from the k most likely tokens; 0 means all."""
    top_p: float = 1.0
    """Draw only from the most likely tokens that together reach this probability."""
    temperature: float = 1.0
    """0 always picks the most likely token, like `top_k=1`."""
    repetition_penalty: float = 1.0
    seed: int = 0
    stop: tuple[str, ...] = ()
    """Strings that end the continuation; they are not included in it."""

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
            wrong.append("a stop string must not be empty")
        if wrong:
            raise GenerateError("; ".join(wrong))

    @property
    def is_greedy(self) -> bool:
        """Whether the most likely token is always picked."""
        return self.top_k == 1 or self.temperature < _MIN_TEMPERATURE


@torch.inference_mode()
def draw(
    logits_V: torch.Tensor, sampling: Sampling, ids: Sequence[int], generator: torch.Generator
) -> int:
    """Draws the next token of a row; `ids` are its prompt and text."""
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
    """Sets all logits to -inf except the most likely ones, which together reach `top_p`."""
    ascending, order = logits_V.sort()
    outside = ascending.softmax(-1).cumsum(-1) <= 1 - top_p
    outside[-1] = False  # the most likely token always stays
    return logits_V.masked_fill(outside.scatter(0, order, outside), -torch.inf)


@torch.inference_mode()
def log_probabilities(
    logits_TV: torch.Tensor, tokens_T: Sequence[int], count: int
) -> list[tuple[float, list[tuple[int, float]]]]:
    """The log-probability of each given token, and the ids and values of the `count` most likely ones.

    These are the model's own, before temperature, top-k, top-p and penalty.
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
