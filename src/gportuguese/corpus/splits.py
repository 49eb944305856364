"""The splits of a corpus: written from shards without duplicates across them, and read back."""

from __future__ import annotations

import hashlib
import json
from array import array
from collections import Counter
from collections.abc import Collection, Iterator
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
_ROW_GROUP_DOCUMENTS = 1000


def split_of(document_id: str, section: CorpusConfig) -> Split:
    """The split of a document, by the SHA-256 of its id: order and machine do not matter."""
    bucket = int.from_bytes(hashlib.sha256(document_id.encode()).digest()[:8], "big") % 1000
    if bucket < section.valid_per_mille:
        return "valid"
    return "test" if bucket < section.valid_per_mille + section.test_per_mille else "train"


def load(
    artifact: Artifact, split: Split, batch_size: int = 256, sources: Collection[str] | None = None
) -> Iterator[list[str]]:
    """Yields the texts of a split in order, up to `batch_size` at a time; of all or some sources."""
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    columns = ["text"] if sources is None else ["text", "source"]
    with pq.ParquetFile(artifact.folder / f"{split}.parquet") as file:
        for batch in file.iter_batches(batch_size=batch_size, columns=columns):
            if sources is not None:
                batch = batch.filter(pc.is_in(batch["source"], pa.array(sources)))
            if len(batch):
                yield batch.column("text").to_pylist()


def rows_of(artifact: Artifact, split: Split, source: str) -> np.ndarray:
    """The places of a source's documents in a split, in order; int64."""
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    table = pq.read_table(artifact.folder / f"{split}.parquet", columns=["source"])
    return np.flatnonzero(pc.equal(table["source"], source).to_numpy())


def titles(artifact: Artifact, split: Split, places: list[int]) -> list[str]:
    """`title (id)` of the documents at some places of a split."""
    import pyarrow.parquet as pq

    table = pq.read_table(artifact.folder / f"{split}.parquet", columns=["title", "id"])
    rows = table.take(places).to_pylist()
    return [f"{row['title']} ({row['id']})" for row in rows]


def write_splits(paths: list[Path], section: CorpusConfig, out: Path) -> dict[str, Any]:
    """Writes the documents of the shards to `train|valid|test.parquet`; returns counts.

    Of exact copies only the first is kept. Near-duplicates are all kept, in the first one's split.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    copies, ids, keys = _find_copies(paths, section)
    first = clusters(np.frombuffer(keys, np.uint64).reshape(-1, NUM_BANDS))
    schema = pa.schema([(name, pa.string()) for name in _COLUMNS])
    counts: Counter[str] = Counter()
    words = num_bytes = place = 0
    writers = {split: pq.ParquetWriter(out / f"{split}.parquet", schema) for split in SPLITS}
    pending: dict[Split, list[dict[str, str]]] = {split: [] for split in SPLITS}
    try:
        with (out / "dropped.jsonl").open("a", encoding="utf-8") as samples:
            for number, row in enumerate(row for path in paths for row in read_documents(path)):
                if number in copies:
                    counts["copies"] += 1
                    if counts["copies"] <= DROPPED_SAMPLES:
                        sample = {
                            "id": row["id"], "title": row["title"], "reason": "exact duplicate"
                        }  # fmt: skip
                        samples.write(json.dumps(sample, ensure_ascii=False) + "\n")
                    continue
                split = split_of(ids[first[place]] if len(first) else row["id"], section)
                place += 1
                counts[split] += 1
                words += row["words"]
                num_bytes += row["bytes"]
                pending[split].append(row)
                if len(pending[split]) == _ROW_GROUP_DOCUMENTS:
                    _flush(writers[split], pending[split], schema)
        for split in SPLITS:
            _flush(writers[split], pending[split], schema)
    finally:
        for writer in writers.values():
            writer.close()
    sizes = np.bincount(first) if len(first) else np.zeros(0, int)
    return {
        "documents": {split: counts[split] for split in SPLITS},
        "words": words,
        "bytes": num_bytes,
        "duplicates": Counter({"exact duplicate": len(copies)} if copies else {}),
        "near_duplicates": {
            "clusters": int((sizes > 1).sum()),
            "documents": int(sizes[sizes > 1].sum()),
            "largest": int(sizes.max(initial=0)),
        },
    }


def _find_copies(
    paths: list[Path], section: CorpusConfig
) -> tuple[set[int], list[str], array[int]]:
    """Places of exact copies; ids and band keys (flat) of the documents that are kept."""
    copies: set[int] = set()
    seen: set[str] = set()
    ids: list[str] = []
    keys = array("Q")
    if section.dedup == "off":
        return copies, ids, keys
    for number, row in enumerate(row for path in paths for row in read_keys(path)):
        if row["fingerprint"] in seen:
            copies.add(number)
        elif section.dedup == "near":
            ids.append(row["id"])
            keys.extend(row["keys"])
        seen.add(row["fingerprint"])
    return copies, ids, keys


def _flush(writer: pq.ParquetWriter, rows: list[dict[str, str]], schema: Any) -> None:
    import pyarrow as pa

    if rows:
        columns = [[row[name] for row in rows] for name in schema.names]
        writer.write_table(pa.table(columns, schema=schema))
        rows.clear()
