"""The epoch table of a run."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import torch
from fastai.callback.core import Callback

from gportuguese.callbacks.guard import StepLoss, TrainingStopped
from gportuguese.epochs import EpochRow, EpochTime, write_epochs
from gportuguese.metrics import Measures, TokenSums
from gportuguese.world import World


class EpochTable(Callback):
    """Measures every validation pass and appends a row to `epochs.csv`, across all fits of a run.

    fastai's recorder restarts with each fit and does not measure bits per byte.
    """

    order = 70
    remove_on_fetch = True  # `get_preds` inside a fit is no validation

    def __init__(
        self,
        folder: Path,
        bytes_per_token: torch.Tensor,
        step_loss: StepLoss,
        rows: list[EpochRow],
        times: list[EpochTime],
        on_row: Callable[[list[EpochRow]], None],
        world: World,
    ) -> None:
        self.folder, self.bytes_per_token, self.world = folder, bytes_per_token, world
        self.step_loss = step_loss
        self.rows, self.times, self.on_row = rows, times, on_row
        self.phase = ""
        self._start_epoch()

    def _start_epoch(self) -> None:
        self.load_state_dict({"nats": 0.0, "steps": 0, "seconds": 0.0})

    def state_dict(self) -> dict[str, float]:
        """Summed loss, steps and seconds of the current epoch's training."""
        return {
            "nats": self.train_nats.item(),
            "steps": self.num_steps,
            "seconds": time.monotonic() - self.start,
        }

    def load_state_dict(self, state: dict[str, float]) -> None:
        """Resumes the epoch from `state`."""
        device = self.bytes_per_token.device
        self.train_nats = torch.tensor(state["nats"], dtype=torch.float64, device=device)
        self.num_steps = int(state["steps"])
        self.earlier_seconds = state["seconds"]

    def before_train(self) -> None:
        self.start = time.monotonic() - self.earlier_seconds

    def before_validate(self) -> None:
        self.valid_start = time.monotonic()
        self.sums = TokenSums(self.bytes_per_token)

    def after_step(self) -> None:
        self.train_nats += self.step_loss.value
        self.num_steps += 1

    def after_loss(self) -> None:
        if not self.training:
            loss = self.learn.loss_func
            self.sums.add(loss.nats_BT, loss.correct_BT, self.learn.yb[0])

    def after_validate(self) -> None:  # a callback that ends the fit may skip `after_epoch`
        self.add_row(
            self.phase,
            self.train_nats.item() / self.num_steps,
            self.sums.measures(self.world.total),
            self.valid_start - self.start,
            time.monotonic() - self.valid_start,
        )
        self._start_epoch()

    def after_fit(self) -> None:
        self._start_epoch()  # a callback may have ended the fit in the middle of an epoch

    def add_row(
        self, phase: str, train_loss: float, measures: Measures, train_seconds: float, valid: float
    ) -> None:
        """Appends a row and writes the file; raises `TrainingStopped` if the loss is not finite."""
        row = EpochRow(len(self.rows), phase, train_loss, **asdict(measures))
        if not math.isfinite(row.loss):  # raise before the phase is saved
            remedy = (
                "this phase is not kept; lower lr_max, set train.grad_clip, train in bf16 or fp32"
                if row.epoch
                else "the base model does not work in this precision; set train.precision=fp32"
            )
            raise TrainingStopped(
                f"the validation loss after epoch {row.epoch} is {row.loss}: {remedy}"
            )
        self.rows.append(row)
        self.times.append(EpochTime(row.epoch, round(train_seconds, 2), round(valid, 2)))
        if self.world.is_main:
            write_epochs(self.folder / "epochs.csv", self.rows)
        self.on_row(self.rows)
