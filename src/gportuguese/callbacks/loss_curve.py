"""The training loss of a run by step, light enough to keep for every run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from fastai.callback.core import Callback

from gportuguese.callbacks.epoch_table import EpochTable
from gportuguese.callbacks.guard import StepLoss
from gportuguese.epochs import StepRow, write_steps
from gportuguese.world import World

_POINTS = 100  # of an epoch


class LossCurve(Callback):
    """Writes `steps.csv` after each epoch: the mean loss of up to 100 stretches of its steps.

    The sums stay on the device until they are written, so that no step waits for it.
    """

    order = 72
    run_valid = False

    def __init__(
        self, folder: Path, step_loss: StepLoss, table: EpochTable, num_steps: int, world: World
    ) -> None:
        self.folder, self.step_loss, self.table, self.world = folder, step_loss, table, world
        self.num_steps = num_steps
        """Optimizer steps of an epoch."""
        self.stretch = -(-num_steps // _POINTS)
        self.sums: dict[int, torch.Tensor] = {}
        """By the first step of a stretch, counted over the run."""
        self.counts: dict[int, int] = {}

    def state_dict(self) -> dict[str, Any]:
        """The sums and counts of all stretches so far."""
        sums = torch.stack([*self.sums.values()]).tolist() if self.sums else []
        return {"first": [*self.sums], "sums": sums, "counts": [*self.counts.values()]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continues the curve from `state`."""
        device = self.table.bytes_per_token.device
        sums = torch.tensor(state["sums"], dtype=torch.float64, device=device)
        self.sums = dict(zip(state["first"], sums.unbind(), strict=True))
        self.counts = dict(zip(state["first"], state["counts"], strict=True))

    def after_step(self) -> None:
        earlier = self.table.rows[-1].epoch * self.num_steps
        first = earlier + self.step_loss.step // self.stretch * self.stretch
        self.sums[first] = self.sums.get(first, 0) + self.step_loss.value.double()
        self.counts[first] = self.counts.get(first, 0) + 1

    def after_fit(self) -> None:  # a callback may have ended the fit in the middle of an epoch
        done = self.table.rows[-1].epoch * self.num_steps
        for first in [first for first in self.sums if first >= done]:
            del self.sums[first], self.counts[first]

    def after_train(self) -> None:
        if not self.world.is_main:
            return
        stretches = zip(*self.state_dict().values(), strict=True)
        rows = [
            StepRow(first + count, (first + count) / self.num_steps, total / count)
            for first, total, count in stretches
        ]
        write_steps(self.folder / "steps.csv", rows)
