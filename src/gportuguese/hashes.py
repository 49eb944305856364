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
_CACHED_FILES = 2000  # the cache forgets the oldest of more
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
    try:
        stat = path.stat()
        key, state = _identity(stat)
        cached = _read_hashes().get(key) if stat.st_size >= _CACHE_FROM_BYTES else None
        if cached is not None and cached[:-1] == state:
            return str(cached[-1])
        if stat.st_size > _SLOW_BYTES:
            log.info("reading %s to compute its SHA-256", path)
        sha256 = hash_file(path)
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from error
    remember(stat, sha256)
    return sha256


def remember(stat: os.stat_result, sha256: str) -> None:
    """Adds the hash of a large file to the cache; `stat` is from before it was read.

    File times are coarse, so the hash of a file that changed in the last seconds is not added.
    """
    is_settled = time.time_ns() - max(stat.st_mtime_ns, stat.st_ctime_ns) > _SETTLED_NS
    if stat.st_size < _CACHE_FROM_BYTES or not is_settled:
        return
    key, state = _identity(stat)
    with suppress(OSError, RuntimeError):  # without a cache, the file is hashed again next time
        path = _hashes_path()
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.with_suffix(".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)  # one process at a time
            others = [item for item in _read_hashes().items() if item[0] != key]
            write_json(path, {**dict(others[1 - _CACHED_FILES :]), key: [*state, sha256]})


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


def hash_files(files: Iterable[tuple[str, Path]]) -> str:
    """SHA-256 over the names and contents of files, in the given order."""
    sha = hashlib.sha256()
    for name, path in files:
        sha.update(f"{name}\0{remembered_hash(path)}\n".encode())
    return sha.hexdigest()
