"""`focus`: rows mixed from shared tokens that are used similarly in the target language.

After FOCUS (Dobler & de Melo, 2023): CBOW vectors of the tokenized target corpus, then sparsemax over the
sharpened similarities to the shared tokens. Tokens are compared as bytes, so a token that is not valid
UTF-8 does not become U+FFFD. Needs no text in the source language.
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
    """Sparsemax mixtures of shared tokens; shared and rare tokens get no row.

    Multiplies the similarities by `sharpness` first; a higher value mixes fewer tokens.
    """
    num_target, _ = vocabularies.shape
    vectors = train_vectors(target, num_target, seed, _EPOCHS, _MIN_COUNT)
    shared = np.flatnonzero((vocabularies.source_ids >= 0) & vectors.known)
    source_ids = vocabularies.source_ids[shared]
    rows, columns, values = [], [], []
    unshared = np.flatnonzero((vocabularies.source_ids < 0) & vectors.known)
    wanted = unshared if len(shared) else shared
    for start in range(0, len(wanted), 1024):  # in slices, to limit memory
        part = wanted[start : start + 1024]
        mixtures = sparsemax(sharpness * vectors.matrix[part] @ vectors.matrix[shared].T)
        row, column = mixtures.nonzero()
        rows += part[row].tolist()
        columns += source_ids[column].tolist()
        values += mixtures[row, column].tolist()
    entries = (np.array(values, np.float32), (rows, columns))
    return mixed("focus", csr_array(entries, shape=vocabularies.shape))


def sparsemax(scores: np.ndarray) -> np.ndarray:
    """The point of the simplex nearest to each row (Martins & Astudillo, 2016); mostly zeros.

    >>> sparsemax(np.array([[1.0, 0.5, -1.0]])).tolist()
    [[0.75, 0.25, 0.0]]
    """
    ordered = -np.sort(-scores, axis=1)
    sums = np.cumsum(ordered, axis=1)
    ranks = np.arange(1, scores.shape[1] + 1)
    support = (1 + ranks * ordered > sums).sum(1)
    thresholds = (sums[np.arange(len(scores)), support - 1] - 1) / support
    return np.asarray(np.maximum(scores - thresholds[:, None], 0), scores.dtype)
