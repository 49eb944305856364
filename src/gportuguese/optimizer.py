"""The optimizer of a run: fused AdamW, or Muon for the matrices of the blocks beside it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from gportuguese import model as models
from gportuguese.config import TrainConfig, UserError

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class OptimizerError(UserError):
    """The optimizer that the config asks for cannot be had for this model or with this PyTorch."""


def make_optimizer(
    model: PreTrainedModel, parameter_groups: list[list[nn.Parameter]], section: TrainConfig
) -> torch.optim.Optimizer:
    """`train.optimizer` over each of a model's parameter groups with, then without weight decay.

    Muon gets what decays in all but the last group, which is that outside of the blocks. Raises
    `OptimizerError` where it cannot.
    """
    decays = models.decay_flags(model)
    groups: list[dict[str, Any]] = [
        {
            "params": [p for p in group if decays[id(p)] == decay],
            "weight_decay": section.weight_decay if decay else 0.0,
            "muon": decay and group is not parameter_groups[-1],
        }
        for group in parameter_groups
        for decay in (True, False)
    ]
    betas = (section.momentums[0], section.beta2)
    if section.optimizer == "muon":
        if not hasattr(torch.optim, "Muon"):
            raise OptimizerError(
                f"train.optimizer=muon needs PyTorch 2.9 or later and this is {torch.__version__}; "
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

    One optimizer to fastai, to checkpoints and to whoever sets rates: each group has `lr`,
    `weight_decay` and `betas`, the first of which is Muon's momentum; `eps` is AdamW's alone.
    Muon's updates are as long as AdamW's usually are, so that a rate suits both (Liu et al. 2025,
    "Muon is Scalable for LLM Training"). Raises ValueError where a parameter of a `muon` group is
    not a matrix.
    """

    def __init__(
        self, groups: list[dict[str, Any]], lr: float, betas: tuple[float, float], eps: float
    ) -> None:
        # told that this is fused, a loaded state keeps AdamW's step counts on the device
        super().__init__(groups, {"lr": lr, "betas": betas, "eps": eps, "fused": True})
        matrices = [{"params": group["params"]} for group in groups if group["muon"]]
        others = [{"params": group["params"]} for group in groups if not group["muon"]]
        self.muon = torch.optim.Muon(matrices, adjust_lr_fn="match_rms_adamw")
        self.adamw = torch.optim.AdamW(others, fused=True)

    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """One step of both, given groups and state anew, since loading a state replaces those."""
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
