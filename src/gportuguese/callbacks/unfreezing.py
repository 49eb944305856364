"""Gradual unfreezing: a phase trains the last parameter groups and freezes the others."""

from __future__ import annotations

from fastai.callback.core import Callback

from gportuguese.causal_lm import ParameterGroups


class TrainableGroups(Callback):
    """Freezes all but the last `num_groups` parameter groups for one fit.

    fastai's `freeze_to` leaves norms trainable and acts on the optimizer. This sets
    `requires_grad`, so that frozen groups need no gradient memory and DDP skips them.
    """

    order = -5

    def __init__(self, groups: ParameterGroups, num_groups: int) -> None:
        self.groups, self.num_groups = groups, num_groups

    def before_fit(self) -> None:
        first = len(self.groups) - self.num_groups
        for index, group in enumerate(self.groups):
            for parameter in group:
                parameter.requires_grad_(index >= first)
                parameter.grad = None
