"""What every method works from, and what it gives: fillers, each of which knows some of the rows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import torch
from scipy.sparse import csr_array

from gportuguese import tokenizer as tokenizers
from gportuguese.align.shared_tokens import is_literal, shared_rows

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True)
class Vocabularies:
    """The two tokenizers; tokens are compared as byte strings, never decoded."""

    source: PreTrainedTokenizerBase
    target: PreTrainedTokenizerBase

    @cached_property
    def source_tokens(self) -> list[bytes]:
        """The bytes of each source id."""
        return tokenizers.bytes_of_tokens(self.source)

    @cached_property
    def target_tokens(self) -> list[bytes]:
        """The bytes of each target id."""
        return tokenizers.bytes_of_tokens(self.target)

    @cached_property
    def source_ids(self) -> np.ndarray:
        """For each target id the source id with the same bytes, else -1; int64 `[V_target]`.

        End of text means the same in both, whatever it is called.
        """
        ids = shared_rows(self.source_tokens, self.target_tokens)
        if self.source.eos_token_id is not None:
            ids[self.target.eos_token_id] = self.source.eos_token_id
        return ids

    @cached_property
    def literal_ids(self) -> np.ndarray:
        """`source_ids` of the tokens that mean the same in any language and of end of text, else -1."""
        tokens = {*self.source_tokens, *self.target_tokens}
        literal = np.array([is_literal(token, tokens) for token in self.target_tokens])
        literal[self.target.all_special_ids] = True
        return np.where(literal, self.source_ids, -1)

    @property
    def shape(self) -> tuple[int, int]:
        """Rows wanted and rows given: `(V_target, V_source)`."""
        return len(self.target_tokens), len(self.source_tokens)


@dataclass(frozen=True)
class Filler:
    """A way to get rows from source rows, and the rows it can give."""

    kind: str
    has: np.ndarray
    """Bool `[V_target]`."""
    rows: Callable[[np.ndarray], np.ndarray]
    """From source rows `[V_source, D]` to target rows `[V_target, D]`, which hold where `has` does."""


def assign(fillers: list[Filler]) -> np.ndarray:
    """For each row the place of the first filler that has it; int64 `[V_target]`."""
    has = np.stack([filler.has for filler in fillers])
    assert has.any(0).all()
    return np.asarray(has.argmax(0))


def fill(source: torch.Tensor, fillers: list[Filler]) -> torch.Tensor:
    """The new matrix `[V_target, D]`, or vector `[V_target]` of a bias."""
    source_VD = source.detach().numpy().reshape(len(source), -1)
    places = assign(fillers)
    rows = np.empty((len(places), source_VD.shape[1]), source_VD.dtype)
    for place, filler in enumerate(fillers):
        chosen = places == place
        if chosen.any():
            rows[chosen] = filler.rows(source_VD)[chosen]
    return torch.from_numpy(rows).reshape(-1, *source.shape[1:])


def copied(source_ids: np.ndarray) -> Filler:
    """The very rows of tokens whose `source_ids` are not -1."""
    return Filler("copied", source_ids >= 0, lambda source_VD: source_VD[source_ids])


def mean(num_rows: int) -> Filler:
    """The mean source row for every token, as in GPorTuguese-2 (Guillou, 2020)."""

    def rows(source_VD: np.ndarray) -> np.ndarray:
        row = source_VD.mean(0, dtype=np.float64)
        return np.broadcast_to(row, (num_rows, len(row)))

    return Filler("mean", np.ones(num_rows, bool), rows)


def gaussian(num_rows: int, seed: int) -> Filler:
    """Draws from N(mu, Sigma) of the source rows (Hewitt, 2021)."""

    def rows(source_VD: np.ndarray) -> np.ndarray:
        centre = source_VD.mean(0, dtype=np.float64)
        covariance = np.cov(source_VD, rowvar=False, bias=True).reshape(len(centre), -1)
        variances, axes = np.linalg.eigh(covariance)
        draws = np.random.default_rng(seed).standard_normal((num_rows, len(centre)))
        return np.asarray(centre + (draws * np.sqrt(variances.clip(0))) @ axes.T)

    return Filler("gaussian", np.ones(num_rows, bool), rows)


def mixed(kind: str, weights: csr_array) -> Filler:
    """Mixtures of source rows; `weights` is `[V_target, V_source]`, and a row may be empty."""
    has = np.diff(weights.indptr) > 0
    return Filler(kind, has, lambda source_VD: np.asarray(weights @ source_VD))
