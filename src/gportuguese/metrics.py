"""Loss, accuracy, perplexity and bits per byte of a model, from sums over batches.

Shapes: B sequences, T tokens, V vocabulary.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from gportuguese.intervals import DocumentSums, Interval, interval_of, interval_of_change
from gportuguese.loss import HeadLoss, loss_input
from gportuguese.tokens import BlockLoader

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


@dataclass(frozen=True)
class Evaluation(Measures):
    """How well a model predicts the documents of a text."""

    bits_per_byte_interval: Interval | None
    """Its 95 % interval: bootstrap over documents, as in `intervals.interval_of`. None for a single
    document."""
    documents: int
    """The documents of which something was read."""


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
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Adds one batch; returns the nats and bytes of its tokens, 0 for specials."""
        bytes_BT = self.bytes_per_token[targets_BT]
        of_text_BT = nats_BT * (bytes_BT > 0)
        ones_BT = torch.ones_like(targets_BT)
        parts = (nats_BT, of_text_BT, correct_BT, bytes_BT, ones_BT)
        self.sums_5 += torch.stack([part.sum(dtype=torch.float64) for part in parts])
        return of_text_BT, bytes_BT

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


@dataclass
class SumsByDocument(TokenSums):
    """Running sums that also keep nats and bytes of each document: two numbers per document."""

    loader: BlockLoader
    """The loader whose batches are added, from the first one on."""
    offsets: np.ndarray
    """The index of each document's first token, then the number of tokens; int64 `[D + 1]`."""

    def __post_init__(self) -> None:
        super().__post_init__()
        device = self.bytes_per_token.device
        self.sums_D2 = torch.zeros(len(self.offsets) - 1, 2, dtype=torch.float64, device=device)
        """Nats without specials, and bytes."""
        self.documents = self.loader.documents(self.offsets)

    def add(
        self, nats_BT: torch.Tensor, correct_BT: torch.Tensor, targets_BT: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Adds the loader's next batch."""
        of_text_BT, bytes_BT = super().add(nats_BT, correct_BT, targets_BT)
        documents_N = torch.from_numpy(next(self.documents).ravel()).to(targets_BT.device)
        parts_N2 = torch.stack([of_text_BT.flatten(), bytes_BT.flatten()], 1)
        self.sums_D2.index_add_(0, documents_N, parts_N2.double())
        return of_text_BT, bytes_BT

    def by_document(self) -> DocumentSums:
        """Nats and bytes of each document."""
        nats_D, bytes_D = self.sums_D2.cpu().numpy().T
        return DocumentSums(nats_D, bytes_D.astype(np.int64))

    def evaluation(self) -> Evaluation:
        """The measures of all batches, with their interval."""
        documents = self.by_document()
        return Evaluation(
            **vars(self.measures()),
            bits_per_byte_interval=interval_of(documents),
            documents=documents.num_read,
        )


def change(before: SumsByDocument, after: SumsByDocument) -> dict[str, Any]:
    """The change in bits per byte from one model to another, over the same documents."""
    old, new = before.by_document(), after.by_document()
    return {
        "bits_per_byte": new.bits_per_byte - old.bits_per_byte,
        "bits_per_byte_interval": interval_of_change(old, new),
    }


@torch.no_grad()
def measure(
    model: PreTrainedModel,
    batches: Iterable[tuple[torch.Tensor, torch.Tensor]],
    sums: TokenSums,
    autocast: Callable[[], AbstractContextManager[object]],
    *,
    loss: HeadLoss | None = None,
    total: Callable[[torch.Tensor], object] = lambda sums: None,
) -> Measures:
    """The measures of a causal LM over batches, which are added to `sums`, on their device.

    If the model already has a `HeadLoss`, pass it as `loss`.
    """
    device = sums.bytes_per_token.device
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
