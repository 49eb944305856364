"""One's own documents instead of a dump: JSONL, Parquet or text, read as streams by `datasets`."""

from __future__ import annotations

import zlib
from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from gportuguese.config import CorpusConfig, resolve_path
from gportuguese.corpus.cleaning import Document, Dropped
from gportuguese.corpus.pool import DROPPED_SAMPLES, CorpusError
from gportuguese.corpus.shards import shard_line, shard_path
from gportuguese.progress import track

_SHARD_DOCUMENTS = 2000


def write_shards(section: CorpusConfig, shards: Path) -> Iterator[tuple[Path, dict[str, Any]]]:
    """Writes the documents as the workers of `pool` write those of a dump; yields each summary."""
    results = read_own(section)
    number = 0
    while batch := list(islice(results, _SHARD_DOCUMENTS)):
        shard, dropped, samples = shard_path(shards, number), Counter[str](), []
        with shard.open("w", encoding="utf-8") as file:
            for result in batch:
                if isinstance(result, Dropped):
                    dropped[result.reason] += 1
                    if dropped[result.reason] <= DROPPED_SAMPLES:
                        samples.append(result.__dict__)
                    continue
                file.write(shard_line(result, section) + "\n")
        yield shard, {"pages": len(batch), "dropped": dropped, "samples": samples}
        number += 1


def document_files(section: CorpusConfig) -> list[Path]:
    """The files that `corpus.documents` means; raises `CorpusError` if there are none."""
    source = resolve_path(str(section.documents))
    paths = [source] if source.is_file() else sorted(p for p in source.rglob("*") if p.is_file())
    if not paths:
        raise CorpusError(f"no documents at {source}; see corpus.documents")
    for path in paths:
        if _format_of(path) is None:
            raise CorpusError(f"{path}: use .jsonl, .jsonl.gz, .parquet or .txt documents")
    return paths


def document_name(path: Path, section: CorpusConfig) -> str:
    """A file's path below `corpus.documents`, or its name if that is the file."""
    source = resolve_path(str(section.documents))
    return path.name if path == source else path.relative_to(source).as_posix()


def _format_of(path: Path) -> str | None:
    suffixes = {".jsonl": "json", ".jsonl.gz": "json", ".parquet": "parquet", ".txt": "text"}
    return next((kind for end, kind in suffixes.items() if path.name.endswith(end)), None)


def read_own(section: CorpusConfig) -> Iterator[Document | Dropped]:
    """Yields one's own documents; they enter at the length filter."""
    import datasets
    import pyarrow as pa

    paths = document_files(section)
    with track("corpus", len(paths)) as advance:
        for path in paths:
            kind = str(_format_of(path))
            options = {"sample_by": "document"} if kind == "text" else {}
            try:
                rows: Iterable[dict[str, Any]] = datasets.load_dataset(
                    kind, data_files=str(path), split="train", streaming=True, **options
                )
                for index, row in enumerate(rows):
                    yield _own_document(row, f"{document_name(path, section)}:{index}", section)
            except (
                datasets.exceptions.DatasetsError,
                pa.ArrowException,
                ValueError,
                EOFError,
                zlib.error,
            ) as error:
                raise CorpusError(f"cannot read documents from {path}: {error}") from error
            advance(1, path.name)


def _own_document(row: dict[str, Any], where: str, section: CorpusConfig) -> Document | Dropped:
    if not isinstance(row.get("text"), str):
        raise CorpusError(f"{where}: a document needs a 'text'; found {', '.join(row)}")
    # a column that only some rows have is None in the others
    identity = where if row.get("id") is None else str(row["id"])
    document = Document(identity, str(row.get("title") or ""), row["text"].strip())
    if len(document.text) < section.min_chars:
        return Dropped(identity, document.title, "too short")
    return document
