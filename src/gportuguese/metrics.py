"""Measures from summed nats: pure functions, and the sums themselves.

Shapes: B sequences, T tokens, V vocabulary.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from dataclasses import dataclass

import torch
from torch.nn.functional import cross_entropy


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
    """exp of nats per token, infinite where that overflows."""
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
        zero = torch.zeros((), dtype=torch.float64, device=self.bytes_per_token.device)
        self.nats, self.text_nats, self.correct, self.num_bytes = (zero.clone() for _ in range(4))
        self.num_tokens = 0

    def add(
        self, nats_BT: torch.Tensor, logits_BTV: torch.Tensor, targets_BT: torch.Tensor
    ) -> None:
        """Adds one batch."""
        bytes_BT = self.bytes_per_token[targets_BT]
        self.nats += nats_BT.sum(dtype=torch.float64)
        self.text_nats += (nats_BT * (bytes_BT > 0)).sum(dtype=torch.float64)
        self.correct += (logits_BTV.argmax(-1) == targets_BT).sum()
        self.num_bytes += bytes_BT.sum()
        self.num_tokens += targets_BT.numel()

    def measures(self) -> Measures:
        """The quotients."""
        loss = self.nats.item() / self.num_tokens
        return Measures(
            loss=loss,
            accuracy=self.correct.item() / self.num_tokens,
            perplexity=perplexity(loss),
            bits_per_byte=bits_per_byte(self.text_nats.item(), int(self.num_bytes.item())),
        )


def token_nats(logits_BTV: torch.Tensor, targets_BT: torch.Tensor) -> torch.Tensor:
    """Cross entropy of every token in nats, float32 `[B, T]`."""
    return cross_entropy(
        logits_BTV.flatten(0, 1).float(), targets_BT.flatten(), reduction="none"
    ).view_as(targets_BT)


class TokenLoss:
    """Mean nats per token; the nats of the last batch stay in `nats_BT` for the measures."""

    nats_BT: torch.Tensor

    def __call__(self, logits_BTV: torch.Tensor, targets_BT: torch.Tensor) -> torch.Tensor:
        """The mean over `logits_BTV` and `targets_BT`, a scalar."""
        nats_BT = token_nats(logits_BTV, targets_BT)
        self.nats_BT = nats_BT.detach()
        return nats_BT.mean()


@torch.no_grad()
def measure(
    model: torch.nn.Module,
    batches: Iterable[tuple[torch.Tensor, torch.Tensor]],
    bytes_per_token: torch.Tensor,
    autocast: Callable[[], AbstractContextManager[object]],
) -> Measures:
    """The measures of a causal LM over batches, on the device that `bytes_per_token` is on."""
    sums = TokenSums(bytes_per_token)
    device = bytes_per_token.device
    model.eval()
    for inputs_BT, targets_BT in batches:
        targets_BT = targets_BT.to(device)
        with autocast():
            logits_BTV = model(inputs_BT.to(device)).logits
        sums.add(token_nats(logits_BTV, targets_BT), logits_BTV, targets_BT)
    return sums.measures()
