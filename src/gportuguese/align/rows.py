"""The input and output of every alignment method: two vocabularies, and a filler for some rows."""

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
    is_extension: bool = False
    """Whether the target has all tokens of the source, with the same ids; their rows stay as they are."""

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

        The two end-of-text tokens match even if their names differ. In an extension, equal ids match.
        """
        if self.is_extension:
            ids, old = np.full(self.shape[0], -1), list(self.source.get_vocab().values())
            ids[old] = old
            return ids
        ids = shared_rows(self.source_tokens, self.target_tokens)
        if self.source.eos_token_id is not None:
            ids[self.target.eos_token_id] = self.source.eos_token_id
        return ids

    @cached_property
    def literal_ids(self) -> np.ndarray:
        """`source_ids` of literals (see `is_literal`) and of end of text, else -1."""
        tokens = {*self.source_tokens, *self.target_tokens}
        literal = np.array([is_literal(token, tokens) for token in self.target_tokens])
        literal[self.target.all_special_ids] = True
        return np.where(literal, self.source_ids, -1)

    @property
    def shape(self) -> tuple[int, int]:
        """The sizes of both vocabularies: `(V_target, V_source)`."""
        return len(self.target_tokens), len(self.source_tokens)


@dataclass(frozen=True)
class Filler:
    """A function that makes target rows from source rows, and which rows it can make."""

    kind: str
    has: np.ndarray
    """The rows it can make; bool `[V_target]`."""
    rows: Callable[[np.ndarray], np.ndarray]
    """Maps source rows `[V_source, D]` to target rows `[V_target, D]`, valid only where `has` is true."""


def assign(fillers: list[Filler]) -> np.ndarray:
    """For each row the index of the first filler that can make it; int64 `[V_target]`."""
    has = np.stack([filler.has for filler in fillers])
    assert has.any(0).all()
    return np.asarray(has.argmax(0))


def fill(source: torch.Tensor, fillers: list[Filler]) -> torch.Tensor:
    """The new matrix `[V_target, D]`, or for a bias the new vector `[V_target]`."""
    source_VD = source.detach().numpy().reshape(len(source), -1)
    indices = assign(fillers)
    rows = np.empty((len(indices), source_VD.shape[1]), source_VD.dtype)
    for index, filler in enumerate(fillers):
        chosen = indices == index
        if chosen.any():
            rows[chosen] = filler.rows(source_VD)[chosen]
    return torch.from_numpy(rows).reshape(-1, *source.shape[1:])


def copied(source_ids: np.ndarray) -> Filler:
    """Exact copies of the source rows in `source_ids`; no row where it is -1."""
    return Filler("copied", source_ids >= 0, lambda source_VD: source_VD[source_ids])


def mean(num_rows: int) -> Filler:
    """The mean source row for every token, as in GPorTuguese-2 (Guillou, 2020)."""

    def rows(source_VD: np.ndarray) -> np.ndarray:
        row = source_VD.mean(0, dtype=np.float64)
        return np.broadcast_to(row, (num_rows, len(row)))

    return Filler("mean", np.ones(num_rows, bool), rows)


def gaussian(num_rows: int, seed: int) -> Filler:
    """Random rows from a normal distribution with the source rows' mean and covariance (Hewitt, 2021)."""

    def rows(source_VD: np.ndarray) -> np.ndarray:
        centre = source_VD.mean(0, dtype=np.float64)
        covariance = np.cov(source_VD, rowvar=False, bias=True).reshape(len(centre), -1)
        variances, axes = np.linalg.eigh(covariance)
        draws = np.random.default_rng(seed).standard_normal((num_rows, len(centre)))
        return np.asarray(centre + (draws * np.sqrt(variances.clip(0))) @ axes.T)

    return Filler("gaussian", np.ones(num_rows, bool), rows)


def mixed(kind: str, weights: csr_array) -> Filler:
    """Weighted sums of source rows by `weights` `[V_target, V_source]`; no row without weights."""
    has = np.diff(weights.indptr) > 0
    return Filler(kind, has, lambda source_VD: np.asarray(weights @ source_VD))
