"""Stops a run before a loss that is not finite reaches the weights."""

from __future__ import annotations

import torch
from fastai.callback.core import Callback

from gportuguese.config import UserError


class TrainingStopped(UserError):
    """The loss is not finite; the weights are still those of the step before."""


class FiniteLoss(Callback):
    """Raises `TrainingStopped` between forward and backward pass."""

    order = 5
    run_valid = False

    def after_loss(self) -> None:
        if not torch.isfinite(self.learn.loss):
            raise TrainingStopped(
                f"the loss is {self.learn.loss.item()} at epoch {self.learn.epoch + 1} of this "
                f"phase, forward pass {self.learn.iter + 1} of {self.learn.n_iter}: stopped before "
                "the optimizer step. The last finished phase is kept; lower lr_max or set "
                "train.grad_clip, or train in bf16 or fp32"
            )
