"""Documents that share a run of words with given evaluation texts (`corpus.exclude`).

GPT-3 was checked for the same overlap (Brown et al., 2020, appendix C): 13 words in a row, whatever their
case, punctuation and spaces. A text of 8 to 12 words is found as a whole. Shorter texts exclude nothing,
because such runs are shared by chance.

Shapes: W words, N runs.
"""

from __future__ import annotations

import functools
import unicodedata
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from gportuguese.corpus.cleaning import Document, Dropped

NUM_WORDS = 13
FEWEST_WORDS = 8
REASON = "shares text with corpus.exclude"

# powers of an odd number modulo 2^64: the factors of a polynomial, which lose no bits
_FACTORS = np.array([pow(0x9E3779B97F4A7C15, n, 1 << 64) for n in range(1, 129)], np.uint64)
_TABLE_PLACES = 8  # of a prefix in the first, rough look-up, which one in eight others passes
_FILES = "excluded-"


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
        lengths_W = np.diff(starts_W, append=len(codes))
        places = np.arange(first, len(codes), dtype=np.int32)
        places -= np.repeat(starts_W.astype(np.int32), lengths_W)
        terms = _FACTORS[places & 127]
        terms *= (codes * is_word[1:-1])[first:]
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
    categories = "".join(map(unicodedata.category, map(chr, range(0x110000))))
    return np.isin(np.frombuffer(categories.encode(), "S1")[::2], [b"L", b"N", b"M"])


@dataclass(frozen=True)
class Excluded:
    """The runs of words of the evaluation texts."""

    runs: dict[int, np.ndarray]
    """By number of words: the hashes of the runs, sorted, uint64 `[N]`."""
    prefixes: np.ndarray
    """The hashes of their first eight words, sorted, uint64 `[N]`."""
    table: np.ndarray
    """Whether a prefix begins with the bits of a place, bool. A look-up takes a tenth of a search."""

    @classmethod
    def open(cls, folder: Path) -> Excluded | None:
        """What `RunsOfTexts` saved, memory-mapped; None if there is nothing."""
        found = {path.stem: np.load(path, mmap_mode="r") for path in folder.glob(f"{_FILES}*.npy")}
        if not found:
            return None
        prefixes, table = (found.pop(f"{_FILES}{name}") for name in ("prefixes", "table"))
        return cls({int(n.removeprefix(_FILES)): found[n] for n in sorted(found)}, prefixes, table)

    def checked(self, document: Document) -> Document | Dropped:
        """The document, or why it is dropped."""
        shared = self.shared_run(document.text)
        return Dropped(document.id, document.title, REASON, shared) if shared else document

    def shared_run(self, text: str) -> str | None:
        """A run of words that a text shares with the evaluation texts; None if there is none."""
        words = Words.of(text)
        hashes_N = _hashes_of_runs(words.hashes_W, FEWEST_WORDS)
        maybe = np.flatnonzero(self.table[_places(hashes_N, self.table)])
        maybe = maybe[_is_in(hashes_N[maybe], self.prefixes)]
        for num_words, known in self.runs.items() if len(maybe) else ():
            starts = maybe[maybe <= len(words) - num_words]
            hashes = _hashes_of_runs(words.hashes_W, num_words)[starts]
            shared = starts[_is_in(hashes, known)]
            if len(shared):
                return words.run(int(shared[0]), num_words)
        return None


class RunsOfTexts:
    """Collects the runs of words of evaluation texts. Memory is 16 bytes per word."""

    def __init__(self) -> None:
        self.runs: dict[int, list[np.ndarray]] = {}
        self.prefixes: list[np.ndarray] = []

    def add(self, hashes_W: np.ndarray) -> None:
        """Adds a text: all its runs of 13 words, or the whole text if it has 8 to 12."""
        length = min(len(hashes_W), NUM_WORDS)
        if length >= FEWEST_WORDS:
            runs_N = _hashes_of_runs(hashes_W, length)
            self.runs.setdefault(length, []).append(runs_N)
            self.prefixes.append(_hashes_of_runs(hashes_W, FEWEST_WORDS)[: len(runs_N)])

    def save(self, folder: Path) -> None:
        """Writes the runs for `Excluded.open`."""
        for num_words, found in self.runs.items():
            np.save(folder / f"{_FILES}{num_words}.npy", np.unique(np.concatenate(found)))
        if self.prefixes:
            prefixes = np.unique(np.concatenate(self.prefixes))
            table = np.zeros(1 << (_TABLE_PLACES * len(prefixes)).bit_length(), bool)
            table[_places(prefixes, table)] = True
            np.save(folder / f"{_FILES}prefixes.npy", prefixes)
            np.save(folder / f"{_FILES}table.npy", table)


def _places(hashes_N: np.ndarray, table: np.ndarray) -> np.ndarray:
    """The places of hashes in a table, whose length is a power of two: their first bits."""
    return hashes_N >> np.uint64(65 - len(table).bit_length())


def _is_in(hashes: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Whether each hash is among the known ones, which are sorted."""
    places = np.minimum(np.searchsorted(known, hashes), len(known) - 1)
    return np.asarray(known[places] == hashes)


def _hashes_of_runs(hashes_W: np.ndarray, num_words: int) -> np.ndarray:
    """The hashes of all runs of so many words, uint64 `[W - num_words + 1]`: a polynomial in theirs."""
    num_runs = max(len(hashes_W) - num_words + 1, 0)
    sums_N = np.zeros(num_runs, np.uint64)
    for place, factor in enumerate(_FACTORS[:num_words]):
        sums_N += factor * hashes_W[place : place + num_runs]
    return sums_N
