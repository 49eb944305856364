"""The model's output as the loss takes it."""

from __future__ import annotations

from fastai.callback.core import Callback

from gportuguese.loss import loss_input


class LossInput(Callback):
    """Replaces a Hugging Face output by the tensor that `HeadLoss` takes."""

    order = 0

    def after_pred(self) -> None:
        self.learn.pred = loss_input(self.learn.pred)
