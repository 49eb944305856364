"""The epoch table: one row before training and one after every epoch, across all phases."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from fastai.callback.core import Callback

from gportuguese.callbacks.guard import TrainingStopped
from gportuguese.epochs import EpochRow, EpochTime, write_epochs
from gportuguese.metrics import Measures, TokenSums
from gportuguese.progress import Advance, track
from gportuguese.world import World


class EpochTable(Callback):
    """Measures the validation pass of every epoch and appends a row, over all fits of a run.

    fastai's recorder starts again at each fit and knows no bits per byte; this one counts on
    and flushes `epochs.csv` after each epoch.
    """

    order = 70

    def __init__(
        self,
        folder: Path,
        bytes_per_token: torch.Tensor,
        rows: list[EpochRow],
        times: list[EpochTime],
        on_row: Callable[[list[EpochRow]], None],
        world: World,
    ) -> None:
        self.folder, self.bytes_per_token, self.world = folder, bytes_per_token, world
        self.rows, self.times, self.on_row = rows, times, on_row
        self.phase = ""
        self.begun = {"nats": 0.0, "steps": 0, "seconds": 0.0}
        """What an interrupted epoch had come to."""

    def before_train(self) -> None:
        device = self.bytes_per_token.device
        self.train_nats = torch.tensor(self.begun["nats"], dtype=torch.float64, device=device)
        self.num_steps = int(self.begun["steps"])
        self.start = time.monotonic() - self.begun["seconds"]
        self.begun = {"nats": 0.0, "steps": 0, "seconds": 0.0}

    def so_far(self) -> dict[str, float]:
        """What the training part of this epoch has come to."""
        return {
            "nats": self.train_nats.item(),
            "steps": self.num_steps,
            "seconds": time.monotonic() - self.start,
        }

    def before_validate(self) -> None:
        self.valid_start = time.monotonic()
        self.sums = TokenSums(self.bytes_per_token)

    def after_step(self) -> None:
        self.train_nats += self.learn.step_loss.value
        self.num_steps += 1

    def after_loss(self) -> None:
        if not self.training:
            loss = self.learn.loss_func
            self.sums.add(loss.nats_BT, loss.correct_BT, self.learn.yb[0])

    def after_epoch(self) -> None:
        self.add_row(
            self.phase,
            self.train_nats.item() / self.num_steps,
            self.sums.measures(self.world.total),
            self.valid_start - self.start,
            time.monotonic() - self.valid_start,
        )

    def add_row(
        self, phase: str, train_loss: float, measures: Measures, train_seconds: float, valid: float
    ) -> None:
        """Appends a row and flushes the file."""
        row = EpochRow(len(self.rows), phase, train_loss, **asdict(measures))
        if not math.isfinite(row.loss):  # before the phase is saved
            what = (
                "this phase is not kept; lower lr_max, set train.grad_clip, train in bf16 or fp32"
            )
            if row.epoch == 0:
                what = "the base model cannot be trained so; set train.precision=fp32"
            raise TrainingStopped(
                f"the validation loss after epoch {row.epoch} is {row.loss}: {what}"
            )
        self.rows.append(row)
        self.times.append(EpochTime(row.epoch, round(train_seconds, 2), round(valid, 2)))
        if self.world.is_main:
            write_epochs(self.folder / "epochs.csv", self.rows)
        self.on_row(self.rows)


class TensorBoardLog(Callback):
    """Training loss and rate every `every` passes, the measures every epoch."""

    order = 75
    every = 10

    def __init__(self, folder: Path, first_pass: int) -> None:
        self.folder, self.num_passes = folder, first_pass
        self.writer: Any = None

    def before_fit(self) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self.writer = SummaryWriter(str(self.folder))

    def after_batch(self) -> None:
        if not self.training:
            return
        self.num_passes += 1
        if self.num_passes % self.every == 0:
            self.writer.add_scalar("train/loss", self.learn.loss.item(), self.num_passes)
            self.writer.add_scalar("train/lr", self.opt.hypers[-1]["lr"], self.num_passes)

    def after_epoch(self) -> None:
        row = self.learn.epoch_table.rows[-1]
        for name, value in asdict(row).items():
            if isinstance(value, float) and not math.isnan(value):
                self.writer.add_scalar(f"epoch/{name}", value, row.epoch)

    def after_fit(self) -> None:
        self.writer.close()


class Meter(Callback):
    """Reports phase, epoch, loss, learning rate and speed of training, and the time left.

    The speed is that of this phase's training steps: validation and start-up do not count. The time
    left adds what the validations to come will take. The loss is the guard's running mean, which the
    host has read already, so nothing waits for a GPU here.
    """

    order = 80

    def __init__(self, advance: Advance, num_epochs: int = 1, num_ranks: int = 1) -> None:
        self.advance, self.num_epochs, self.num_ranks = advance, num_epochs, num_ranks
        self.first_epoch = 0
        """Epochs of the run before this phase."""
        self.tokens_per_second = math.nan
        self.validation = ExitStack()

    def before_fit(self) -> None:
        self.num_tokens, self.seconds = 0, 0.0

    def before_train(self) -> None:
        self.last: float | None = None  # the first batch sets things up: its time says nothing

    def after_batch(self) -> None:
        if not self.training:
            self.advance_validation(1)
            return
        now, num_tokens = time.monotonic(), self.num_ranks * self.learn.yb[0].numel()
        if self.last is not None:
            self.num_tokens += num_tokens
            self.seconds += now - self.last
            self.tokens_per_second = self.num_tokens / self.seconds
        self.last = now
        epochs = self.first_epoch + self.learn.epoch
        train = self.learn.dls.train
        left_tokens = (self.num_epochs - epochs) * train.epoch_blocks * train.block_size
        left_tokens -= (self.learn.iter + 1) * num_tokens
        table = self.learn.epoch_table
        valid_seconds = table.times[-1].valid_seconds if table.times else 0.0
        notes = [
            f"loss {self.learn.guard.running_loss:.3f}",
            f"lr {self.opt.hypers[-1]['lr']:.1e}",
            f"{self.tokens_per_second:,.0f} tokens/s",
        ]
        self.advance(
            num_tokens,
            ", ".join(note for note in notes if "nan" not in note),
            description=f"{table.phase} {epochs + 1}/{self.num_epochs}",
            seconds_left=left_tokens / self.tokens_per_second
            + (self.num_epochs - epochs) * valid_seconds,
        )

    def before_validate(self) -> None:
        num_batches = len(self.learn.dls.valid)
        self.advance_validation = self.validation.enter_context(track("validation", num_batches))

    def after_validate(self) -> None:
        self.leave()

    def leave(self) -> None:
        """Ends the bar of a validation, also of one that raised."""
        self.validation.close()
