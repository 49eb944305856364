"""SHA-256 of settings and files; large files that have not changed are not read again."""

from __future__ import annotations

import fcntl
import hashlib
import json
import logging
import os
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

from gportuguese.atomic import write_json
from gportuguese.config import UserError

log = logging.getLogger("gportuguese")

_CACHE_FROM_BYTES = 1 << 20  # smaller files are always hashed
_SLOW_BYTES = 1 << 28  # larger files take seconds to hash
_CACHED_FILES = 20_000  # the cache forgets the oldest of more
_SAVE_SECONDS = 10  # between two writings of the cache while many files are hashed
_SETTLED_NS = 3 * 10**9  # file times are coarse: do not cache hashes of newer files


def digest_of(value: Any) -> str:
    """Twelve hex digits of SHA-256 over the canonical JSON of `value`."""
    text = json.dumps(value, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def hash_file(path: Path) -> str:
    """SHA-256 of a file in hex."""
    sha = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            sha.update(chunk)
    return sha.hexdigest()


def remembered_hash(path: Path) -> str:
    """SHA-256 of a file in hex, from a cache if the file has not changed.

    The cache compares device, inode, size and times, so a renamed file or folder is still known. Small
    files are always hashed. Raises `UserError` if the file cannot be read.
    """
    return _hashes_of([path])[0]


def hash_files(files: Iterable[tuple[str, Path]]) -> str:
    """SHA-256 over the names and contents of files, in the given order."""
    files = list(files)
    sha = hashlib.sha256()
    for (name, _), sha256 in zip(files, _hashes_of(path for _, path in files), strict=True):
        sha.update(f"{name}\0{sha256}\n".encode())
    return sha.hexdigest()


def _hashes_of(paths: Iterable[Path]) -> list[str]:
    known, found = _read_hashes(), list[str]()
    new: list[tuple[os.stat_result, str]] = []
    saved = time.monotonic()
    try:
        for path in paths:
            stat = path.stat()
            key, state = _identity(stat)
            cached = known.get(key) if stat.st_size >= _CACHE_FROM_BYTES else None
            if cached is not None and cached[:-1] == state:
                found.append(str(cached[-1]))
                continue
            if stat.st_size > _SLOW_BYTES:
                log.info("reading %s to compute its SHA-256", path)
            found.append(hash_file(path))
            new.append((stat, found[-1]))
            if time.monotonic() - saved > _SAVE_SECONDS:
                remember(*new)
                new, saved = [], time.monotonic()
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from error
    finally:
        remember(*new)
    return found


def remember(*hashed: tuple[os.stat_result, str]) -> None:
    """Adds the hashes of large files to the cache; each with the `stat` from before it was read.

    File times are coarse, so the hash of a file that changed in the last seconds is not added.
    """
    new = {}
    for stat, sha256 in hashed:
        is_settled = time.time_ns() - max(stat.st_mtime_ns, stat.st_ctime_ns) > _SETTLED_NS
        if stat.st_size >= _CACHE_FROM_BYTES and is_settled:
            key, state = _identity(stat)
            new[key] = [*state, sha256]
    if not new:
        return
    with suppress(OSError, RuntimeError):  # without a cache, the file is hashed again next time
        path = _hashes_path()
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.with_suffix(".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)  # one process at a time
            others = {key: value for key, value in _read_hashes().items() if key not in new}
            write_json(path, dict([*others.items(), *new.items()][-_CACHED_FILES:]))


def _identity(stat: os.stat_result) -> tuple[str, list[int]]:
    return f"{stat.st_dev}:{stat.st_ino}", [stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns]


def _hashes_path() -> Path:
    folder = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(folder).expanduser() / "gportuguese" / "hashes.json"


def _read_hashes() -> dict[str, Any]:
    try:
        hashes = json.loads(_hashes_path().read_text(encoding="utf-8"))
    except (OSError, ValueError, RuntimeError):  # missing, damaged, or no home folder
        return {}
    return hashes if isinstance(hashes, dict) else {}
