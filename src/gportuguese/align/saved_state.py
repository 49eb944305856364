"""The state of a loop in a file, so that an interrupted loop continues where it was."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass, field
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch

from gportuguese import atomic

log = logging.getLogger("gportuguese")


@dataclass
class SavedState:
    """Saves a dict of tensors and numbers at most every `minutes`; `path` is complete or absent."""

    path: Path
    minutes: float
    last: float = field(default_factory=time.monotonic, init=False)

    def load(self) -> dict[str, Any]:
        """The saved state; empty if there is none, or if the file is damaged."""
        if not self.path.exists():
            return {}
        try:
            state: dict[str, Any] = torch.load(self.path, map_location="cpu", weights_only=True)
        except (OSError, EOFError, RuntimeError, ValueError, UnpicklingError) as error:
            log.warning("%s is damaged (%s); starting again", self.path, error)
            return {}
        log.info("align: resuming from %s", self.path)
        return state

    def save(self, state: dict[str, Any], *, now: bool = False) -> None:
        """Saves the state if it is time, or `now`."""
        if not now and time.monotonic() - self.last < 60 * self.minutes:
            return
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with atomic.replacing(self.path) as scratch:
            torch.save(state, scratch)
        self.last = time.monotonic()
