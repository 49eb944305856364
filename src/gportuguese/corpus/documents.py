"""Documents of your own instead of a dump: JSON lines, Parquet or text, read row by row.

Only the columns `text`, `title` and `id` are read.
"""

from __future__ import annotations

import gzip
import json
import logging
import os
import zlib
from collections.abc import Iterator
from decimal import Decimal
from itertools import groupby, islice
from pathlib import Path
from typing import Any

from gportuguese import hashes
from gportuguese.config import CorpusConfig, resolve_path
from gportuguese.corpus.cleaning import Document, Dropped
from gportuguese.corpus.exclusion import Excluded
from gportuguese.corpus.pool import CorpusError
from gportuguese.corpus.shards import ShardWriter, shard_path
from gportuguese.progress import track

log = logging.getLogger("gportuguese")

KINDS = (".jsonl", ".jsonl.gz", ".parquet", ".txt")
_SHARD_DOCUMENTS = 2000
_BATCH_ROWS = 256  # of a Parquet file in memory
_REPORT_BYTES = 1 << 20  # between two reports of progress
_COLUMNS = ("id", "title", "text")

_Row = tuple[str, Any, int]
"""File and line, the row, and how many bytes of the file have been read."""


def write_shards(section: CorpusConfig, shards: Path) -> Iterator[tuple[Path, dict[str, Any]]]:
    """Writes the documents as shards; yields path and summary of each."""
    results = read_own(section)
    number = 0
    while batch := list(islice(results, _SHARD_DOCUMENTS)):
        shard = ShardWriter(section, Excluded.open(shards))
        path = shard_path(shards, number)
        for result in batch:
            shard.add(result)
        yield path, shard.write(path)
        number += 1


def document_files(section: CorpusConfig) -> list[Path]:
    """The files at `corpus.documents`; raises `CorpusError` if there are none."""
    source = resolve_path(str(section.documents))
    if not source.exists():
        raise CorpusError(f"no documents at {source}: there is no such file or folder")
    paths = [path for path in _files_at(source) if _is_document(path)]
    if not paths:
        raise CorpusError(
            f"no documents at {source}: give a {', '.join(KINDS[:-1])} or {KINDS[-1]} file, or a "
            "folder of them"
        )
    for path in paths:
        if not os.access(path, os.R_OK):
            raise CorpusError(f"{path} cannot be read; change its permissions or move it away")
    return paths


def document_name(path: Path, section: CorpusConfig) -> str:
    """A file's path below the folder `corpus.documents`, or its name if that is the file."""
    source = resolve_path(str(section.documents))
    return path.name if path == source else path.relative_to(source).as_posix()


def hash_documents(section: CorpusConfig) -> str:
    """SHA-256 over the names and contents of the files."""
    files = document_files(section)
    return hashes.hash_files((document_name(path, section), path) for path in files)


def read_own(section: CorpusConfig) -> Iterator[Document | Dropped]:
    """Yields the documents of all files; those below `corpus.min_chars` are dropped."""
    paths = document_files(section)
    source = resolve_path(str(section.documents))
    if others := [path for path in _files_at(source) if not _is_document(path)]:
        names = ", ".join(document_name(path, section) for path in others[:3])
        more = f" and {len(others) - 3} more" if len(others) > 3 else ""
        log.info("%s: skipped %s%s (no documents)", source, names, more)
    with track("corpus", sum(path.stat().st_size for path in paths)) as advance:
        for path in paths:
            reported = 0
            rows = read_file(path, document_name(path, section), section)
            for number, (result, position) in enumerate(rows, start=1):
                if position - reported > _REPORT_BYTES:
                    advance(position - reported, f"{path.name}, row {number:,}")
                    reported = position
                if isinstance(result, Document) and len(result.text) < section.min_chars:
                    yield Dropped(result.id, result.title, "too short")
                else:
                    yield result
            advance(path.stat().st_size - reported, path.name)


def read_file(
    path: Path, name: str, section: CorpusConfig
) -> Iterator[tuple[Document | Dropped, int]]:
    """Yields each row of a file as a document, or as dropped if it has no text.

    Each comes with the number of bytes read so far. A row without an id gets `name:line`.
    Raises `CorpusError` with file and line if a row cannot be read.
    """
    is_first = True
    try:
        for where, row, position in _rows(path, name, section):
            result = _document(row, where)
            if isinstance(result, Dropped) and is_first:
                is_first = False
                found = f"columns: {', '.join(row)}" if isinstance(row, dict) else f"{row!r:.40}"
                log.info("%s has no text (%s); such rows are dropped", where, found)
            yield result, position
    except (OSError, EOFError, zlib.error) as error:
        raise CorpusError(f"cannot read documents from {path}: {error}") from error


def _files_at(source: Path) -> list[Path]:
    """The file itself, or all files below a folder except hidden ones."""
    if source.is_file():
        return [source]
    return sorted(
        path
        for path in source.rglob("*")
        if path.is_file()
        and not any(part.startswith(".") for part in path.relative_to(source).parts)
    )


def _is_document(path: Path) -> bool:
    return path.name.lower().endswith(KINDS)


def _rows(path: Path, name: str, section: CorpusConfig) -> Iterator[_Row]:
    kind = path.name.lower()
    if kind.endswith(".parquet"):
        return _parquet_rows(path, name)
    return _txt_rows(path, name, section) if kind.endswith(".txt") else _json_rows(path, name)


def _document(row: Any, where: str) -> Document | Dropped:
    fields = row if isinstance(row, dict) else {}
    title = _as_text(fields.get("title"))
    text = fields.get("text")
    if not (isinstance(text, str) and text.strip()):
        return Dropped(where, title, "no text")
    return Document(_as_text(fields.get("id")) or where, title, _as_text(text).strip())


def _as_text(value: Any) -> str:
    """A field as text; half a surrogate pair, which UTF-8 cannot hold, becomes U+FFFD."""
    text = "" if value is None else str(value)
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _json_rows(path: Path, name: str) -> Iterator[_Row]:
    for number, line, position in _lines(path):
        if not line.strip():
            continue
        try:
            row = json.loads(line, parse_int=Decimal)  # Python limits the digits of an int
        except json.JSONDecodeError as error:
            raise CorpusError(
                f"{path}:{number}, column {error.colno}: broken JSON ({error.msg}); each line has "
                "to be one JSON object"
            ) from error
        except RecursionError as error:
            raise CorpusError(f"{path}:{number}: JSON nested too deeply") from error
        yield f"{name}:{number}", row, position


def _txt_rows(path: Path, name: str, section: CorpusConfig) -> Iterator[_Row]:
    lines = ((n, line.replace("\r\n", "\n"), position) for n, line, position in _lines(path))
    if section.txt_document == "file":
        yield name, {"text": "".join(line for _, line, _ in lines)}, path.stat().st_size
    elif section.txt_document == "line":
        for number, line, position in lines:
            if line.strip():
                yield f"{name}:{number}", {"text": line}, position
    else:
        for is_text, group in groupby(lines, lambda line: bool(line[1].strip())):
            if is_text:
                numbers, texts, positions = zip(*group, strict=True)
                yield f"{name}:{numbers[0]}", {"text": "".join(texts)}, positions[-1]


def _lines(path: Path) -> Iterator[tuple[int, str, int]]:
    """Yields number and text of each line, and the position in the (compressed) file after it."""
    with path.open("rb") as file:
        stream = gzip.GzipFile(fileobj=file) if path.name.lower().endswith(".gz") else file
        for number, line in enumerate(stream, start=1):
            try:
                text = line.decode("utf-8-sig" if number == 1 else "utf-8")
            except UnicodeDecodeError as error:
                raise CorpusError(
                    f"{path}:{number}: not UTF-8 ({error.reason}, byte {error.start + 1} of the "
                    "line); save the file as UTF-8"
                ) from error
            yield number, text, file.tell()


def _parquet_rows(path: Path, name: str) -> Iterator[_Row]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    number, size = 0, path.stat().st_size
    try:
        with pq.ParquetFile(path) as file:
            nothing = dict.fromkeys(file.schema_arrow.names)
            columns = [column for column in _COLUMNS if column in nothing]
            for batch in file.iter_batches(_BATCH_ROWS, columns=columns):
                for row in batch.to_pylist():
                    number += 1
                    position = size * number // file.metadata.num_rows
                    yield f"{name}:{number}", nothing | row, position
    except (pa.ArrowException, ValueError) as error:
        raise CorpusError(f"cannot read {path} after row {number:,}: {error}") from error
