"""Gradual unfreezing: a phase trains the last parameter groups, or only some rows of the embeddings."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from fastai.callback.core import Callback
from torch import nn

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


class TrainableRows(Callback):
    """Trains only some rows of the embeddings and the output head for one fit.

    All other weights stay as they are, bit for bit. The other rows get no gradient, so they count for
    neither clipping nor a loss scale. Weight decay, and momentum from earlier fits, would still move
    them, so their values are written back after each step.

    Afterwards the optimizer has no moments of these weights. It counts steps for a matrix and not for a
    row, so it would take the other rows' moments, which are zero, for those of many steps: at the start
    of the next phase, their steps would be up to 1.5 times too long (4.6 times with `train.beta2: 0.999`).
    """

    order = -5

    def __init__(
        self, groups: ParameterGroups, rows: Sequence[nn.Parameter], is_trained_V: torch.Tensor
    ) -> None:
        self.groups, self.rows, self.is_trained_V = groups, rows, is_trained_V

    def before_fit(self) -> None:
        trained = {id(parameter) for parameter in self.rows}
        for parameter in (p for group in self.groups for p in group):
            parameter.requires_grad_(id(parameter) in trained)
            parameter.grad = None
        self.fixed = (~self.is_trained_V).nonzero()[:, 0].to(self.rows[0].device)
        self.values = [parameter.detach()[self.fixed] for parameter in self.rows]

    def before_step(self) -> None:
        for parameter in self.rows:
            if parameter.grad is not None:
                parameter.grad.index_fill_(0, self.fixed, 0)

    @torch.no_grad()
    def after_step(self) -> None:  # also runs after a step that a loss scale cancelled
        for parameter, values in zip(self.rows, self.values, strict=True):
            parameter.index_copy_(0, self.fixed, values)

    def after_fit(self) -> None:
        self.values = []  # frees the memory
        for parameter in self.rows:
            self.opt.opt.state.pop(parameter, None)
