"""What goes in and what comes out: the epoch's data order, and logits instead of HF outputs."""

from __future__ import annotations

from fastai.callback.core import Callback


class EpochOrder(Callback):
    """Tells the training loader which epoch of the whole run this is."""

    order = -4

    def __init__(self, first_epoch: int) -> None:
        self.first_epoch = first_epoch

    def before_epoch(self) -> None:
        self.learn.dls.train.epoch = self.first_epoch + self.learn.epoch


class LogitsOnly(Callback):
    """Replaces a Hugging Face model output by its logits `[B, T, V]`."""

    order = 0

    def after_pred(self) -> None:
        self.learn.pred = self.learn.pred.logits
