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

# hashes are polynomials modulo 2^64 in an odd number, whose powers lose no bits and have inverses
_FACTOR = 0x9E3779B97F4A7C15
_SEVERAL = 0xFFFFFFFF  # marks a character that folds to several, as ß to ss
_USUAL_CHARS = 1 << 16  # of a document; a longer one needs tables of 16 bytes a character
_TABLE_PLACES = 8  # of a prefix in the first, rough look-up, which one in eight others passes
_FILES = "excluded-"


@dataclass(frozen=True)
class Words:
    """The words of a text without case, punctuation and spaces.

    >>> Words.of("O rio — «corre-se», 3 VEZES!").run(0, 6)
    'o rio corre se 3 vezes'
    """

    codes: np.ndarray
    """The code points of the folded text, 0 where there is no word."""
    starts_W: np.ndarray
    ends_W: np.ndarray
    hashes_W: np.ndarray
    """64-bit hashes: equal for equal words, and almost never for others."""

    @classmethod
    def of(cls, text: str) -> Words:
        """Splits a text where there are no letters, digits or marks."""
        codes = _folded_codes(unicodedata.normalize("NFC", text))
        is_word = np.zeros(len(codes) + 2, bool)
        np.not_equal(codes, 0, out=is_word[1:-1])
        starts_W, ends_W = np.flatnonzero(is_word[1:] != is_word[:-1]).reshape(-1, 2).T
        powers, inverses = _powers(max(_USUAL_CHARS, len(codes)))
        sums = np.zeros(len(codes) + 1, np.uint64)
        np.cumsum(codes * powers[: len(codes)], out=sums[1:])
        # of a word's own characters, as if the text began with it
        hashes_W = (sums[ends_W] - sums[starts_W]) * inverses[starts_W]
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


def _folded_codes(text: str) -> np.ndarray:
    """The code points of the folded text, uint32; 0 for characters that belong to no word."""
    codes = _folding().take(np.frombuffer(text.encode("utf-32-le"), np.uint32))
    return _folded_codes(text.casefold()) if codes.max(initial=0) == _SEVERAL else codes


@functools.cache
def _folding() -> np.ndarray:
    """The folded form of each code point, uint32.

    0 unless it is a letter, a digit or a mark, such as the vowel signs of Hindi. A look-up takes a
    quarter of the time of `str.casefold`.
    """
    characters = [chr(code) for code in range(0x110000)]
    categories = "".join(map(unicodedata.category, characters))
    is_of_word = np.isin(np.frombuffer(categories.encode(), "S1")[::2], [b"L", b"N", b"M"])
    table = np.arange(len(characters), dtype=np.uint32) * is_of_word
    for code, character in enumerate(characters):
        if (folded := character.casefold()) != character:
            table[code] = table[ord(folded)] if len(folded) == 1 else _SEVERAL
    return table


@functools.lru_cache(maxsize=2)  # for most documents, and for the last long one
def _powers(number: int) -> tuple[np.ndarray, np.ndarray]:
    """Powers of `_FACTOR` from the first, and of its inverse from the zeroth, uint64 `[number]` each."""
    factors = np.full((2, number), _FACTOR, np.uint64)
    factors[1] = pow(_FACTOR, -1, 1 << 64)
    factors[1, 0] = 1
    powers, inverses = np.cumprod(factors, axis=1, out=factors)
    return powers, inverses


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
    def open(cls, folder: Path | None) -> Excluded | None:
        """What `RunsOfTexts` saved, memory-mapped; None if there is nothing."""
        if folder is None:
            return None
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
    for place, factor in enumerate(_powers(_USUAL_CHARS)[0][:num_words]):
        sums_N += factor * hashes_W[place : place + num_runs]
    return sums_N
