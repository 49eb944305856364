"""Shards: the documents of one piece of work as lines of JSON, and a summary as the last line."""

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
    """A document as a line of JSON, with all that can be worked out apart from the others."""
    row: dict[str, Any] = {
        **document.__dict__,
        "words": len(document.text.split()),
        "bytes": len(document.text.encode()),
    }
    if section.dedup != "off":
        row["fingerprint"] = fingerprint(document.text)
    if section.dedup == "near":
        row["keys"] = band_keys(document.text)
    return json.dumps(row, ensure_ascii=False)


def read_summary(shard: Path) -> dict[str, Any] | None:
    """The last line of a whole shard; None if there is no shard, or a damaged one."""
    try:
        with shard.open("rb") as file:
            file.seek(max(0, shard.stat().st_size - (1 << 20)))
            summary = json.loads(file.read().rsplit(b"\n", 2)[-2])
    except (FileNotFoundError, ValueError, IndexError):
        return None
    return summary if isinstance(summary, dict) and "pages" in summary else None


def read_documents(shard: Path) -> Iterator[dict[str, Any]]:
    """The documents of a whole shard, as `shard_line` wrote them."""
    with shard.open(encoding="utf-8") as file:
        for line in file:
            row = json.loads(line)
            if "text" in row:
                yield row
