"""Stops a run before a loss or gradients that are not finite reach the weights."""

from __future__ import annotations

import torch
from fastai.callback.core import Callback
from fastai.learner import Learner

from gportuguese.config import UserError


class TrainingStopped(UserError):
    """Loss or gradients are not finite; the weights are still those of the step before."""


class FiniteLoss(Callback):
    """Raises `TrainingStopped` between forward and backward pass.

    After `Precision` (10), so that its autocast is left first.
    """

    order = 11
    run_valid = False

    def after_loss(self) -> None:
        if not torch.isfinite(self.learn.loss):
            raise stopped(self.learn, f"the loss is {self.learn.loss.item()}")


class GradientNorm(Callback):
    """Raises `TrainingStopped` before a step with gradients that are not finite; clips the others.

    With fp16 it sees unscaled gradients, and steps that overflowed were left out before it.
    """

    order = 12

    def __init__(self, max_norm: float | None) -> None:
        self.max_norm = max_norm

    def before_step(self) -> None:
        parameters = [p for p in self.learn.model.parameters() if p.grad is not None]
        norm = torch.nn.utils.get_total_norm([p.grad for p in parameters])
        if not torch.isfinite(norm):
            raise stopped(self.learn, f"the norm of the gradients is {norm.item()}")
        if self.max_norm is not None:
            torch.nn.utils.clip_grads_with_norm_(parameters, self.max_norm, norm)


def stopped(learn: Learner, what: str) -> TrainingStopped:
    """The error of a run that must not take its next step."""
    return TrainingStopped(
        f"{what} at epoch {learn.epoch + 1} of this phase, forward pass {learn.iter + 1} of "
        f"{learn.n_iter}: stopped before the optimizer step. The last finished phase is kept; "
        "lower lr_max or set train.grad_clip, or train in bf16 or fp32"
    )
