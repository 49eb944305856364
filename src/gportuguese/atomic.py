"""Files and folders that are complete or absent, even after a power loss."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


def rename_whole(scratch: Path, folder: Path) -> None:
    """Syncs a folder to disk and then renames it, so that `folder` is complete or absent."""
    mode = 0o666 & ~_umask()
    for path in scratch.rglob("*"):
        # safetensors writes files that only their owner may read
        if path.is_file() and path.stat().st_mode & 0o777 != mode:
            path.chmod(mode)
        _sync(path)
    _sync(scratch)
    scratch.rename(folder)
    _sync(folder.parent)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def write_json(path: Path, value: Any) -> None:
    """Writes JSON through a temporary file, so that `path` never holds a partial file."""
    with replacing(path) as scratch:
        scratch.write_text(json.dumps(value, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yields the path of a temporary file, then syncs that file to disk and renames it to `path`.

    Even after a power loss `path` is complete or absent.
    """
    scratch = path.with_name(path.name + ".tmp")
    yield scratch
    _sync(scratch)
    scratch.replace(path)


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
