"""Static vectors of tokens (CBOW by gensim), and the maps between the spaces of two languages."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from gportuguese.align_files import AlignError

log = logging.getLogger("gportuguese")

DIMENSIONS = 100
_SENTENCE = 1000  # tokens; context windows do not cross sentences
Sentences = Callable[[], Iterator[np.ndarray]]
"""Iterates over the sentences of a corpus from the start, each an array of token ids."""


class TooLittleError(AlignError):
    """The text or the dictionary is too small to learn from; `auto` leaves the method out."""


@dataclass(frozen=True)
class Vectors:
    """Unit vectors `[V, D]`, float32; zero where `known` `[V]` is false."""

    matrix: np.ndarray
    known: np.ndarray

    def centred(self) -> Vectors:
        """The vectors without their mean, which hides differences, at length one again."""
        shifted = self.matrix - self.matrix[self.known].mean(0)
        return unit_vectors(shifted, self.known)


def unit_vectors(matrix: np.ndarray, known: np.ndarray) -> Vectors:
    """Each row scaled to length one; rows that are not `known` become zero."""
    lengths = np.linalg.norm(matrix, axis=1, keepdims=True)
    scaled = matrix / np.maximum(lengths, 1e-9) * known[:, None]
    return Vectors(scaled.astype(np.float32), known)


def cut(ids: np.ndarray, num_tokens: int, end: int) -> Iterator[np.ndarray]:
    """Splits the first `num_tokens` ids into sentences; none crosses the end-of-document id `end`.

    >>> [sentence.tolist() for sentence in cut(np.array([5, 6, 0, 7, 0, 8]), 5, end=0)]
    [[5, 6], [7]]
    """
    for start in range(0, min(len(ids), num_tokens), _SENTENCE):
        part = np.asarray(ids[start : min(start + _SENTENCE, num_tokens)])
        for sentence in np.split(part, np.flatnonzero(part == end) + 1):
            sentence = sentence[sentence != end]
            if len(sentence):
                yield sentence


def counts_of(sentences: Sentences, size: int) -> np.ndarray:
    """How often each id occurs, int64 `[size]`."""
    counts = np.zeros(size, np.int64)
    for sentence in sentences():
        np.add.at(counts, sentence, 1)
    return counts


def train_vectors(
    sentences: Sentences, size: int, seed: int, epochs: int, min_count: int
) -> Vectors:
    """CBOW vectors of the ids below `size`; the same seed gives the same vectors.

    Memory depends on `size`, not on the corpus. Ids seen fewer than `min_count` times get none.
    """
    from gensim.models import Word2Vec

    names = np.array([str(id) for id in range(size)], object)

    class Corpus:
        def __iter__(self) -> Iterator[list[str]]:
            return (names[sentence].tolist() for sentence in sentences())

    start = time.monotonic()
    known = np.zeros(size, bool)
    try:
        model = Word2Vec(
            Corpus(),
            vector_size=DIMENSIONS,
            window=5,
            sg=0,
            alpha=0.05,
            sample=1e-3,
            epochs=epochs,
            min_count=min_count,
            seed=seed,
            workers=1,  # more would make the result depend on thread timing
        )
    except RuntimeError:  # no id reaches `min_count`
        return Vectors(np.zeros((size, DIMENSIONS), np.float32), known)
    matrix = np.zeros((size, DIMENSIONS), np.float32)
    for name, row in model.wv.key_to_index.items():
        matrix[int(name)] = model.wv.vectors[row]
        known[int(name)] = True
    log.info("align: trained vectors of %d tokens in %.0f s", known.sum(), time.monotonic() - start)
    return unit_vectors(matrix, known)


def rotation(own_ND: np.ndarray, other_ND: np.ndarray) -> np.ndarray:
    """The orthogonal matrix `[D, D]` that best maps rows of `own` to those of `other` (Procrustes)."""
    left, _, right = np.linalg.svd(own_ND.T @ other_ND)
    return np.asarray(left @ right)


def learn_rotation(
    own: Vectors,
    other: Vectors,
    pairs: np.ndarray,
    own_frequent: np.ndarray,
    other_frequent: np.ndarray,
    rounds: int = 10,
) -> tuple[np.ndarray, np.ndarray]:
    """A rotation learnt from the known `pairs` `[N, 2]`, and the pairs that it found.

    Self-learning (Artetxe et al., 2018): each round fits the rotation, then pairs the tokens that
    are each other's best match. The score (Conneau et al., 2018) penalizes tokens that are near to
    everything. Only the frequent ids are paired.
    """
    found = pairs[:0]
    own_part, other_part = own.matrix[own_frequent], other.matrix[other_frequent]
    for _ in range(rounds):
        anchors = np.concatenate([pairs, found])
        rotation_DD = rotation(own.matrix[anchors[:, 0]], other.matrix[anchors[:, 1]])
        cosines = (own_part @ rotation_DD) @ other_part.T
        scores = 2 * cosines - _nearness(cosines)[:, None] - _nearness(cosines.T)[None]
        chosen, back = scores.argmax(1), scores.argmax(0)
        mutual = np.flatnonzero(back[chosen] == np.arange(len(chosen)))
        found = np.stack([own_frequent[mutual], other_frequent[chosen[mutual]]], 1)
    return rotation_DD, found


def _nearness(cosines: np.ndarray, neighbours: int = 10) -> np.ndarray:
    """The mean similarity of each row to its nearest neighbours."""
    number = min(neighbours, cosines.shape[1])
    return np.asarray(np.partition(cosines, -number, axis=1)[:, -number:].mean(1))
