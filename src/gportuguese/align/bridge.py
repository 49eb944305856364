"""`bridge`: predicts each row from how its token is used, with a regression fitted on source tokens.

Developed in this project. It trains static vectors on the tokenized text of each language and rotates the
target's vectors onto the source's. The rotation starts from literals (digits, punctuation, names) and, if
given, a dictionary. It then learns from pairs that it finds itself: "foi" with "was", or the ending "ção"
with "ation", which no dictionary lists. A ridge regression learns to predict source rows from the vector,
form and frequency of their tokens, then predicts a row for every target token.

FOCUS and WECHSEL average a few neighbours, which blurs the differences between them. The regression keeps
every direction of meaning in the model's rows. It also uses the frequency, because a row of a tied model
says how likely its token is.

Only literals are copied: other tokens with the same spelling are used differently in the two languages.
"""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass

import numpy as np

from gportuguese.align.rows import Filler, Vocabularies
from gportuguese.align.vectors import (
    Sentences,
    TooLittleError,
    Vectors,
    counts_of,
    learn_rotation,
    train_vectors,
)

log = logging.getLogger("gportuguese")

_EPOCHS, _MIN_COUNT = 5, 5
_MIN_TOKENS = 20  # with vectors; fewer are not enough to fit a map
_MAX_REPEATS = 3  # of a source corpus that is smaller than the target's
_MAX_FREQUENT = 1500  # only the most frequent tokens of each language are paired
_RIDGES = (1e-3, 1e-2, 0.03, 0.1, 0.3, 1.0)  # fractions of a feature's mean variance


@dataclass(frozen=True)
class Spaces:
    """Features of the tokens of both languages, `[V, F]` each: vectors in one space, then forms."""

    target: np.ndarray
    target_known: np.ndarray
    source: np.ndarray
    source_known: np.ndarray
    source_counts: np.ndarray


def filler(spaces: Spaces) -> Filler:
    """The regression as a filler; tokens too rare for a vector get no row."""

    def rows(source_VD: np.ndarray) -> np.ndarray:
        return predicted_rows(spaces, source_VD)

    return Filler("bridge", spaces.target_known, rows)


def predicted_rows(spaces: Spaces, source_VD: np.ndarray) -> np.ndarray:
    """Predicts target rows by ridge regression; source tokens are weighted by the root of their count.

    Chooses the ridge with the lowest leave-one-out error.
    """
    known = spaces.source_known
    inputs, centre = spaces.source[known].astype(np.float64), source_VD.mean(0)
    # the fourth root of the count: squaring the errors turns it into the square root
    scale = spaces.source_counts[known][:, None] ** 0.25
    weighted, wanted = inputs * scale, (source_VD[known] - centre) * scale
    gram, moments = weighted.T @ weighted, weighted.T @ wanted
    best_error, best = np.inf, np.zeros_like(moments)
    for ridge in _RIDGES:
        inverse = np.linalg.inv(gram + ridge * np.trace(gram) / len(gram) * np.eye(len(gram)))
        map_FD = inverse @ moments
        leverage = ((weighted @ inverse) * weighted).sum(1)
        left_out = (wanted - weighted @ map_FD) / (1 - leverage)[:, None]
        error = float((left_out**2).sum())
        if error < best_error:
            best_error, best = error, map_FD
    return np.asarray(centre + spaces.target @ best, source_VD.dtype)


def forms_of(tokens: list[bytes], counts: np.ndarray) -> np.ndarray:
    """Features of tokens that do not depend on the language; float64 `[V, 6]`.

    Log frequency and its square; leading space; capital; only letters; log length in characters.

    >>> forms_of([b" Lisboa"], np.array([3])).round(2).tolist()
    [[0.0, 0.0, 1.0, 1.0, 1.0, 1.95]]
    """
    log_frequency = np.log(np.maximum(counts, 0.5) / max(counts.sum(), 1))
    words = [token.decode(errors="ignore") for token in tokens]
    shapes = [
        (
            word.startswith(" "),
            word.strip()[:1].isupper(),
            word.strip().isalpha(),
            math.log1p(len(word.strip())),
        )
        for word in words
    ]
    return np.column_stack([log_frequency, log_frequency**2, np.array(shapes, np.float64)])


def make_spaces(
    vocabularies: Vocabularies,
    target: Sentences,
    source: Sentences,
    dictionary: list[tuple[str, str]],
    seed: int,
) -> Spaces:
    """Trains vectors on both corpora, rotates the target's onto the source's and appends the forms."""
    num_target, num_source = vocabularies.shape
    target_counts, source_counts = counts_of(target, num_target), counts_of(source, num_source)
    own = train_vectors(target, num_target, seed, _EPOCHS, _MIN_COUNT)
    # a smaller source corpus gets more epochs
    repeats = round(target_counts.sum() / max(source_counts.sum(), 1))
    repeats = int(np.clip(repeats, 1, _MAX_REPEATS))
    other = train_vectors(source, num_source, seed, repeats * _EPOCHS, _MIN_COUNT)
    fewest = min(int(own.known.sum()), int(other.known.sum()))
    pairs = anchors(vocabularies, dictionary, own, other)
    if fewest < _MIN_TOKENS or not len(pairs):
        raise TooLittleError(
            f"too little text for vectors: in one language {fewest} tokens occur at least {_MIN_COUNT} "
            f"times ({_MIN_TOKENS} are needed), and {len(pairs)} pairs of tokens are known to match "
            "(1 is needed); add documents or a dictionary, or set align.method=pieces"
        )
    log.info("align: mapping the languages, starting from %d pairs of tokens", len(pairs))
    own, other = own.centred(), other.centred()
    rotation_DD, _ = learn_rotation(
        own,
        other,
        pairs,
        _most_frequent(target_counts, own),
        _most_frequent(source_counts, other),
    )
    target_forms = forms_of(vocabularies.target_tokens, target_counts)
    source_forms = forms_of(vocabularies.source_tokens, source_counts)
    # centre each form and scale it like a vector's dimension; otherwise the ridge would favour some
    seen = source_forms[other.known]
    width = other.matrix[other.known].std() / np.maximum(seen.std(0), 1e-9)
    return Spaces(
        np.hstack([own.matrix @ rotation_DD, (target_forms - seen.mean(0)) * width]),
        own.known,
        np.hstack([other.matrix, (source_forms - seen.mean(0)) * width]),
        other.known,
        source_counts,
    )


def anchors(
    vocabularies: Vocabularies, dictionary: list[tuple[str, str]], own: Vectors, other: Vectors
) -> np.ndarray:
    """Pairs `(target id, source id)` that mean the same and have vectors, `[N, 2]`.

    They are literals with the same bytes, and dictionary entries that are one token in both languages.
    """
    literal_ids = vocabularies.literal_ids
    pairs = {(int(row), int(literal_ids[row])) for row in np.flatnonzero(literal_ids >= 0)}
    target_by_bytes = {token: id for id, token in enumerate(vocabularies.target_tokens)}
    source_by_bytes = {token: id for id, token in enumerate(vocabularies.source_tokens)}
    for source_word, target_word in dictionary:
        for form in (str.lower, str.capitalize):
            row = target_by_bytes.get(f" {form(target_word)}".encode())
            id = source_by_bytes.get(f" {form(source_word)}".encode())
            if row is not None and id is not None:
                pairs.add((row, id))
    found = np.array(sorted(pairs), np.int64).reshape(-1, 2)
    return np.asarray(found[own.known[found[:, 0]] & other.known[found[:, 1]]])


def _most_frequent(counts: np.ndarray, vectors: Vectors) -> np.ndarray:
    ids = np.argsort(-counts, kind="stable")
    return np.asarray(ids[vectors.known[ids]][:_MAX_FREQUENT])
