"""Content-addressed stage folders, `<stage>-<digest>`, and their manifests.

A folder is called `.partial` until it is complete.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import logging
import os
import platform
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from gportuguese.config import UserError

log = logging.getLogger("gportuguese")

MANIFEST = "manifest.json"
HASHED = "hashed"
"""Fact of a stage that hashed large files itself: SHA-256 by name. Opening the stage does not hash them
again while their modification time is unchanged."""
SCRATCH = "scratch"  # folder for temporary files of a resumable stage, deleted on publishing
_MIN_FREE_BYTES = 1 << 20  # with less free space, any error is reported as a full disk
_CACHE_FROM_BYTES = 1 << 20  # smaller files are always hashed
_SLOW_BYTES = 1 << 28  # larger files take seconds to hash
_SETTLED_NS = 3 * 10**9  # file times are coarse: do not cache hashes of newer files
_PACKAGES = ("gportuguese", "torch", "transformers", "tokenizers", "fastai", "datasets")


class ArtifactError(UserError):
    """A stage folder is missing, damaged or in use."""


@dataclass(frozen=True)
class Artifact:
    """A complete stage folder and its manifest."""

    folder: Path
    manifest: dict[str, Any]

    @property
    def digest(self) -> str:
        """Twelve hex digits that identify the inputs and settings."""
        return str(self.manifest["digest"])

    @property
    def facts(self) -> dict[str, Any]:
        """The numbers that the stage counted and measured."""
        return dict(self.manifest["facts"])


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

    Like git, it compares path, size, times and inode. File times are coarse, so the hash of a file
    changed in the last seconds is not cached. Small files are always hashed.
    """
    try:
        stat = path.stat()
        state = [stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino]
        key = str(path.resolve())
        cached = _read_hashes().get(key) if stat.st_size >= _CACHE_FROM_BYTES else None
        if cached is not None and cached[0] == state:
            return str(cached[1])
        if stat.st_size > _SLOW_BYTES:
            log.info("reading %s to compute its SHA-256", path)
        sha256 = hash_file(path)
    except OSError as error:
        raise ArtifactError(f"cannot read {path}: {error.strerror}") from error
    is_settled = time.time_ns() - max(stat.st_mtime_ns, stat.st_ctime_ns) > _SETTLED_NS
    if stat.st_size >= _CACHE_FROM_BYTES and is_settled:
        with suppress(OSError, RuntimeError):  # without a cache, the file is hashed again next time
            _remember_hash(key, [state, sha256])
    return sha256


def _remember_hash(key: str, value: list[Any]) -> None:
    """Adds a hash to the cache, one process at a time, and forgets files that are gone."""
    path = _hashes_path()
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        # Path.exists raises for a folder that may not be read
        kept = {n: each for n, each in _read_hashes().items() if os.path.exists(n)}  # noqa: PTH110
        write_json(path, {**kept, key: value})


def _hashes_path() -> Path:
    folder = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(folder).expanduser() / "gportuguese" / "hashes.json"


def _read_hashes() -> dict[str, Any]:
    try:
        hashes = json.loads(_hashes_path().read_text(encoding="utf-8"))
    except (OSError, ValueError, RuntimeError):  # missing, damaged, or no home folder
        return {}
    return hashes if isinstance(hashes, dict) else {}


def hash_files(paths: list[Path]) -> str:
    """SHA-256 over the names and contents of files in one folder, in the given order."""
    sha = hashlib.sha256()
    for path in paths:
        sha.update(f"{path.name}\0{remembered_hash(path)}\n".encode())
    return sha.hexdigest()


def read_manifest(folder: Path) -> Artifact:
    """Opens the artifact in `folder` and checks its manifest, but not its files.

    Raises `ArtifactError` if the manifest is missing or was changed.
    """
    again = f"remove {folder} to build it again"
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        is_whole = manifest.pop("checksum") == digest_of(manifest)
    except FileNotFoundError as error:
        raise ArtifactError(f"{folder} has no {MANIFEST}; {again}") from error
    except (ValueError, KeyError, AttributeError, TypeError) as error:
        raise ArtifactError(f"{folder / MANIFEST} is damaged; {again}") from error
    if not is_whole or manifest["digest"] != folder.name.rpartition("-")[2]:
        raise ArtifactError(
            f"{folder / MANIFEST} was changed, or belongs to another folder: its digest does not "
            f"match; {again}"
        )
    return Artifact(folder, manifest)


def open_artifact(folder: Path) -> Artifact:
    """Opens the artifact in `folder` and checks its manifest and the SHA-256 of every file.

    Raises `ArtifactError` that names a missing, changed or added file.
    """
    again = f"remove {folder} to build it again"
    artifact = read_manifest(folder)
    found = {
        path.relative_to(folder).as_posix()
        for path in folder.rglob("*")
        if path.is_file() and path != folder / MANIFEST
    }
    for name, listed in artifact.manifest["files"].items():
        path = folder / name
        if name not in found:
            raise ArtifactError(f"{path} is missing; {again}")
        stat = path.stat()
        if listed.get("mtime_ns") == stat.st_mtime_ns and listed["size"] == stat.st_size:
            continue
        if stat.st_size != listed["size"] or hash_file(path) != listed["sha256"]:
            raise ArtifactError(
                f"{path} was changed after it was built: its digest does not match {MANIFEST}; "
                f"{again}"
            )
    if extra := sorted(found - set(artifact.manifest["files"])):
        raise ArtifactError(f"{folder / extra[0]} does not belong there; remove it")
    return artifact


def partial_of(folder: Path) -> Path:
    """The path of a stage folder while it is being built."""
    return folder.with_name(folder.name + ".partial")


@contextmanager
def building(folder: Path, resumable: bool) -> Iterator[Path]:
    """Yields `<folder>.partial`, locked for this process, and emptied unless `resumable`.

    If the body raises, the partial folder stays, so that a resumable stage can resume. The lock is on
    the folder itself and therefore outlives the rename that publishes it.
    """
    partial = partial_of(folder)
    try:
        partial.mkdir(parents=True, exist_ok=True)
        lock = os.open(partial, os.O_RDONLY)
    except OSError as error:
        raise ArtifactError(f"cannot write {partial}: {error.strerror}") from error
    try:
        _lock(lock, partial)
        if folder.exists():  # published before we got the lock
            raise ArtifactError(f"another process has just built {folder}; run again")
        if not resumable:
            for path in partial.iterdir():
                shutil.rmtree(path) if path.is_dir() else path.unlink()
        yield partial
    except Exception as error:
        # torch, safetensors and NumPy report a full disk in different ways
        is_full = isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)
        if is_full or shutil.disk_usage(folder.parent).free < _MIN_FREE_BYTES:
            raise ArtifactError(
                f"no space left on the disk of {folder.parent}; free some space and run again "
                "(nothing was published)"
            ) from error
        raise
    finally:
        os.close(lock)


def _lock(handle: int, partial: Path) -> None:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise ArtifactError(f"another process is building {partial}; wait for it") from error


def publish(partial: Path, folder: Path, manifest: dict[str, Any]) -> Artifact:
    """Writes the manifest, syncs everything to disk, and publishes the folder by one atomic rename.

    The scratch folder is deleted only after the manifest is written, so a run killed earlier can
    still resume.
    """
    files: dict[str, dict[str, Any]] = {}
    scratch = partial / SCRATCH
    hashed = manifest.get("facts", {}).get(HASHED, {})
    for path in sorted(path for path in partial.rglob("*") if path.is_file()):
        if scratch in path.parents:
            continue
        name = path.relative_to(partial).as_posix()
        files[name] = {"size": path.stat().st_size, "sha256": hashed.get(name) or hash_file(path)}
        if name in hashed:
            files[name]["mtime_ns"] = path.stat().st_mtime_ns
    manifest = {**manifest, "files": files, "versions": _versions()}
    write_json(partial / MANIFEST, {**manifest, "checksum": digest_of(manifest)})
    shutil.rmtree(scratch, ignore_errors=True)
    rename_whole(partial, folder)
    return Artifact(folder, manifest)


def seal(folder: Path) -> None:
    """Writes the SHA-256 of every file into `manifest.json`."""
    files = {
        path.relative_to(folder).as_posix(): hash_file(path)
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }
    write_json(folder / MANIFEST, {"files": files, "checksum": digest_of(files)})


def broken_seal(folder: Path) -> str:
    """Describes what is wrong with a sealed folder; empty if it is intact."""
    try:
        seal = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        if seal["checksum"] != digest_of(seal["files"]):
            return f"{folder / MANIFEST} was changed"
        for name, sha256 in seal["files"].items():
            if hash_file(folder / name) != sha256:
                return f"{folder / name} was changed"
    except (OSError, ValueError, KeyError, TypeError) as error:
        return f"{folder} is damaged ({type(error).__name__}: {error})"
    return ""


def rename_whole(scratch: Path, folder: Path) -> None:
    """Syncs a folder to disk and then renames it, so that `folder` is complete or absent."""
    mode = 0o666 & ~_umask()
    for path in scratch.rglob("*"):
        if path.is_file():  # safetensors writes files that only their owner may read
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


def _versions() -> dict[str, str]:
    versions = {"python": platform.python_version(), "machine": platform.platform()}
    for package in _PACKAGES:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            versions[package] = "not installed"
    versions["commit"] = _commit()
    return versions


def _commit() -> str:
    """The commit of our source tree; unknown in an installed package or without git."""
    root = Path(__file__).parents[2]
    if (root / ".git").exists() and (root / "pyproject.toml").is_file():
        with suppress(OSError):
            done = subprocess.run(
                ["git", "describe", "--always", "--dirty"],
                cwd=root,
                capture_output=True,
                text=True,
                check=False,
            )
            return done.stdout.strip() or "unknown"
    return "unknown"
