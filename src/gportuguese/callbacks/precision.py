"""Mixed precision on any device: autocast, and a loss scale for fp16."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any

import torch
from fastai.callback.core import Callback, CancelStepException

from gportuguese.callbacks.guard import Guard, StepLoss
from gportuguese.precision import autocast


class Precision(Callback):
    """Autocast around forward pass and loss; with fp16, a dynamic loss scale.

    A step whose scaled gradients overflow is skipped, before clipping and the optimizer.
    The scaler treats this callback as its optimizer: it reads `param_groups`, and calls `step` only
    if the gradients are finite.
    """

    order = 10

    def __init__(self, device: str, precision: str, step_loss: StepLoss, guard: Guard) -> None:
        self.device, self.precision = device, precision
        self.step_loss, self.guard = step_loss, guard
        enabled = precision == "fp16"
        self.scaler = torch.amp.GradScaler(torch.device(device).type, enabled=enabled)
        self.context = ExitStack()

    def before_batch(self) -> None:
        self.context.enter_context(autocast(self.device, self.precision))

    def after_loss(self) -> None:
        self.leave()

    def after_fit(self) -> None:  # fastai sends it also after an interrupted validation
        self.leave()

    def leave(self) -> None:
        """Ends autocast; call it after every fit, even if a forward pass raised."""
        self.context.close()

    def before_backward(self) -> None:
        self.learn.loss_grad = self.scaler.scale(self.loss_grad)

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        return self.learn.opt.opt.param_groups  # type: ignore[no-any-return]

    def step(self, *_: Any) -> None:
        self.is_finite = True

    def before_step(self) -> None:
        if not self.scaler.is_enabled():
            return
        self.is_finite = False
        self.scaler.unscale_(self)
        self.scaler.step(self)
        self.scaler.update()
        if not self.is_finite:
            loss = self.step_loss.value
            if not torch.isfinite(loss):  # a smaller loss scale would not help
                nan = float("nan")
                self.guard.stop(self.learn.epoch, self.step_loss.step, loss.item(), nan, nan)
            raise CancelStepException("the scaled gradients overflowed")
