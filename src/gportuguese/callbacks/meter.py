"""The progress of a run on the console."""

from __future__ import annotations

import math
import time
from contextlib import ExitStack

from fastai.callback.core import Callback

from gportuguese.callbacks.epoch_table import EpochTable
from gportuguese.callbacks.guard import Guard
from gportuguese.progress import Advance, track


class Meter(Callback):
    """Reports phase, epoch, loss, learning rate, throughput and the time left.

    Throughput covers this phase's training steps, without validation and start-up. The time left
    includes the remaining validations. The loss is the guard's running mean: the host has it
    already, so reading it does not synchronize with the GPU.
    """

    order = 80
    remove_on_fetch = True  # `get_preds` inside a fit is no validation

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
