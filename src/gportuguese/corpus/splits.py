"""The splits of a corpus: written from shards without duplicates across them, and read back."""

from __future__ import annotations

import hashlib
import json
from array import array
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from gportuguese.artifacts import Artifact
from gportuguese.config import CorpusConfig
from gportuguese.corpus.duplicates import NUM_BANDS, clusters
from gportuguese.corpus.shards import DROPPED_SAMPLES, read_documents, read_keys

if TYPE_CHECKING:
    import pyarrow.parquet as pq

Split = Literal["train", "valid", "test"]
SPLITS: tuple[Split, ...] = ("train", "valid", "test")
_COLUMNS = ("id", "title", "text")
_SOURCE = "source"
_ROW_GROUP_DOCUMENTS = 1000


def split_of(document_id: str, section: CorpusConfig) -> Split:
    """The split of a document, by the SHA-256 of its id: order and machine do not matter."""
    bucket = int.from_bytes(hashlib.sha256(document_id.encode()).digest()[:8], "big") % 1000
    if bucket < section.valid_per_mille:
        return "valid"
    return "test" if bucket < section.valid_per_mille + section.test_per_mille else "train"


def load(
    artifact: Artifact, split: Split, batch_size: int = 256, source: str | None = None
) -> Iterator[list[str]]:
    """Yields the texts of a split in order, at most `batch_size` at a time.

    With `source`, only those of the source of that name; the texts of others are not read, except in
    row groups that hold both.
    """
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    with pq.ParquetFile(artifact.folder / f"{split}.parquet") as file:
        if source is None or _SOURCE not in file.schema_arrow.names:
            for batch in file.iter_batches(batch_size=batch_size, columns=["text"]):
                yield batch.column("text").to_pylist()
            return
        groups = _groups_with(file, source)
        for batch in file.iter_batches(batch_size, groups, columns=["text", _SOURCE]):
            batch = batch.filter(pc.equal(batch.column(_SOURCE), source))
            if len(batch):
                yield batch.column("text").to_pylist()


def _groups_with(file: pq.ParquetFile, source: str) -> list[int]:
    """The row groups that may hold documents of a source, by the bounds that each states."""
    column = file.schema_arrow.names.index(_SOURCE)
    bounds = [
        file.metadata.row_group(number).column(column).statistics
        for number in range(file.num_row_groups)
    ]
    return [
        number
        for number, bound in enumerate(bounds)
        if bound is None or not bound.has_min_max or bound.min <= source <= bound.max
    ]


def rows_of(artifact: Artifact, split: Split, source: str) -> np.ndarray:
    """The places of a source's documents in a split, in order; int64."""
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    table = pq.read_table(artifact.folder / f"{split}.parquet", columns=[_SOURCE])
    return np.flatnonzero(pc.equal(table[_SOURCE], source).to_numpy())


def titles(artifact: Artifact, split: Split, places: list[int]) -> list[str]:
    """`title (id)` of the documents at some places of a split."""
    import pyarrow.parquet as pq

    table = pq.read_table(artifact.folder / f"{split}.parquet", columns=["title", "id"])
    rows = table.take(places).to_pylist()
    return [f"{row['title']} ({row['id']})" for row in rows]


@dataclass(frozen=True)
class Reading:
    """A source that has been read: its documents, and what was counted."""

    name: str
    paths: list[Path]
    """Its shards, in order."""
    summaries: list[dict[str, Any]]
    """Those of the shards."""
    num_documents: int | None = None
    """How many documents of the shards to take; None takes all."""
    num_beyond: int = 0
    """How many it leaves."""
    facts: dict[str, Any] = field(default_factory=dict)
    """What else was found."""


def write_splits(readings: list[Reading], section: CorpusConfig, out: Path) -> dict[str, Any]:
    """Writes the documents to `train|valid|test.parquet`; returns counts, also for each source.

    Of exact copies only the first is kept. Near-duplicates are all kept, in the first one's split.
    The split depends on the id within the source: a later source moves a document of the first only by
    a near-duplicate that links it to another. With several sources, `<source>/` is put before the ids, and a column holds the source.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    copies, ids, keys, owners = _find_copies(readings, section)
    first = clusters(np.frombuffer(keys, np.uint64).reshape(-1, NUM_BANDS))
    is_mixed = len(readings) > 1
    schema = pa.schema([(name, pa.string()) for name in (*_COLUMNS, *[_SOURCE] * is_mixed)])
    counts = [Counts() for _ in readings]
    num_copies = place = 0
    writers = {split: pq.ParquetWriter(out / f"{split}.parquet", schema) for split in SPLITS}
    pending: dict[Split, list[dict[str, str]]] = {split: [] for split in SPLITS}
    try:
        with (out / "dropped.jsonl").open("a", encoding="utf-8") as samples:
            for number, (source, row) in enumerate(_rows(readings, read_documents)):
                own_id = row["id"]
                if is_mixed:
                    name = readings[source].name
                    row |= {"id": f"{name}/{own_id}", _SOURCE: name}
                if number in copies:
                    counts[source].copies += 1
                    num_copies += 1
                    if num_copies <= DROPPED_SAMPLES:
                        sample = {
                            "id": row["id"], "title": row["title"], "reason": "exact duplicate"
                        }  # fmt: skip
                        samples.write(json.dumps(sample, ensure_ascii=False) + "\n")
                    continue
                split = split_of(ids[first[place]] if len(first) else own_id, section)
                place += 1
                counts[source].add(split, row)
                pending[split].append(row)
                if len(pending[split]) == _ROW_GROUP_DOCUMENTS:
                    _flush(writers[split], pending[split], schema)
        for split in SPLITS:
            _flush(writers[split], pending[split], schema)
    finally:
        for writer in writers.values():
            writer.close()
    sizes = np.bincount(first) if len(first) else np.zeros(0, int)
    near = {
        "clusters": int((sizes > 1).sum()),
        "documents": int(sizes[sizes > 1].sum()),
        "largest": int(sizes.max(initial=0)),
    }
    if is_mixed:
        places = np.frombuffer(owners, np.uint32)
        near["across_sources"] = int((places != places[first]).sum()) if len(first) else 0
    return {"near_duplicates": near, "counts": counts}


@dataclass
class Counts:
    """Documents and bytes of a source by split, and its words and exact copies."""

    documents: Counter[Split] = field(default_factory=Counter)
    bytes: Counter[Split] = field(default_factory=Counter)
    words: int = 0
    copies: int = 0

    def add(self, split: Split, row: dict[str, Any]) -> None:
        """Counts a document."""
        self.documents[split] += 1
        self.bytes[split] += row["bytes"]
        self.words += row["words"]


def _rows(
    readings: list[Reading], read: Callable[[Path], Iterable[dict[str, Any]]]
) -> Iterator[tuple[int, dict[str, Any]]]:
    """The place of its source and one half of each document, in order."""
    for source, reading in enumerate(readings):
        rows = (row for path in reading.paths for row in read(path))
        for row in islice(rows, reading.num_documents):
            yield source, row


def _find_copies(
    readings: list[Reading], section: CorpusConfig
) -> tuple[set[int], list[str], array[int], array[int]]:
    """Places of exact copies; ids, band keys (flat) and sources of the documents that are kept."""
    copies: set[int] = set()
    seen: set[str] = set()
    ids: list[str] = []
    keys, owners = array("Q"), array("I")
    if section.dedup == "off":
        return copies, ids, keys, owners
    for number, (source, row) in enumerate(_rows(readings, read_keys)):
        if row["fingerprint"] in seen:
            copies.add(number)
        elif section.dedup == "near":
            ids.append(row["id"])
            keys.extend(row["keys"])
            owners.append(source)
        seen.add(row["fingerprint"])
    return copies, ids, keys, owners


def _flush(writer: pq.ParquetWriter, rows: list[dict[str, str]], schema: Any) -> None:
    import pyarrow as pa

    if rows:
        columns = [[row[name] for row in rows] for name in schema.names]
        writer.write_table(pa.table(columns, schema=schema))
        rows.clear()
