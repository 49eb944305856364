"""`wechsel`: rows mixed from the nearest source tokens in a space aligned with a dictionary.

After WECHSEL (Minixhofer et al., 2022): word vectors of each language, the source's rotated onto the
target's by Procrustes over a bilingual dictionary, then softmax(cos / 0.1) over ten neighbours. A token's
vector is the mean of the words it occurs in, weighted by count, so " casa" and "casa" stay different.
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
from gportuguese.tokenizer import num_ids, plain_backend

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_NEIGHBOURS, _TEMPERATURE = 10, 0.1
_MAX_WORDS = 200_000
_EPOCHS, _MIN_COUNT = 5, 5
_WORD = re.compile(r"[^\W\d_]+")


@dataclass(frozen=True)
class Words:
    """The counts of a corpus's words as written, and the vectors of their lower-case forms."""

    counts: Counter[str]
    indices: dict[str, int]
    vectors: Vectors


def filler(
    vocabularies: Vocabularies, target: Words, source: Words, dictionary: list[tuple[str, str]]
) -> Filler:
    """Softmax mixtures of each token's neighbours; a token in no known word gets no row.

    Raises `TooLittleError` if no dictionary entry has vectors for both of its words.
    """
    pairs = [
        (source.indices[s.lower()], target.indices[t.lower()])
        for s, t in dictionary
        if s.lower() in source.indices and t.lower() in target.indices
    ]
    if not pairs:
        raise TooLittleError(
            "no line of align.dictionary has vectors for both of its words; write 'source<TAB>target' "
            "on each line, with words that occur in the texts or vector files"
        )
    widths = [words.vectors.matrix.shape[1] for words in (source, target)]
    if widths[0] != widths[1]:
        raise AlignError(
            f"align.source_vectors has {widths[0]} dimensions and align.target_vectors {widths[1]}; "
            "use two files with the same number of dimensions, or neither"
        )
    source_rows, target_rows = np.array(pairs).T
    rotation_DD = rotation(source.vectors.matrix[source_rows], target.vectors.matrix[target_rows])
    other = token_vectors(vocabularies.source, source)
    other = Vectors(other.matrix @ rotation_DD, other.known)
    return mixed("wechsel", neighbours(token_vectors(vocabularies.target, target), other))


def neighbours(own: Vectors, other: Vectors) -> csr_array:
    """For each known row of `own`, softmax(cos / 0.1) over its ten nearest rows of `other`."""
    number = min(_NEIGHBOURS, int(other.known.sum()))
    entries: list[list[Any]] = [[], [], []]
    for start in range(0, len(own.matrix), 1024):  # in slices, to limit memory
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
    known = [(word, count) for word, count in words.counts.items() if word.lower() in words.indices]
    encodings = plain_backend(tokenizer).encode_batch(
        [f" {word}" for word, _ in known], add_special_tokens=False
    )
    matrix = np.zeros((num_ids(tokenizer), words.vectors.matrix.shape[1]))
    for (word, count), encoding in zip(known, encodings, strict=True):
        matrix[encoding.ids] += count * words.vectors.matrix[words.indices[word.lower()]]
    return unit_vectors(matrix, np.asarray(matrix.any(1)))


def words_of(
    sentences: Sentences, tokenizer: PreTrainedTokenizerBase, vectors_file: str | None, seed: int
) -> Words:
    """The words of a corpus with vectors from a fastText file or, if None, trained on the corpus."""
    counts: Counter[str] = Counter()
    for words in _texts(sentences, tokenizer):
        counts.update(words)
    counts = Counter(dict(counts.most_common(_MAX_WORDS)))
    lowered = sorted({word.lower() for word in counts})
    if vectors_file is not None:
        return Words(counts, *_read_vectors(resolve_path(vectors_file), lowered))
    indices = {word: index for index, word in enumerate(lowered)}

    def sentences_of_words() -> Iterator[np.ndarray]:
        for words in _texts(sentences, tokenizer):
            yield np.array([indices[w] for word in words if (w := word.lower()) in indices], int)

    vectors = train_vectors(sentences_of_words, len(lowered), seed, _EPOCHS, _MIN_COUNT)
    return Words(counts, {w: p for w, p in indices.items() if vectors.known[p]}, vectors)


def _texts(sentences: Sentences, tokenizer: PreTrainedTokenizerBase) -> Iterator[list[str]]:
    for sentence in sentences():
        yield _WORD.findall(tokenizer.decode(sentence.tolist()))


def _read_vectors(path: Path, words: list[str]) -> tuple[dict[str, int], Vectors]:
    """The vectors that a fastText .vec or .bin file has for these words."""
    from gensim.models import KeyedVectors
    from gensim.models.fasttext import load_facebook_vectors

    try:
        if path.suffix == ".bin":
            vectors = load_facebook_vectors(str(path))
        else:
            vectors = KeyedVectors.load_word2vec_format(str(path), binary=False)
        found = [word for word in words if word in vectors]
        matrix = np.array([vectors[word] for word in found])
    # gensim raises these for a truncated file, another format or a supervised model
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
        raise AlignError(
            f"{path} has no vector for any word of the corpus; use vectors of its language"
        )
    known = np.ones(len(found), bool)
    return {word: index for index, word in enumerate(found)}, unit_vectors(matrix, known)
