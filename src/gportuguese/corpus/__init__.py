"""Clean documents from wikitext: filters with counted reasons, and a split that cannot leak."""

from __future__ import annotations

import hashlib
import json
import time
from array import array
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from gportuguese import artifacts, dump
from gportuguese.artifacts import Artifact
from gportuguese.config import Config, CorpusConfig, EvaluateConfig
from gportuguese.corpus.cleaning import Document, Dropped, clean_page
from gportuguese.corpus.definitions import NAMESPACE
from gportuguese.corpus.documents import document_files, hash_documents, write_shards
from gportuguese.corpus.duplicates import NUM_BANDS, clusters
from gportuguese.corpus.openings import NUM_PROMPTS, PROBES, PROMPTS, opening_of
from gportuguese.corpus.pool import (
    DROPPED_SAMPLES,
    SLOWEST,
    CorpusError,
    Job,
    clean_dump,
)
from gportuguese.corpus.shards import read_documents, read_keys, shard_path
from gportuguese.progress import track
from gportuguese.wikitext import language_of
from gportuguese.world import World

if TYPE_CHECKING:
    import pyarrow.parquet as pq

__all__ = [
    "SPLITS",
    "CorpusError",
    "Document",
    "Dropped",
    "Split",
    "build",
    "clean_page",
    "document_files",
    "hash_documents",
    "load",
    "probe_of",
    "prompts_of",
    "split_of",
]

Split = Literal["train", "valid", "test"]
SPLITS: tuple[Split, ...] = ("train", "valid", "test")
_ROW_GROUP_DOCUMENTS = 1000
_REMEDIES = {
    "train": "lower corpus.valid_per_mille and corpus.test_per_mille",
    "valid": "raise corpus.valid_per_mille",
    "too short": "lower corpus.min_chars",
    "no text": "give the rows a 'text'",
}


def split_of(document_id: str, section: CorpusConfig) -> Split:
    """Which side a document is on: SHA-256 of its id, so neither order nor machine matters."""
    bucket = int.from_bytes(hashlib.sha256(document_id.encode()).digest()[:8], "big") % 1000
    if bucket < section.valid_per_mille:
        return "valid"
    return "test" if bucket < section.valid_per_mille + section.test_per_mille else "train"


def build(config: Config, inputs: dict[str, Artifact], out: Path, world: World) -> dict[str, Any]:
    """Writes `train|valid|test.parquet`, `dropped.jsonl` and `quarantine.jsonl`; the facts count all.

    Of a dump it goes on with the shards that an interrupted run left; documents of your own are read
    anew. Memory is a constant per worker, and about 400 bytes per document for finding duplicates.
    """
    section = config.corpus
    language = section.language
    shards = out / artifacts.SCRATCH
    shards.mkdir(exist_ok=True)
    start = time.monotonic()
    if section.documents is None:
        language = language or str(inputs["dump"].facts["language"])
        paths, summaries = _clean(inputs["dump"], config, shards, world)
    else:
        written = list(write_shards(section, shards))
        paths, summaries = [path for path, _ in written], [summary for _, summary in written]
    cleaned = time.monotonic()
    facts = {
        "language": language,
        **_summed(summaries, out),
        **_write_splits(paths, section, out),
    }
    facts["dropped"] = dict(sorted((facts["dropped"] + facts.pop("duplicates")).items()))
    faults = facts.pop("faults")
    if section.documents is None:
        facts["faults_per_mb"] = round(faults / max(facts["bytes"], 1) * 1e6, 3)
    else:  # of your own documents every sentence is kept
        del facts["dropped_sentences"]
    facts["seconds"] = {
        "cleaning": round(cleaned - start, 1),
        "duplicates_and_split": round(time.monotonic() - cleaned, 1),
    }
    _check_splits(facts)
    return facts


def load(artifact: Artifact, split: Split, batch_size: int = 256) -> Iterator[list[str]]:
    """Yields the texts of a split in their order, `batch_size` at a time."""
    import pyarrow.parquet as pq

    with pq.ParquetFile(artifact.folder / f"{split}.parquet") as file:
        for batch in file.iter_batches(batch_size=batch_size, columns=["text"]):
            yield batch.column("text").to_pylist()


def prompts_of(section: EvaluateConfig, artifact: Artifact) -> list[str]:
    """`evaluate.prompts`, or where they are null those of the language of a corpus.

    A language for which none are shipped has the openings of held-out documents.
    """
    if section.prompts is not None:
        return list(section.prompts)
    if shipped := PROMPTS.get(_language_of(artifact)):
        return list(shipped)
    openings = map(opening_of, next(load(artifact, "valid")))
    return [opening for opening in dict.fromkeys(openings) if opening][:NUM_PROMPTS]


def probe_of(artifact: Artifact) -> str:
    """A sentence in the language of a corpus, or the opening of a held-out document."""
    shipped = PROBES.get(_language_of(artifact))
    return shipped or opening_of(next(load(artifact, "valid"))[0])


def _language_of(artifact: Artifact) -> str:
    """Without a region: `pt` for `pt-BR`; empty if it is not known."""
    return str(artifact.facts["language"] or "").lower().partition("-")[0]


def _check_splits(facts: dict[str, Any]) -> None:
    """Raises `CorpusError` with what helps if there is nothing to train on or to validate with."""
    documents, dropped = facts["documents"], facts["dropped"]
    empty = next((split for split in ("train", "valid") if not documents[split]), None)
    if empty is None:
        return
    causes = [*([empty] if sum(documents.values()) else []), *dropped]
    remedies = [_REMEDIES[cause] for cause in causes if cause in _REMEDIES]
    counts = ", ".join(f"{number:,} {reason}" for reason, number in dropped.items())
    raise CorpusError(
        f"no document for {empty} among {facts['pages']:,} pages or rows (dropped: "
        f"{counts or 'none'}); {', or '.join([*remedies, 'bring more text'])}"
    )


def _clean(
    artifact: Artifact, config: Config, shards: Path, world: World
) -> tuple[list[Path], list[dict[str, Any]]]:
    """Shards and summaries of a dump, in its order."""
    path = dump.load(artifact, config.dump)
    namespaces = dump.read_header(path).namespaces
    names = {name.lower() for key, name in namespaces if key == NAMESPACE}
    job = Job(
        path,
        config.corpus,
        language_of(str(artifact.facts["language"]), namespaces),
        shards,
        frozenset(("template", *names)),
    )
    summaries: dict[int, dict[str, Any]] = {}
    num_pages = new_pages = 0
    earlier, start = set(shards.glob("*.jsonl")), time.monotonic()
    with track("corpus", path.stat().st_size) as advance:
        for piece, summary in clean_dump(job, world.num_workers):
            summaries[piece.number] = summary
            num_pages += summary["pages"]
            is_resumed = shard_path(shards, piece.number) in earlier
            new_pages += 0 if is_resumed else summary["pages"]
            note = f"{new_pages / (time.monotonic() - start):,.0f} pages/s" if new_pages else ""
            advance(piece.end - piece.start, note, resumed=is_resumed)
    if not num_pages:
        raise CorpusError(f"{path} holds no pages; is it a pages-articles dump?")
    numbers = sorted(summaries)
    return [shard_path(shards, n) for n in numbers], [summaries[n] for n in numbers]


def _summed(summaries: list[dict[str, Any]], out: Path) -> dict[str, Any]:
    """What the summaries say together; writes the samples of dropped pages and the quarantine."""
    dropped: Counter[str] = Counter()
    kept: Counter[str] = Counter()
    slowest: list[tuple[float, str]] = []
    over_limit: Counter[str] = Counter()
    with (
        (out / "dropped.jsonl").open("w", encoding="utf-8") as samples,
        (out / "quarantine.jsonl").open("w", encoding="utf-8") as quarantine,
    ):
        for summary in summaries:
            dropped.update(summary["dropped"])
            for row in summary["samples"]:
                kept[row["reason"]] += 1
                if kept[row["reason"]] <= DROPPED_SAMPLES:
                    samples.write(json.dumps(row, ensure_ascii=False) + "\n")
            for row in summary.get("quarantined", ()):
                quarantine.write(json.dumps(row, ensure_ascii=False) + "\n")
            over_limit.update(summary.get("over_limit", ()))
            slowest += [(seconds, title) for seconds, title in summary.get("slowest", ())]
    return {
        "pages": sum(summary["pages"] for summary in summaries),
        "dropped": dropped,
        "faults": sum(summary.get("faults", 0) for summary in summaries),
        "dropped_sentences": sum(summary.get("dropped_sentences", 0) for summary in summaries),
        "templates_over_limit": dict(over_limit.most_common(SLOWEST)),
        "slowest_pages": [
            {"title": title, "milliseconds": round(1e3 * seconds, 1)}
            for seconds, title in sorted(slowest, reverse=True)[:SLOWEST]
        ],
    }


def titles(artifact: Artifact, split: Split, places: list[int]) -> list[str]:
    """Title and id of the documents at some places of a split, as `title (id)`."""
    import pyarrow.parquet as pq

    table = pq.read_table(artifact.folder / f"{split}.parquet", columns=["title", "id"])
    rows = table.take(places).to_pylist()
    return [f"{row['title']} ({row['id']})" for row in rows]


def _write_splits(paths: list[Path], section: CorpusConfig, out: Path) -> dict[str, Any]:
    """Reads the keys in the shards to find duplicates, then the documents to write each on its side.

    Of equal texts the first stays. Near-duplicates stay all, on the side of the first of them.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    copies, ids, keys = _find_copies(paths, section)
    first = clusters(np.frombuffer(keys, np.uint64).reshape(-1, NUM_BANDS))
    schema = pa.schema([(name, pa.string()) for name in ("id", "title", "text")])
    counts: Counter[str] = Counter()
    words = num_bytes = place = 0
    copied: list[Dropped] = []
    writers = {split: pq.ParquetWriter(out / f"{split}.parquet", schema) for split in SPLITS}
    pending: dict[Split, list[dict[str, str]]] = {split: [] for split in SPLITS}
    try:
        for number, row in enumerate(row for path in paths for row in read_documents(path)):
            if number in copies:
                if len(copied) < DROPPED_SAMPLES:
                    copied.append(Dropped(row["id"], row["title"], "exact duplicate"))
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
    with (out / "dropped.jsonl").open("a", encoding="utf-8") as samples:
        samples.writelines(json.dumps(d.__dict__, ensure_ascii=False) + "\n" for d in copied)
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
    """Places of exact copies; ids and flat band keys of the documents that stay."""
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
