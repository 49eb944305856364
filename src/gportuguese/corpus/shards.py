"""Shards: one file per piece of work, with a document per line and a summary as the last line.

A document's line is two JSON objects separated by a tab: its keys for finding duplicates, then the
document. Duplicates are searched in the first half, splits are written from the second.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from gportuguese.atomic import replacing
from gportuguese.config import CorpusConfig
from gportuguese.corpus.cleaning import Document, Dropped
from gportuguese.corpus.duplicates import band_keys, fingerprint
from gportuguese.corpus.exclusion import Excluded

DROPPED_SAMPLES = 20  # per reason and shard, for people to read


class ShardWriter:
    """Collects the results of a piece, then writes its shard at once."""

    def __init__(self, section: CorpusConfig, excluded: Excluded | None = None) -> None:
        self.section, self.excluded, self.lines = section, excluded, list[str]()
        self.num_results = self.num_bytes = 0
        self.dropped: Counter[str] = Counter()
        self.samples: list[dict[str, str]] = []

    def add(self, result: Document | Dropped) -> None:
        """Adds a document, or counts one that was dropped or shares text with `corpus.exclude`."""
        self.num_results += 1
        if isinstance(result, Document) and self.excluded:
            result = self.excluded.checked(result)
        if isinstance(result, Document):
            num_bytes = len(result.text.encode())
            self.num_bytes += num_bytes
            self.lines.append(_line(result, num_bytes, self.section))
            return
        self.dropped[result.reason] += 1
        if self.dropped[result.reason] <= DROPPED_SAMPLES:
            shown = {key: value for key, value in vars(result).items() if value is not None}
            self.samples.append(shown)

    def write(self, path: Path, **facts: Any) -> dict[str, Any]:
        """Writes the shard; returns its summary, which includes `facts`."""
        summary = {
            "pages": self.num_results,
            "documents": len(self.lines),
            "bytes": self.num_bytes,
            "dropped": self.dropped,
            "samples": self.samples,
            **facts,
        }
        lines = [*self.lines, json.dumps(summary, ensure_ascii=False), ""]
        with replacing(path) as scratch:
            scratch.write_text("\n".join(lines), encoding="utf-8")
        return summary


def shard_path(shards: Path, number: int) -> Path:
    """The path of the shard of a piece."""
    return shards / f"{number:06d}.jsonl"


def _line(document: Document, num_bytes: int, section: CorpusConfig) -> str:
    keys: dict[str, Any] = {"id": document.id}
    if section.dedup != "off":
        keys["fingerprint"] = fingerprint(document.text)
    if section.dedup == "near":
        keys["keys"] = band_keys(document.text)
    row = {**document.__dict__, "words": len(document.text.split()), "bytes": num_bytes}
    return f"{json.dumps(keys, ensure_ascii=False)}\t{json.dumps(row, ensure_ascii=False)}"


def read_summary(shard: Path) -> dict[str, Any] | None:
    """The summary of a shard; None if it is missing, damaged, or from before bytes were counted."""
    try:
        with shard.open("rb") as file:
            file.seek(max(0, shard.stat().st_size - (1 << 20)))
            summary = json.loads(file.read().rsplit(b"\n", 2)[-2])
    except (FileNotFoundError, ValueError, IndexError):
        return None
    is_whole = isinstance(summary, dict) and summary.keys() >= {"pages", "documents", "bytes"}
    return summary if is_whole else None


def read_keys(shard: Path) -> Iterator[dict[str, Any]]:
    """Yields id, fingerprint and band keys of each document."""
    return _halves(shard, 0)


def read_documents(shard: Path) -> Iterator[dict[str, Any]]:
    """Yields each document, with its number of words and bytes."""
    return _halves(shard, 1)


def _halves(shard: Path, which: int) -> Iterator[dict[str, Any]]:
    with shard.open(encoding="utf-8", newline="\n") as file:
        for line in file:
            halves = line.split("\t")
            if len(halves) == 2:  # the summary has no tab
                yield json.loads(halves[which])
