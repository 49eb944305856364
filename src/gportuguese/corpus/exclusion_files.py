"""The evaluation texts of `corpus.exclude`: their files, digest and words."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np

from gportuguese import hashes
from gportuguese.config import CorpusConfig
from gportuguese.corpus.cleaning import Document
from gportuguese.corpus.documents import KINDS, document_files, read_file
from gportuguese.corpus.exclusion import FEWEST_WORDS, NUM_WORDS, RunsOfTexts, Words
from gportuguese.corpus.pool import CorpusError
from gportuguese.progress import track

log = logging.getLogger("gportuguese")


def exclusion_files(section: CorpusConfig) -> list[Path]:
    """The files at `corpus.exclude`; raises `CorpusError` if one is missing."""
    try:
        readers = [CorpusConfig(documents=each) for each in section.exclude]
        return [path for reader in readers for path in document_files(reader)]
    except CorpusError as error:
        raise CorpusError(f"corpus.exclude: {error}") from error


def hash_excluded(section: CorpusConfig) -> str:
    """Digest of formats and contents of the files; order and names do not matter."""
    kinds = {
        path: next(kind for kind in KINDS if path.name.lower().endswith(kind))
        for path in exclusion_files(section)
    }
    return hashes.digest_of(
        sorted([kind, hashes.remembered_hash(path)] for path, kind in kinds.items())
    )


def write_excluded(section: CorpusConfig, folder: Path) -> None:
    """Writes the runs of words of the evaluation texts for `Excluded.open`.

    A .txt file is one text, and so is each of its lines. Raises `CorpusError` for a file that excludes
    nothing.
    """
    files = exclusion_files(section)
    runs = RunsOfTexts()
    num_texts = num_short = 0
    with track("exclude", sum(path.stat().st_size for path in files)) as advance:
        for path in files:
            lengths = _add_file(path, runs)
            if max(lengths, default=0) < FEWEST_WORDS:
                raise CorpusError(
                    f"corpus.exclude: {path} has no text of at least {FEWEST_WORDS} words; its rows "
                    "need a 'text'"
                )
            num_texts += len(lengths)
            num_short += sum(length < FEWEST_WORDS for length in lengths)
            advance(path.stat().st_size, path.name)
    if num_short:
        log.info(
            "corpus.exclude: %s of %s texts or lines have fewer than %d words and exclude nothing",
            f"{num_short:,}",
            f"{num_texts:,}",
            FEWEST_WORDS,
        )
    runs.save(folder)


def _add_file(path: Path, runs: RunsOfTexts) -> list[int]:
    """Adds the texts of a file; returns their numbers of words."""
    lengths = []
    earlier_W = np.empty(0, np.uint64)
    for document, _ in read_file(path, path.name, CorpusConfig(txt_document="line")):
        if not isinstance(document, Document):
            continue
        hashes_W = Words.of(document.text).hashes_W
        runs.add(hashes_W)
        lengths.append(len(hashes_W))
        if path.name.lower().endswith(".txt"):  # a sentence may go on in the next line
            joined_W = np.concatenate([earlier_W, hashes_W])
            if len(joined_W) >= NUM_WORDS:
                runs.add(joined_W)
            earlier_W = joined_W[1 - NUM_WORDS :]
    return lengths
