"""The records of a run: epoch table, TensorBoard logs and progress bar."""

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

from gportuguese.callbacks.guard import Guard, StepLoss, TrainingStopped
from gportuguese.epochs import EpochRow, EpochTime, write_epochs
from gportuguese.metrics import Measures, TokenSums
from gportuguese.progress import Advance, track
from gportuguese.world import World


class EpochTable(Callback):
    """Measures every validation pass and appends a row to `epochs.csv`, across all fits of a run.

    fastai's recorder restarts with each fit and does not measure bits per byte.
    """

    order = 70

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

    def after_epoch(self) -> None:
        self.add_row(
            self.phase,
            self.train_nats.item() / self.num_steps,
            self.sums.measures(self.world.total),
            self.valid_start - self.start,
            time.monotonic() - self.valid_start,
        )
        self._start_epoch()

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


class TensorBoardLog(Callback):
    """Logs training loss and learning rate every `every` passes, and each row of the table."""

    order = 75
    every = 10

    def __init__(self, folder: Path, table: EpochTable, first_pass: int) -> None:
        self.folder, self.table, self.num_passes = folder, table, first_pass
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
        row = self.table.rows[-1]
        for name, value in asdict(row).items():
            if isinstance(value, float) and not math.isnan(value):
                self.writer.add_scalar(f"epoch/{name}", value, row.epoch)

    def after_fit(self) -> None:
        self.writer.close()


class Meter(Callback):
    """Reports phase, epoch, loss, learning rate, throughput and the time left.

    Throughput covers this phase's training steps, without validation and start-up. The time left
    includes the remaining validations. The loss is the guard's running mean: the host has it
    already, so reading it does not synchronize with the GPU.
    """

    order = 80

    def __init__(
        self,
        advance: Advance,
        table: EpochTable,
        guard: Guard,
        num_epochs: int = 1,
        num_ranks: int = 1,
    ) -> None:
        self.advance, self.table, self.guard = advance, table, guard
        self.num_epochs, self.num_ranks = num_epochs, num_ranks
        self.first_epoch = 0
        """Epochs in earlier phases."""
        self.tokens_per_second = math.nan
        self.validation = ExitStack()

    def before_fit(self) -> None:
        self.num_tokens, self.seconds = 0, 0.0

    def before_train(self) -> None:
        self.last: float | None = None  # the first batch includes start-up and is not timed

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
        valid_seconds = self.table.times[-1].valid_seconds if self.table.times else 0.0
        notes = [
            f"loss {self.guard.running_loss:.3f}",
            f"lr {self.opt.hypers[-1]['lr']:.1e}",
            f"{self.tokens_per_second:,.0f} tokens/s",
        ]
        self.advance(
            num_tokens,
            ", ".join(note for note in notes if "nan" not in note),
            description=f"{self.table.phase} {epochs + 1}/{self.num_epochs}",
            seconds_left=left_tokens / self.tokens_per_second
            + (self.num_epochs - epochs) * valid_seconds,
        )

    def before_validate(self) -> None:
        num_batches = len(self.learn.dls.valid)
        self.advance_validation = self.validation.enter_context(track("validation", num_batches))

    def after_validate(self) -> None:
        self.leave()

    def leave(self) -> None:
        """Closes the validation bar; call it after every fit, even if the fit raised."""
        self.validation.close()
