"""Gradual unfreezing: one phase trains the last groups, the others stand still."""

from __future__ import annotations

from fastai.callback.core import Callback
from torch import nn


class TrainableGroups(Callback):
    """Freezes all but the last `num_groups` parameter groups for one fit.

    fastai's `freeze_to` leaves norms trainable and works inside the optimizer; this sets
    `requires_grad`, so that frozen groups cost no gradient memory and DDP would see the same.
    """

    order = -5

    def __init__(self, groups: list[list[nn.Parameter]], num_groups: int) -> None:
        self.groups, self.num_groups = groups, num_groups

    def before_fit(self) -> None:
        first = len(self.groups) - self.num_groups
        for index, group in enumerate(self.groups):
            for parameter in group:
                parameter.requires_grad_(index >= first)
                parameter.grad = None
