"""Loss, accuracy, perplexity and bits per byte of a model, from sums over batches.

Shapes: B sequences, T tokens, V vocabulary.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from gportuguese.loss import HeadLoss, loss_input

if TYPE_CHECKING:
    from transformers import PreTrainedModel


@dataclass(frozen=True)
class Measures:
    """How well a model predicts a text."""

    loss: float
    """Nats per token."""
    accuracy: float
    """Share of tokens predicted by arg-max."""
    perplexity: float
    """exp(loss): comparable only between models with the same tokenizer."""
    bits_per_byte: float
    """Comparable between tokenizers."""


def perplexity(loss: float) -> float:
    """exp of nats per token; infinite if that overflows."""
    return math.exp(loss) if loss < 709 else math.inf


def bits_per_byte(total_nats: float, num_bytes: int) -> float:
    """Bits needed per UTF-8 byte of text.

    >>> bits_per_byte(math.log(2) * 8, 8)
    1.0
    """
    return total_nats / math.log(2) / num_bytes


@dataclass
class TokenSums:
    """Running sums over batches, kept on the device; `measures()` divides once at the end."""

    bytes_per_token: torch.Tensor
    """UTF-8 bytes of each token id, `[V]`; 0 marks specials, which bits per byte leaves out."""

    def __post_init__(self) -> None:
        self.sums_5 = torch.zeros(5, dtype=torch.float64, device=self.bytes_per_token.device)
        """Nats, nats without specials, correct predictions, bytes, tokens."""

    def add(
        self, nats_BT: torch.Tensor, correct_BT: torch.Tensor, targets_BT: torch.Tensor
    ) -> None:
        """Adds one batch."""
        bytes_BT = self.bytes_per_token[targets_BT]
        of_text_BT = nats_BT * (bytes_BT > 0)
        ones_BT = torch.ones_like(targets_BT)
        parts = (nats_BT, of_text_BT, correct_BT, bytes_BT, ones_BT)
        self.sums_5 += torch.stack([part.sum(dtype=torch.float64) for part in parts])

    def measures(self, total: Callable[[torch.Tensor], object] = lambda sums: None) -> Measures:
        """The measures of all batches; `total` adds up the sums of several processes in place."""
        total(self.sums_5)
        nats, text_nats, correct, num_bytes, num_tokens = self.sums_5.tolist()
        loss = nats / num_tokens
        return Measures(
            loss=loss,
            accuracy=correct / num_tokens,
            perplexity=perplexity(loss),
            bits_per_byte=bits_per_byte(text_nats, int(num_bytes)),
        )


@torch.no_grad()
def measure(
    model: PreTrainedModel,
    batches: Iterable[tuple[torch.Tensor, torch.Tensor]],
    bytes_per_token: torch.Tensor,
    autocast: Callable[[], AbstractContextManager[object]],
    *,
    loss: HeadLoss | None = None,
    total: Callable[[torch.Tensor], object] = lambda sums: None,
) -> Measures:
    """The measures of a causal LM over batches, on the device that `bytes_per_token` is on.

    If the model already has a `HeadLoss`, pass it as `loss`.
    """
    sums = TokenSums(bytes_per_token)
    device = bytes_per_token.device
    model.eval()
    head_loss = loss or HeadLoss(model)
    try:
        for inputs_BT, targets_BT in batches:
            targets_BT = targets_BT.to(device)
            with autocast():
                output = model(inputs_BT.to(device), use_cache=False)
                head_loss(loss_input(output), targets_BT)
            sums.add(head_loss.nats_BT, head_loss.correct_BT, targets_BT)
    finally:  # after Ctrl+C in a notebook, the model is used again
        if loss is None:
            head_loss.release()
    return sums.measures(total)
