"""`focus`: rows mixed from shared tokens that occur as the token does in the target language.

After FOCUS (Dobler & de Melo, 2023): CBOW vectors of the tokenized target corpus, sparsemax over the
similarities to the shared tokens, made sharper. On bytes: a token that is no valid UTF-8 alone is itself, not
U+FFFD. Needs no text in the source language.
"""

from __future__ import annotations

import numpy as np
from scipy.sparse import csr_array

from gportuguese.align.rows import Filler, Vocabularies, mixed
from gportuguese.align.vectors import Sentences, train_vectors

_EPOCHS, _MIN_COUNT = 3, 10


def filler(
    vocabularies: Vocabularies, target: Sentences, seed: int, sharpness: float = 1.0
) -> Filler:
    """Sparsemax mixtures of shared tokens; it has no row for these themselves, nor for a rare one.

    Similarities are multiplied by `sharpness` first: the more, the fewer tokens are mixed.
    """
    num_target, _ = vocabularies.shape
    vectors = train_vectors(target, num_target, seed, _EPOCHS, _MIN_COUNT)
    shared = np.flatnonzero((vocabularies.source_ids >= 0) & vectors.known)
    source_ids = vocabularies.source_ids[shared]
    rows, columns, values = [], [], []
    unshared = np.flatnonzero((vocabularies.source_ids < 0) & vectors.known)
    wanted = unshared if len(shared) else shared
    for start in range(0, len(wanted), 1024):  # a slice of similarities in memory at a time
        part = wanted[start : start + 1024]
        mixtures = sparsemax(sharpness * vectors.matrix[part] @ vectors.matrix[shared].T)
        row, column = mixtures.nonzero()
        rows += part[row].tolist()
        columns += source_ids[column].tolist()
        values += mixtures[row, column].tolist()
    entries = (np.array(values, np.float32), (rows, columns))
    return mixed("focus", csr_array(entries, shape=vocabularies.shape))


def sparsemax(scores: np.ndarray) -> np.ndarray:
    """The point of the simplex nearest to each row (Martins & Astudillo, 2016), mostly zeros.

    >>> sparsemax(np.array([[1.0, 0.5, -1.0]])).tolist()
    [[0.75, 0.25, 0.0]]
    """
    ordered = -np.sort(-scores, axis=1)
    sums = np.cumsum(ordered, axis=1)
    places = np.arange(1, scores.shape[1] + 1)
    support = (1 + places * ordered > sums).sum(1)
    thresholds = (sums[np.arange(len(scores)), support - 1] - 1) / support
    return np.asarray(np.maximum(scores - thresholds[:, None], 0), scores.dtype)
