"""Gradient accumulation with a schedule that counts optimizer steps."""

from __future__ import annotations

from fastai.callback.training import GradientAccumulation


class Accumulation(GradientAccumulation):
    """fastai's accumulation over `global_batch_size` sequences, scheduled by optimizer steps.

    fastai advances the schedule in every forward pass, so a step would use the rate of its last
    pass. Here all passes of a step use the rate of the first, so 1 x 8 equals 8 x 1.
    """

    def __init__(self, passes_per_step: int, global_batch_size: int) -> None:
        super().__init__(n_acc=global_batch_size)
        self.passes_per_step = passes_per_step

    def before_train(self) -> None:  # an earlier fit or epoch may have ended inside a step
        self.count = 0
        self.learn.opt.zero_grad()

    def before_batch(self) -> None:
        step = self.train_iter // self.passes_per_step
        num_steps = self.n_iter * self.n_epoch // self.passes_per_step
        self.learn.pct_train = step / num_steps
