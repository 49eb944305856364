"""Content-addressed stage folders: `<stage>-<digest>`, whole or `.partial`, manifest last."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import os
import platform
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from gportuguese.config import UserError

MANIFEST = "manifest.json"
_LOCK = ".lock"
_PACKAGES = ("gportuguese", "torch", "transformers", "tokenizers", "fastai", "datasets")


class ArtifactError(UserError):
    """A stage folder is missing, damaged or in use."""


@dataclass(frozen=True)
class Artifact:
    """A whole stage folder and what its manifest says."""

    folder: Path
    manifest: dict[str, Any]

    @property
    def digest(self) -> str:
        """Twelve hex digits that name what went in."""
        return str(self.manifest["digest"])

    @property
    def facts(self) -> dict[str, Any]:
        """What the stage counted and measured."""
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


def hash_folder(folder: Path) -> str:
    """SHA-256 over the names and contents of all files under a folder."""
    sha = hashlib.sha256()
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        sha.update(f"{path.relative_to(folder).as_posix()}\0{hash_file(path)}\n".encode())
    return sha.hexdigest()


def open_artifact(folder: Path, verify: bool = True) -> Artifact:
    """The artefact in `folder`, with every file checked against size and SHA-256.

    Raises `ArtifactError` naming the file that is missing, changed or was added.
    """
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ArtifactError(f"{folder} has no {MANIFEST}; remove it to build it again") from error
    except ValueError as error:
        raise ArtifactError(f"{folder / MANIFEST} is damaged; remove {folder}") from error
    if verify:
        found = {
            path.relative_to(folder).as_posix()
            for path in folder.rglob("*")
            if path.is_file() and path.name != MANIFEST
        }
        for name, listed in manifest["files"].items():
            path = folder / name
            if name not in found:
                raise ArtifactError(f"{path} is missing; remove {folder} to build it again")
            size = path.stat().st_size
            if size != listed["size"] or hash_file(path) != listed["sha256"]:
                raise ArtifactError(
                    f"{path} was changed since it was built: its digest does not match "
                    f"{MANIFEST}; remove {folder} to build it again"
                )
        if extra := sorted(found - set(manifest["files"])):
            raise ArtifactError(f"{folder / extra[0]} does not belong there; remove it")
    return Artifact(folder, manifest)


@contextmanager
def building(folder: Path, resumable: bool) -> Iterator[Path]:
    """Yields `<folder>.partial`, locked for this process, emptied unless `resumable`.

    The partial folder stays when the body raises, so that a resumable stage can go on.
    """
    partial = folder.with_name(folder.name + ".partial")
    try:
        partial.mkdir(parents=True, exist_ok=True)
        with (partial / _LOCK).open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                raise ArtifactError(
                    f"another process is building {partial}; wait for it"
                ) from error
            if not resumable:
                for path in partial.iterdir():
                    if path.name != _LOCK:
                        shutil.rmtree(path) if path.is_dir() else path.unlink()
            yield partial
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise ArtifactError(
                f"no space left on the disk of {folder.parent}; free some and run again: "
                "nothing was published"
            ) from error
        if error.errno in (errno.EACCES, errno.EROFS, errno.ENOTDIR, errno.EEXIST):
            raise ArtifactError(f"cannot write {partial}: {error.strerror}") from error
        raise


def publish(partial: Path, folder: Path, manifest: dict[str, Any]) -> Artifact:
    """The whole artefact: manifest written last, all synced to disk, then one atomic rename."""
    (partial / _LOCK).unlink(missing_ok=True)
    files = {}
    for path in sorted(path for path in partial.rglob("*") if path.is_file()):
        files[path.relative_to(partial).as_posix()] = {
            "size": path.stat().st_size,
            "sha256": hash_file(path),
        }
        _sync(path)
    manifest = {**manifest, "files": files, "versions": _versions()}
    write_json(partial / MANIFEST, manifest)
    for inner in (path for path in partial.rglob("*") if path.is_dir()):
        _sync(inner)
    _sync(partial)
    partial.rename(folder)
    _sync(folder.parent)
    return Artifact(folder, manifest)


def write_json(path: Path, value: Any) -> None:
    """Writes JSON by way of a temporary file, so that the name never holds half of it."""
    scratch = path.with_name(path.name + ".tmp")
    scratch.write_text(json.dumps(value, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
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
    commit = subprocess.run(
        ["git", "describe", "--always", "--dirty"],
        cwd=Path(__file__).parent,
        capture_output=True,
        text=True,
        check=False,
    )
    versions["commit"] = commit.stdout.strip() or "unknown"
    return versions
