"""Fits the rows of the output head to the hidden states of a frozen model.

Developed in this project. Given the last hidden states h of running text, the head W is a softmax
regression: a convex problem, and one forward pass through the model gives its data. Most of a vocabulary
is rare, however, and a row of its own cannot be learnt from a few occurrences. So two things are learnt:

- a matrix M that all rows share, W -> W M. It adapts the head to the language and the text, and every
  token helps to learn it. Adam, on states scaled to unit variance in every direction.
- a change of each row, from a prior that says "none": a step of Newton's method with the Hessian of row v
  taken as n_v C + a I. n_v is how often its token occurs, C the second moment of the states. Rows of rare
  tokens hardly move.

Both come from one pass over the text. The head must have a matrix of its own: in a tied model, M would also
change the embeddings.

Shapes: N tokens, D width, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from gportuguese.align.distillation import schedule
from gportuguese.align.saved_state import SavedState
from gportuguese.loss import HeadLoss, loss_input
from gportuguese.progress import track
from gportuguese.tokens import BlockLoader

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_RATE = 1e-3  # of Adam, for M in scaled coordinates
# a = _PRIOR * trace(C), so that the prior gives a logit a standard deviation of _PRIOR ** -0.5
_PRIOR = 1.5
_MIN_VARIANCE = 1e-6  # of the largest; M ignores other directions, which hold only rounding errors
_COVARIANCE_BATCHES = 16
_MIN_COUNT = 0.1  # assumed for tokens that never occur


def fit_head(
    model: PreTrainedModel, batches: BlockLoader, counts_V: np.ndarray, saved: SavedState
) -> list[float]:
    """Fits the untied output head, in place, reading `batches` once; returns the loss of each step.

    `counts_V` is how often each token occurs in the new language. A model that scales or caps its logits
    is left unchanged; the list is then empty.
    """
    head_loss = HeadLoss(model)
    if not head_loss.is_taken_out:
        return []
    try:
        return _fit(model, head_loss, batches, counts_V, saved)
    finally:
        head_loss.release()
        model.requires_grad_(True)


def _fit(
    model: PreTrainedModel,
    head_loss: HeadLoss,
    batches: BlockLoader,
    counts_V: np.ndarray,
    saved: SavedState,
) -> list[float]:
    model.eval().requires_grad_(False)
    weight_VD, device = head_loss.head.weight, model.device
    num_tokens = batches.epoch_blocks * batches.block_size

    def states(inputs_BT: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            return loss_input(model(inputs_BT.to(device), use_cache=False)).float()

    state = saved.load() or _start(states, batches, weight_VD.detach())
    variances_D = state["variances"].to(device)
    scales_D = variances_D.rsqrt() * (variances_D > _MIN_VARIANCE * variances_D.max())
    axes_DD = state["axes"].to(device)
    # in the axes of C, where the Hessian is diagonal
    prior_VD = weight_VD.detach() @ axes_DD
    weight_VD.data.copy_(state["weight"])
    weight_VD.requires_grad_(True)
    shared_DD = state["shared"].to(device).requires_grad_(True)
    optimizer = torch.optim.Adam([shared_DD], lr=_RATE, betas=(0.9, 0.99))
    if "optimizer" in state:
        optimizer.load_state_dict(state["optimizer"])
    prior = _PRIOR * float(variances_D.sum())
    frequencies_V = torch.from_numpy(np.maximum(counts_V, _MIN_COUNT)).float().to(device)
    counts_V1 = (frequencies_V / frequencies_V.sum() * num_tokens)[:, None]
    losses: list[float] = state["losses"]
    batches.first_batch = state["batch"]
    with track("align: output head", len(batches)) as advance:
        advance(batches.first_batch, resumed=True)
        for number, (inputs_BT, targets_BT) in enumerate(batches, start=batches.first_batch):
            hidden_BTD = states(inputs_BT) @ axes_DD
            moved_BTD = hidden_BTD + (hidden_BTD * scales_D) @ shared_DD
            loss = head_loss(moved_BTD, targets_BT.to(device))
            optimizer.zero_grad()
            weight_VD.grad = None
            loss.backward()  # type: ignore[no-untyped-call]
            losses.append(loss.item())
            share = schedule(number / len(batches))
            optimizer.param_groups[0]["lr"] = _RATE * share
            optimizer.step()
            with torch.no_grad():
                gradient_VD = num_tokens * weight_VD.grad + prior * (weight_VD - prior_VD)
                newton_VD = gradient_VD / (counts_V1 * variances_D + prior)
                weight_VD -= 2 * share * targets_BT.numel() / num_tokens * newton_VD
            advance(1, f"loss {np.mean(losses[-20:]):.3f}")
            state |= {
                "batch": number + 1,
                "losses": losses,
                "weight": weight_VD.detach(),
                "shared": shared_DD.detach(),
                "optimizer": optimizer.state_dict(),
            }
            saved.save(state, now=number + 1 == len(batches))
    with torch.no_grad():
        moved_VD = weight_VD + (weight_VD @ shared_DD.T) * scales_D
        weight_VD.copy_(moved_VD @ axes_DD.T)
    return losses


def _start(
    states: Callable[[torch.Tensor], torch.Tensor], batches: BlockLoader, weight_VD: torch.Tensor
) -> dict[str, Any]:
    """The state before the first step: axes and variances of the hidden states, and no change."""
    few = islice(batches, _COVARIANCE_BATCHES)
    hidden_ND = torch.cat([states(inputs_BT).flatten(0, 1) for inputs_BT, _ in few]).double()
    variances_D, axes_DD = torch.linalg.eigh(hidden_ND.T @ hidden_ND / len(hidden_ND))
    axes_DD = axes_DD.to(weight_VD)
    return {
        "batch": 0,
        "losses": [],
        "variances": variances_D.clamp_min(torch.finfo(torch.float32).tiny).to(weight_VD),
        "axes": axes_DD,
        "weight": weight_VD @ axes_DD,
        "shared": torch.zeros_like(axes_DD),
    }
