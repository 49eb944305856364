"""The evaluation texts of `corpus.exclude`: their files, digest and words."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from gportuguese import hashes
from gportuguese.config import CorpusConfig, sources_of
from gportuguese.corpus.cleaning import Document
from gportuguese.corpus.documents import read_file
from gportuguese.corpus.exclusion import FEWEST_WORDS, NUM_WORDS, RunsOfTexts, Words
from gportuguese.corpus.files import File, local_files
from gportuguese.corpus.pool import CorpusError
from gportuguese.progress import track

log = logging.getLogger("gportuguese")


def exclusion_files(section: CorpusConfig) -> list[File]:
    """The files at `corpus.exclude`; raises `CorpusError` if one is missing."""
    try:
        return [file for each in section.exclude for file in local_files(each)]
    except CorpusError as error:
        raise CorpusError(f"corpus.exclude: {error}") from error


def hash_excluded(section: CorpusConfig) -> str:
    """Digest of formats and contents of the files; order and names do not matter."""
    return hashes.digest_of(
        sorted(
            [file.kind + file.packing, hashes.remembered_hash(Path(file.place))]
            for file in exclusion_files(section)
        )
    )


def check_excluded(section: CorpusConfig) -> None:
    """Raises `CorpusError` for a file without a text."""
    for file in exclusion_files(section):
        if next(_texts(file), None) is None:
            advice = "" if file.kind == ".txt" else "; its rows need a 'text'"
            raise CorpusError(f"corpus.exclude: {file.place} has no text{advice}")


def write_excluded(section: CorpusConfig, folder: Path) -> None:
    """Writes the runs of words of the evaluation texts to a folder, for `Excluded.open`.

    A .txt file is one text, and so is each of its lines. Raises `CorpusError` for a file without a
    text. Texts of fewer than eight words are only counted.
    """
    check_excluded(section)
    files = exclusion_files(section)
    runs = RunsOfTexts()
    num_texts = num_short = 0
    with track("exclude", sum(file.size or 0 for file in files)) as advance:
        for file in files:
            lengths = _add_file(file, runs)
            num_texts += len(lengths)
            num_short += sum(length < FEWEST_WORDS for length in lengths)
            advance(file.size or 0, file.name)
    if num_short:
        log.info(
            "corpus.exclude: %s of %s texts or lines have fewer than %d words and exclude nothing",
            f"{num_short:,}",
            f"{num_texts:,}",
            FEWEST_WORDS,
        )
    runs.save(folder)


def _add_file(file: File, runs: RunsOfTexts) -> list[int]:
    """Adds the texts of a file; returns their numbers of words."""
    lengths = []
    earlier_W = np.empty(0, np.uint64)
    for text in _texts(file):
        hashes_W = Words.of(text).hashes_W
        runs.add(hashes_W)
        lengths.append(len(hashes_W))
        if file.kind == ".txt":  # a sentence may go on in the next line
            joined_W = np.concatenate([earlier_W, hashes_W])
            if len(joined_W) >= NUM_WORDS:
                runs.add(joined_W)
            earlier_W = joined_W[1 - NUM_WORDS :]
    return lengths


def _texts(file: File) -> Iterator[str]:
    section = CorpusConfig(documents=file.place, txt_document="line")
    for _, document in read_file(file, section, sources_of(section)[0]):
        if isinstance(document, Document):
            yield document.text
