"""Documents that share a run of words with given evaluation texts (`corpus.exclude`).

The test is that of GPT-3 (Brown et al., 2020, appendix C): 13 words in a row, whatever their case,
punctuation and spaces. A text of 8 to 12 words is found as a whole. Shorter texts exclude nothing, because
such runs are shared by chance.

Shapes: W words, N runs.
"""

from __future__ import annotations

import functools
import unicodedata
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from gportuguese.corpus.cleaning import Document, Dropped

NUM_WORDS = 13
FEWEST_WORDS = 8
REASON = "shares text with corpus.exclude"

# powers of an odd number modulo 2^64: the factors of a polynomial, which lose no bits
_FACTORS = np.array([pow(0x9E3779B97F4A7C15, n, 1 << 64) for n in range(1, 129)], np.uint64)
_TABLE_PLACES = 8  # of a run in the first, rough look-up, which one other run in eight passes


@dataclass(frozen=True)
class Words:
    """The words of a text without case, punctuation and spaces.

    >>> Words.of("O rio — «corre-se», 3 VEZES!").run(0, 6)
    'o rio corre se 3 vezes'
    """

    codes: np.ndarray
    """The code points of the folded text."""
    starts_W: np.ndarray
    ends_W: np.ndarray
    hashes_W: np.ndarray
    """64-bit hashes: equal for equal words, and almost never for others."""

    @classmethod
    def of(cls, text: str) -> Words:
        """Splits a text where there are no letters, digits or marks."""
        folded = unicodedata.normalize("NFC", text).casefold()
        codes = np.frombuffer(folded.encode("utf-32-le"), np.uint32)
        is_word = np.zeros(len(codes) + 2, bool)
        is_word[1:-1] = _is_of_word()[codes]
        starts_W, ends_W = np.flatnonzero(is_word[1:] != is_word[:-1]).reshape(-1, 2).T
        if not len(starts_W):
            return cls(codes, starts_W, ends_W, np.empty(0, np.uint64))
        first = starts_W[0]  # what is no word counts as zeros at the end of the word before it
        places = np.arange(first, len(codes)) - np.repeat(
            starts_W, np.diff(starts_W, append=len(codes))
        )
        terms = (codes * is_word[1:-1])[first:] * _FACTORS[places & 127]
        hashes_W = np.add.reduceat(terms, starts_W - first)
        return cls(codes, starts_W, ends_W, hashes_W ^ (hashes_W >> np.uint64(32)))

    def __len__(self) -> int:
        return len(self.hashes_W)

    def run(self, first: int, num_words: int) -> str:
        """Some of the words as text."""
        places = slice(first, first + num_words)
        return " ".join(
            self.codes[start:end].tobytes().decode("utf-32-le")
            for start, end in zip(self.starts_W[places], self.ends_W[places], strict=True)
        )


@functools.cache
def _is_of_word() -> np.ndarray:
    """Whether a code point is a letter, a digit or a mark, such as the vowel signs of Hindi."""
    return np.array([unicodedata.category(chr(code))[0] in "LNM" for code in range(0x110000)])


@dataclass(frozen=True)
class Excluded:
    """The runs of words of the evaluation texts."""

    runs: dict[int, np.ndarray]
    """By number of words: their 64-bit hashes, sorted, uint64 `[N]`."""
    tables: dict[int, np.ndarray]
    """By number of words: whether a run's hash begins with the bits of a place, bool. A look-up here takes
    a tenth of the time of a search."""

    @classmethod
    def open(cls, folder: Path) -> Excluded | None:
        """The runs that `RunsOfTexts` saved, memory-mapped; None if there are none."""
        lengths = [
            n for n in range(FEWEST_WORDS, NUM_WORDS + 1) if _path(folder, n, "table").exists()
        ]
        runs, tables = (
            {n: np.load(_path(folder, n, kind), mmap_mode="r") for n in lengths}
            for kind in ("runs", "table")
        )
        return cls(runs, tables) if lengths else None

    def checked(self, document: Document) -> Document | Dropped:
        """The document, or why it is dropped."""
        shared = self.shared_run(document.text)
        return Dropped(document.id, document.title, REASON, shared) if shared else document

    def shared_run(self, text: str) -> str | None:
        """A run of words that a text shares with the evaluation texts; None if there is none."""
        words = Words.of(text)
        for num_words, hashes_N in _hashed_runs(words.hashes_W, self.runs):
            known, table = self.runs[num_words], self.tables[num_words]
            maybe = np.flatnonzero(table[_places(hashes_N, table)])
            found = np.minimum(np.searchsorted(known, hashes_N[maybe]), len(known) - 1)
            shared = maybe[known[found] == hashes_N[maybe]]
            if len(shared):
                return words.run(int(shared[0]), num_words)
        return None


class RunsOfTexts:
    """Collects the runs of words of evaluation texts. Memory is eight bytes per word."""

    def __init__(self) -> None:
        self.runs: dict[int, list[np.ndarray]] = {}

    def add(self, hashes_W: np.ndarray) -> None:
        """Adds a text: all its runs of 13 words, or the whole text if it has 8 to 12."""
        length = min(len(hashes_W), NUM_WORDS)
        if length >= FEWEST_WORDS:
            for _, hashes_N in _hashed_runs(hashes_W, (length,)):
                self.runs.setdefault(length, []).append(hashes_N)

    def save(self, folder: Path) -> None:
        """Writes the runs for `Excluded.open`."""
        for num_words, found in self.runs.items():
            hashes_N = np.unique(np.concatenate(found))
            table = np.zeros(1 << (_TABLE_PLACES * len(hashes_N)).bit_length(), bool)
            table[_places(hashes_N, table)] = True
            np.save(_path(folder, num_words, "runs"), hashes_N)
            np.save(_path(folder, num_words, "table"), table)


def _places(hashes_N: np.ndarray, table: np.ndarray) -> np.ndarray:
    """The places of hashes in a table, whose length is a power of two: their first bits."""
    return hashes_N >> np.uint64(64 - (len(table).bit_length() - 1))


def _path(folder: Path, num_words: int, kind: str) -> Path:
    return folder / f"excluded-{num_words}-{kind}.npy"


def _hashed_runs(
    hashes_W: np.ndarray, lengths: Collection[int]
) -> Iterator[tuple[int, np.ndarray]]:
    """For each length, the hashes of all runs of so many words: a polynomial in theirs."""
    sums_N = np.zeros(len(hashes_W) + 1, np.uint64)
    for num_words, factor in enumerate(_FACTORS[: min(len(hashes_W), max(lengths))], start=1):
        sums_N = sums_N[:-1] + factor * hashes_W[num_words - 1 :]
        if num_words in lengths:
            yield num_words, sums_N
