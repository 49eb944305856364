"""Calibration: head rows that make each token as likely, on the whole, as it is frequent.

This project's own. A row of the output head says what its token means, and also how likely it is at
all; a row mixed from those of other tokens says the latter of them, and a row copied from a language
says it of that language. Both are wrong by nats, which is most of what a transferred model loses before
training. The last hidden states h of running text have a large mean m, so that moving a row along m
moves the logit of its token everywhere by nearly the same:

    row += log(f / p) * m / |m|^2

with f how often the token occurs in the new language and p the mean probability that the model gives it
on text. The move is small next to the row, which in a tied model is also the token's embedding. It
needs no gradient, only three passes over some thousand tokens. A head with a bias has that moved instead.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch.nn.functional import linear

from gportuguese.loss import HeadLoss
from gportuguese.tokens import BlockLoader

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_MOVES = 2  # the first changes what a tied model reads, and so its hidden states
_LARGEST_MOVE = 6.0  # nats; what never occurs need not be moved to minus infinity
_UNSEEN = 0.1  # occurrences of a token that has none
_CHUNK_ROWS = 256


@torch.no_grad()
def calibrate(
    model: PreTrainedModel,
    batches: Sequence[tuple[torch.Tensor, torch.Tensor]] | BlockLoader,
    counts_V: np.ndarray,
    is_fixed_V: np.ndarray,
) -> list[float]:
    """Moves the rows of the head that are not fixed, in place, by what `batches` of text show.

    They are read up to three times. `counts_V` is how often each token occurs. Returns what is to
    become small, before and after each move: the Kullback-Leibler divergence, in nats, of the model's
    mean probabilities from the frequencies. A move that does not lower it is taken back, and is the
    last. Empty for a model that scales or caps its logits, which is left as it is.
    """
    head_loss = HeadLoss(model)
    if not head_loss.is_taken_out:
        return []
    seen_V = np.maximum(counts_V, _UNSEEN)
    frequencies_V = torch.from_numpy(seen_V / seen_V.sum())
    is_moved_V = torch.from_numpy(~is_fixed_V)
    head = head_loss.head
    moved = head.weight if head.bias is None else head.bias

    def look() -> tuple[torch.Tensor, torch.Tensor, float]:
        hidden_ND = torch.cat([model(inputs).logits.flatten(0, 1) for inputs, _ in batches])
        log_ratio_V = frequencies_V.log() - mean_probabilities(head, hidden_ND).log()
        return hidden_ND.mean(0), log_ratio_V, float(frequencies_V @ log_ratio_V)

    model.eval()
    try:
        mean_D, log_ratio_V, divergence = look()
        divergences = [divergence]
        for _ in range(_MOVES):
            before = moved.clone()
            move_V = log_ratio_V.clamp(-_LARGEST_MOVE, _LARGEST_MOVE) * is_moved_V
            move_along_mean(head, mean_D, move_V)
            mean_D, log_ratio_V, divergence = look()
            divergences.append(divergence)
            if not divergences[-1] < divergences[-2]:  # nor is nan
                moved.copy_(before)
                break
    finally:
        head_loss.release()
    return divergences


def mean_probabilities(head: torch.nn.Linear, hidden_ND: torch.Tensor) -> torch.Tensor:
    """What the head gives each token on the mean of the rows; float64 `[V]`."""
    sums_V = torch.zeros(len(head.weight), dtype=torch.float64)
    for first in range(0, len(hidden_ND), _CHUNK_ROWS):
        logits_RV = linear(hidden_ND[first : first + _CHUNK_ROWS], head.weight, head.bias)
        sums_V += logits_RV.softmax(1).sum(0)
    return sums_V / len(hidden_ND)


def move_along_mean(head: torch.nn.Linear, mean_D: torch.Tensor, move_V: torch.Tensor) -> None:
    """Moves the logit of each token at the mean hidden state by `move_V`, in place."""
    if head.bias is not None:
        head.bias.add_(move_V)
    else:
        head.weight.add_(
            torch.outer(move_V, mean_D.double() / mean_D.double().square().sum()).float()
        )
