"""The optimizer of a run and its learning rates: fused AdamW, or Muon for the blocks' matrices."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import torch
from torch import nn

from gportuguese import causal_lm
from gportuguese.causal_lm import ParameterGroups
from gportuguese.config import PhaseConfig, TrainConfig, UserError

if TYPE_CHECKING:
    from transformers import PreTrainedModel

T = TypeVar("T")


class OptimizerError(UserError):
    """This model or this PyTorch does not support the optimizer of the config."""


def by_decay(per_group: Iterable[T]) -> list[tuple[T, bool]]:
    """The order of the optimizer's groups: each parameter group twice, with and without decay."""
    return [(each, decays) for each in per_group for decays in (True, False)]


def decay_flags(model: nn.Module) -> dict[int, bool]:
    """Whether weight decay applies to each parameter, by its `id`; false for biases and norms."""
    flags = {}
    for module in model.modules():
        is_norm = "norm" in type(module).__name__.lower()
        for name, parameter in module.named_parameters(recurse=False):
            flags[id(parameter)] = not (is_norm or name == "bias")
    return flags


def learning_rates(phase: PhaseConfig) -> list[float]:
    """Peak rates of the optimizer's groups: geometric over the parameter groups."""
    rates = np.geomspace(phase.lr_max / phase.lr_ratio, phase.lr_max, causal_lm.NUM_GROUPS)
    return [float(rate) for rate, _ in by_decay(rates)]


def make_optimizer(
    model: PreTrainedModel, parameter_groups: ParameterGroups, section: TrainConfig
) -> torch.optim.Optimizer:
    """The `train.optimizer` of a model, with groups in the order of `by_decay`.

    Muon trains the weight-decayed matrices inside the blocks; AdamW trains the rest. Raises
    `OptimizerError` if Muon is missing in this PyTorch or does not fit the model.
    """
    decaying = decay_flags(model)
    groups: list[dict[str, Any]] = [
        {
            "params": [p for p in group if decaying[id(p)] == decays],
            "weight_decay": section.weight_decay if decays else 0.0,
            "muon": decays and group is not parameter_groups.outside_blocks,
        }
        for group, decays in by_decay(parameter_groups)
    ]
    betas = (section.momentums[0], section.beta2)
    if section.optimizer == "muon":
        if not hasattr(torch.optim, "Muon"):
            raise OptimizerError(
                f"train.optimizer=muon needs PyTorch 2.9 or later, but this is {torch.__version__}; "
                "upgrade torch or set train.optimizer=adamw"
            )
        try:
            return MuonAdamW(groups, 1e-3, betas, section.eps)
        except ValueError as error:
            raise OptimizerError(
                f"train.optimizer=muon: {error}, in {type(model).__name__}; set "
                "train.optimizer=adamw"
            ) from error
    for group in groups:
        del group["muon"]
    return torch.optim.AdamW(groups, lr=1e-3, betas=betas, eps=section.eps, fused=True)


class MuonAdamW(torch.optim.Optimizer):
    """PyTorch's Muon for groups with `muon`, its fused AdamW for the others.

    fastai, checkpoints and schedules see one optimizer. Each group has `lr`, `weight_decay` and
    `betas`; Muon uses the first beta as its momentum, and only AdamW uses `eps`. Muon's updates
    are scaled to the usual size of AdamW's, so that one rate suits both (Liu et al. 2025,
    "Muon is Scalable for LLM Training"). Raises ValueError if a parameter of a `muon` group is
    not a matrix.
    """

    def __init__(
        self, groups: list[dict[str, Any]], lr: float, betas: tuple[float, float], eps: float
    ) -> None:
        # with `fused`, `load_state_dict` keeps AdamW's step counts on the device
        super().__init__(groups, {"lr": lr, "betas": betas, "eps": eps, "fused": True})
        matrices = [{"params": group["params"]} for group in groups if group["muon"]]
        others = [{"params": group["params"]} for group in groups if not group["muon"]]
        self.muon = torch.optim.Muon(matrices, adjust_lr_fn="match_rms_adamw")
        self.adamw = torch.optim.AdamW(others, fused=True)

    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Steps both, with the current groups and state, because loading replaces these."""
        self.muon.param_groups = [
            {
                **self.muon.defaults,
                **{key: group[key] for key in ("params", "lr", "weight_decay")},
                "momentum": group["betas"][0],
            }
            for group in self.param_groups
            if group["muon"]
        ]
        self.adamw.param_groups = [
            {**self.adamw.defaults, **group} for group in self.param_groups if not group["muon"]
        ]
        for part in (self.muon, self.adamw):
            part.state = self.state
            part.step()  # type: ignore[no-untyped-call]
