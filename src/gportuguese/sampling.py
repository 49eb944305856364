"""How the next token is drawn: the options of `gpt-pt generate`, `serve` and `Writer`. Does not import torch."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from gportuguese.config import UserError

_MIN_TEMPERATURE = 1e-3  # lower values are greedy in effect, and logits could overflow


class GenerateError(UserError):
    """A prompt or sampling option is invalid."""


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """How the next token is drawn. Raises `GenerateError` for values out of range."""

    max_new_tokens: int = 50
    top_k: int = 40
    """Draw only from the k most likely tokens; 0 means all."""
    top_p: float = 1.0
    """Draw only from the most likely tokens that together reach this probability."""
    temperature: float = 1.0
    """0 always picks the most likely token, like `top_k=1`."""
    repetition_penalty: float = 1.0
    seed: int = 0
    stop: str | Sequence[str] = ()
    """One string or several that end the continuation; they are not included in it."""

    def __post_init__(self) -> None:
        if isinstance(self.stop, str):
            object.__setattr__(self, "stop", (self.stop,))
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
