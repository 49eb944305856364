"""The data order of an epoch."""

from __future__ import annotations

from fastai.callback.core import Callback


class EpochOrder(Callback):
    """Sets the training loader to the right epoch of the run; the loader's order depends on it.

    `first_epoch` is the number of epochs in earlier phases.
    """

    order = -4

    def __init__(self, first_epoch: int) -> None:
        self.first_epoch = first_epoch

    def before_epoch(self) -> None:
        self.learn.dls.train.epoch = self.first_epoch + self.learn.epoch


class NextEpoch(Callback):
    """Makes every epoch continue in the data where the last one ended, across fits."""

    order = 70
    run_valid = False

    def after_train(self) -> None:
        self.learn.dls.train.epoch += 1
