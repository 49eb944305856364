"""What goes in and what comes out: the epoch's data order, and logits instead of HF outputs."""

from __future__ import annotations

from fastai.callback.core import Callback


class EpochOrder(Callback):
    """Tells the training loader which epoch of the whole run this is, and where in it to begin.

    `first_epoch` is the run's epoch with which the phase begins.
    """

    order = -4

    def __init__(self, first_epoch: int) -> None:
        self.first_epoch = first_epoch

    def before_epoch(self) -> None:
        train = self.learn.dls.train
        train.epoch = self.first_epoch + self.learn.epoch
        is_first = self.learn.epoch == self.learn.begin.epoch
        train.first_batch = self.learn.begin_batch if is_first else 0


class LogitsOnly(Callback):
    """Replaces a Hugging Face model output by its logits `[B, T, V]`."""

    order = 0

    def after_pred(self) -> None:
        self.learn.pred = self.learn.pred.logits
