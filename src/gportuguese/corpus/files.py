"""The files of a source on this machine: found by path, folder or pattern, and opened unpacked."""

from __future__ import annotations

import bz2
import glob
import gzip
import io
import logging
import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import IO, cast

from gportuguese.config import did_you_mean, is_hub_id, is_path, resolve_path
from gportuguese.corpus.pool import CorpusError

log = logging.getLogger("gportuguese")

ROWS = (".json", ".jsonl", ".csv", ".txt")
PACKED = (".gz", ".bz2", ".zst")
KINDS = (*ROWS, ".parquet", *(rows + packed for rows in ROWS for packed in PACKED))
FORMATS = ".json, .jsonl, .csv, .txt (each also .gz, .bz2 or .zst) or .parquet"
# What `corpus.documents` reads in a folder: new kinds would change the corpora of before
FOLDER_KINDS = (".jsonl", ".jsonl.gz", ".parquet", ".txt")


@dataclass(frozen=True)
class File:
    """A file of documents, local or remote."""

    name: str
    """Its path within the source, for ids."""
    place: str
    """Its whole path or URL, for messages."""
    size: int | None
    """In bytes; None if the host does not say."""
    open: Callable[[], IO[bytes]]
    """Opens it; the stream can seek."""
    version: str | None = None
    """What tells whether a remote file has changed."""

    @property
    def kind(self) -> str:
        """The format of its rows, one of `ROWS` or `.parquet`."""
        name = self.name.lower()
        return Path(name.removesuffix(self.packing)).suffix

    @property
    def packing(self) -> str:
        """One of `PACKED`, or empty."""
        suffix = Path(self.name.lower()).suffix
        return suffix if suffix in PACKED else ""

    def unpacked(self, raw: IO[bytes]) -> IO[bytes]:
        """The content of an opened file."""
        if self.packing == ".gz":
            return cast(IO[bytes], gzip.GzipFile(fileobj=raw))
        if self.packing == ".bz2":
            return bz2.BZ2File(raw)
        if self.packing == ".zst":
            import pyarrow as pa  # its codec saves a dependency

            packed = pa.CompressedInputStream(pa.PythonFile(raw, "r"), "zstd")
            return io.BufferedReader(packed)
        return raw


def is_document(name: str) -> bool:
    """Whether files of that name can be read."""
    return name.lower().endswith(KINDS)


def local_files(documents: str, folder_kinds: tuple[str, ...] = KINDS) -> list[File]:
    """The files at a path, in a folder, or that match a pattern, sorted by path.

    Raises `CorpusError` if there are none, or if one of them cannot be read.
    """
    source = resolve_path(documents)
    root, paths = _found(source, documents)
    kinds = folder_kinds if source.is_dir() else KINDS
    others = [path for path in paths if not path.name.lower().endswith(kinds)]
    paths = [path for path in paths if path.name.lower().endswith(kinds)]
    if not paths:
        formats = FORMATS if kinds == KINDS else f"{', '.join(kinds[:-1])} or {kinds[-1]}"
        raise CorpusError(f"no documents at {source}: give a {formats} file, or a folder of them")
    if others:
        names = ", ".join(_name(path, root) for path in others[:3])
        more = f" and {len(others) - 3} more" if len(others) > 3 else ""
        log.info("%s: skipped %s%s (no documents)", source, names, more)
    for path in paths:
        if not os.access(path, os.R_OK):
            raise CorpusError(f"{path} cannot be read; change its permissions or move it away")
    return [_file(path, root) for path in paths]


def _found(source: Path, documents: str) -> tuple[Path, list[Path]]:
    """All files there except hidden ones, and the folder that their names begin after."""
    if source.is_file():
        return source.parent, [source]
    if source.is_dir():
        return source, _visible(source, source.rglob("*"))
    if glob.has_magic(documents):
        parts = source.parts
        fixed = next(n for n, part in enumerate(parts) if glob.has_magic(part))
        root = Path(*parts[:fixed])
        return root, _visible(root, root.glob("/".join(parts[fixed:])))
    hint = did_you_mean(source)
    if not hint and is_hub_id(documents) and is_path(documents):
        hint = f"; for the data set on the Hub, run where no folder is called {source.parts[0]}"
    raise CorpusError(f"no documents at {source}: there is no such file or folder{hint}")


def _visible(root: Path, paths: Iterable[Path]) -> list[Path]:
    return sorted(
        path
        for path in paths
        if path.is_file() and not any(part.startswith(".") for part in path.relative_to(root).parts)
    )


def _name(path: Path, root: Path) -> str:
    """The path as text that UTF-8 can hold: bytes that it cannot are written as `\\xed`."""
    name = path.relative_to(root).as_posix()
    return os.fsencode(name).decode("utf-8", "backslashreplace")


def _file(path: Path, root: Path) -> File:
    return File(_name(path, root), str(path), path.stat().st_size, lambda: path.open("rb"))
