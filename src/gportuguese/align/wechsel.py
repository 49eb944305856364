"""`wechsel`: rows mixed from the source tokens nearest in a space that a dictionary made common.

After WECHSEL (Minixhofer et al., 2022): word vectors of each language, the source's turned onto the
target's by Procrustes over a bilingual dictionary, softmax(cos / 0.1) over ten neighbours. A token's
vector is the mean of the words it occurs in, by their counts, so that " casa" and "casa" keep apart.
"""

from __future__ import annotations

import re
import struct
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.sparse import csr_array

from gportuguese.align.rows import Filler, Vocabularies, mixed
from gportuguese.align.vectors import (
    Sentences,
    TooLittleError,
    Vectors,
    rotation,
    train_vectors,
    unit_vectors,
)
from gportuguese.align_files import AlignError
from gportuguese.config import resolve_path
from gportuguese.tokenizer import plain_backend

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_NEIGHBOURS, _TEMPERATURE = 10, 0.1
_MAX_WORDS = 200_000
_EPOCHS, _MIN_COUNT = 5, 5
_WORD = re.compile(r"[^\W\d_]+")


@dataclass(frozen=True)
class Words:
    """The words of a corpus as they are written, how often, and their vectors by small letters."""

    counts: Counter[str]
    places: dict[str, int]
    vectors: Vectors


def filler(
    vocabularies: Vocabularies, target: Words, source: Words, dictionary: list[tuple[str, str]]
) -> Filler:
    """Softmax mixtures of each token's neighbours; no row for a token that is in no known word.

    Raises `AlignError` if the dictionary has no pair of words that both have vectors.
    """
    pairs = [
        (source.places[s.lower()], target.places[t.lower()])
        for s, t in dictionary
        if s.lower() in source.places and t.lower() in target.places
    ]
    if not pairs:
        raise TooLittleError(
            "no line of align.dictionary has words that both have vectors; it must be "
            "'source<TAB>target' and fit the texts or vectors"
        )
    widths = [words.vectors.matrix.shape[1] for words in (source, target)]
    if widths[0] != widths[1]:
        raise AlignError(
            f"the vectors of align.source_vectors have {widths[0]} dimensions and those of "
            f"align.target_vectors {widths[1]}; give two files that agree, or none"
        )
    source_rows, target_rows = np.array(pairs).T
    turn = rotation(source.vectors.matrix[source_rows], target.vectors.matrix[target_rows])
    theirs = token_vectors(vocabularies.source, source)
    theirs = Vectors(theirs.matrix @ turn, theirs.known)
    return mixed("wechsel", neighbours(token_vectors(vocabularies.target, target), theirs))


def neighbours(own: Vectors, other: Vectors) -> csr_array:
    """softmax(cos / 0.1) over the ten nearest of `other` for each known row of `own`."""
    number = min(_NEIGHBOURS, int(other.known.sum()))
    entries: list[list[Any]] = [[], [], []]
    for start in range(0, len(own.matrix), 1024):  # a slice of similarities in memory at a time
        rows = np.flatnonzero(own.known[start : start + 1024]) + start
        cosines = own.matrix[rows] @ other.matrix.T
        cosines[:, ~other.known] = -np.inf
        nearest = np.argpartition(-cosines, number - 1, axis=1)[:, :number]
        scores = np.take_along_axis(cosines, nearest, axis=1) / _TEMPERATURE
        weights = np.exp(scores - scores.max(1, keepdims=True, initial=-np.inf))
        weights /= weights.sum(1, keepdims=True)
        for values, more in zip(entries, (weights, np.repeat(rows, number), nearest), strict=True):
            values += more.ravel().tolist()
    value, row, column = entries
    return csr_array(
        (np.array(value, np.float32), (row, column)), shape=(len(own.matrix), len(other.matrix))
    )


def token_vectors(tokenizer: PreTrainedTokenizerBase, words: Words) -> Vectors:
    """For each token the mean vector of the words it occurs in, weighted by their counts."""
    known = [(word, count) for word, count in words.counts.items() if word.lower() in words.places]
    encodings = plain_backend(tokenizer).encode_batch(
        [f" {word}" for word, _ in known], add_special_tokens=False
    )
    matrix = np.zeros((len(tokenizer), words.vectors.matrix.shape[1]))
    for (word, count), encoding in zip(known, encodings, strict=True):
        matrix[encoding.ids] += count * words.vectors.matrix[words.places[word.lower()]]
    return unit_vectors(matrix, np.asarray(matrix.any(1)))


def words_of(
    sentences: Sentences, tokenizer: PreTrainedTokenizerBase, vectors_file: str | None, seed: int
) -> Words:
    """The words of a corpus with the vectors of a fastText file, or with vectors trained on them."""
    counts: Counter[str] = Counter()
    for words in _texts(sentences, tokenizer):
        counts.update(words)
    counts = Counter(dict(counts.most_common(_MAX_WORDS)))
    small = sorted({word.lower() for word in counts})
    if vectors_file is not None:
        return Words(counts, *_read_vectors(resolve_path(vectors_file), small))
    places = {word: place for place, word in enumerate(small)}

    def sentences_of_words() -> Iterator[np.ndarray]:
        for words in _texts(sentences, tokenizer):
            yield np.array([places[w] for word in words if (w := word.lower()) in places], int)

    vectors = train_vectors(sentences_of_words, len(small), seed, _EPOCHS, _MIN_COUNT)
    return Words(counts, {w: p for w, p in places.items() if vectors.known[p]}, vectors)


def _texts(sentences: Sentences, tokenizer: PreTrainedTokenizerBase) -> Iterator[list[str]]:
    for sentence in sentences():
        yield _WORD.findall(tokenizer.decode(sentence.tolist()))


def _read_vectors(path: Path, words: list[str]) -> tuple[dict[str, int], Vectors]:
    """Vectors of those words that a .vec or .bin file of fastText has."""
    from gensim.models import KeyedVectors
    from gensim.models.fasttext import load_facebook_vectors

    try:
        if path.suffix == ".bin":
            vectors = load_facebook_vectors(str(path))
        else:
            vectors = KeyedVectors.load_word2vec_format(str(path), binary=False)
        found = [word for word in words if word in vectors]
        matrix = np.array([vectors[word] for word in found]).reshape(len(found), -1)
    # what gensim raises for a file that is cut, of another format, or a supervised model
    except (
        OSError,
        ValueError,
        EOFError,
        NotImplementedError,
        AssertionError,
        struct.error,
    ) as error:
        raise AlignError(f"cannot use the word vectors of {path}: {error}") from error
    if not found:
        raise AlignError(f"{path} has a vector for no word of the corpus; is it this language's?")
    known = np.ones(len(found), bool)
    return {word: place for place, word in enumerate(found)}, unit_vectors(matrix, known)
