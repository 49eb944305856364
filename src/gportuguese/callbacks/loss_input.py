"""Passes the loss the part of the model's output that it needs."""

from __future__ import annotations

from fastai.callback.core import Callback

from gportuguese.loss import loss_input


class LossInput(Callback):
    """Replaces a Hugging Face output with the tensor that `HeadLoss` expects."""

    order = 0

    def after_pred(self) -> None:
        self.learn.pred = loss_input(self.learn.pred)


class HeadInLoss(Callback):
    """Moves the model's head into the loss for the time of a fit or a validation."""

    order = -8

    def before_fit(self) -> None:
        self.learn.loss_func.take_out()

    def after_fit(self) -> None:
        self.learn.loss_func.release()
