"""Calibration: adjusts the output head so that each token is predicted as often as it occurs.

Developed in this project. A row of the output head says what its token means, and also how likely the
token is overall. A row mixed from other tokens carries their frequency, and a copied row carries the
frequency in the old language. Both are wrong by nats, which is most of what a transferred model loses
before training. The last hidden states h of running text have a large mean m. Moving a row along m
therefore changes the logit of its token by nearly the same amount everywhere:

    row += log(f / p) * m / |m|^2

Here f is the token's frequency in the new language and p the mean probability that the model gives it on
text. The update is small compared with the row, which in a tied model is also the token's embedding. It
needs no gradient, only three passes over a few thousand tokens; one if the head has a matrix of its own,
because the hidden states then stay the same. If the head has a bias, only the bias is updated.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch.nn.functional import linear

from gportuguese import tying
from gportuguese.loss import HeadLoss
from gportuguese.tokens import BlockLoader

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_UPDATES = 2  # in a tied model, the first one changes the embeddings and so the hidden states
_MAX_UPDATE = 6.0  # nats; keeps tokens that never occur from moving to minus infinity
_MIN_COUNT = 0.1  # assumed for tokens that never occur
_CHUNK_ROWS = 256


@torch.no_grad()
def calibrate(
    model: PreTrainedModel,
    batches: Sequence[tuple[torch.Tensor, torch.Tensor]] | BlockLoader,
    counts_V: np.ndarray,
    is_fixed_V: np.ndarray,
) -> list[float]:
    """Updates the head rows that are not fixed, in place, to match token frequencies.

    Reads `batches` up to three times, once if no update changes the hidden states. `counts_V` is how
    often each token occurs. Returns the Kullback-Leibler divergence, in nats, of the model's mean
    probabilities from the frequencies: at the start and after each update. An update that does not lower
    it is reverted, and no other follows. A model that scales or caps its logits is left unchanged; the
    list is then empty.
    """
    head_loss = HeadLoss(model)
    if not head_loss.is_taken_out:
        return []
    seen_V = np.maximum(counts_V, _MIN_COUNT)
    frequencies_V = torch.from_numpy(seen_V / seen_V.sum())
    is_updated_V = torch.from_numpy(~is_fixed_V)
    head = head_loss.head
    updated = head.weight if head.bias is None else head.bias
    changes_hidden = head.bias is None and tying.is_tied(model)

    def hidden_states() -> torch.Tensor:
        return torch.cat([model(inputs).logits.flatten(0, 1) for inputs, _ in batches])

    def log_ratio(hidden_ND: torch.Tensor) -> torch.Tensor:
        return frequencies_V.log() - mean_probabilities(head, hidden_ND).log()

    model.eval()
    try:
        hidden_ND = hidden_states()
        log_ratio_V = log_ratio(hidden_ND)
        divergences = [float(frequencies_V @ log_ratio_V)]
        for _ in range(_UPDATES):
            before = updated.clone()
            move_V = log_ratio_V.clamp(-_MAX_UPDATE, _MAX_UPDATE) * is_updated_V
            move_along_mean(head, hidden_ND.mean(0), move_V)
            if changes_hidden:
                hidden_ND = hidden_states()
            log_ratio_V = log_ratio(hidden_ND)
            divergences.append(float(frequencies_V @ log_ratio_V))
            if not divergences[-1] < divergences[-2]:  # also true for nan
                updated.copy_(before)
                break
    finally:
        head_loss.release()
    return divergences


def mean_probabilities(head: torch.nn.Linear, hidden_ND: torch.Tensor) -> torch.Tensor:
    """The mean probability of each token over the rows of `hidden_ND`; float64 `[V]`."""
    sums_V = torch.zeros(len(head.weight), dtype=torch.float64)
    for first in range(0, len(hidden_ND), _CHUNK_ROWS):
        logits_RV = linear(hidden_ND[first : first + _CHUNK_ROWS], head.weight, head.bias)
        sums_V += logits_RV.softmax(1).sum(0)
    return sums_V / len(hidden_ND)


def move_along_mean(head: torch.nn.Linear, mean_D: torch.Tensor, move_V: torch.Tensor) -> None:
    """Changes the head so that each token's logit at the mean hidden state grows by `move_V`."""
    if head.bias is not None:
        head.bias.add_(move_V)
    else:
        head.weight.add_(
            torch.outer(move_V, mean_D.double() / mean_D.double().square().sum()).float()
        )
