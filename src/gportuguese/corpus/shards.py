"""Shards: the documents of one piece of work as lines, and a summary as the last line.

A line is two JSON objects with a tab between them: what finding copies needs, then the document. Each of
the two passes over the shards reads its own half.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from gportuguese.config import CorpusConfig
from gportuguese.corpus.cleaning import Document
from gportuguese.corpus.duplicates import band_keys, fingerprint


def shard_path(shards: Path, number: int) -> Path:
    """Where the shard of a piece is or will be."""
    return shards / f"{number:06d}.jsonl"


def shard_line(document: Document, section: CorpusConfig) -> str:
    """A document as a line, with all that can be worked out apart from the others."""
    keys: dict[str, Any] = {"id": document.id}
    if section.dedup != "off":
        keys["fingerprint"] = fingerprint(document.text)
    if section.dedup == "near":
        keys["keys"] = band_keys(document.text)
    row = {
        **document.__dict__,
        "words": len(document.text.split()),
        "bytes": len(document.text.encode()),
    }
    return f"{json.dumps(keys, ensure_ascii=False)}\t{json.dumps(row, ensure_ascii=False)}"


def read_summary(shard: Path) -> dict[str, Any] | None:
    """The last line of a whole shard; None if there is no shard, or a damaged one."""
    try:
        with shard.open("rb") as file:
            file.seek(max(0, shard.stat().st_size - (1 << 20)))
            summary = json.loads(file.read().rsplit(b"\n", 2)[-2])
    except (FileNotFoundError, ValueError, IndexError):
        return None
    return summary if isinstance(summary, dict) and "pages" in summary else None


def read_keys(shard: Path) -> Iterator[dict[str, Any]]:
    """Id, fingerprint and band keys of each document of a whole shard."""
    return _halves(shard, 0)


def read_documents(shard: Path) -> Iterator[dict[str, Any]]:
    """Each document of a whole shard, with its number of words and bytes."""
    return _halves(shard, 1)


def _halves(shard: Path, which: int) -> Iterator[dict[str, Any]]:
    with shard.open(encoding="utf-8", newline="\n") as file:
        for line in file:
            halves = line.split("\t")
            if len(halves) == 2:  # the last line is the summary
                yield json.loads(halves[which])
