"""Content-addressed stage folders, `<stage>-<digest>`, and their manifests.

A folder is called `.partial` until it is complete.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import platform
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from gportuguese.atomic import rename_whole, write_json
from gportuguese.config import UserError
from gportuguese.hashes import digest_of, hash_file, remembered_hash

MANIFEST = "manifest.json"
SCRATCH = "scratch"  # folder for temporary files of a resumable stage, deleted on publishing
_MIN_FREE_BYTES = 1 << 20  # with less free space, any error is reported as a full disk
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


def parts_of(folder: Path) -> tuple[str, str]:
    """The stage and the digest in the name of a stage's folder.

    >>> parts_of(Path("artifacts/train-0123456789ab"))
    ('train', '0123456789ab')
    """
    stage, _, digest = folder.name.rpartition("-")
    return stage, digest


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
    if not is_whole or manifest["digest"] != parts_of(folder)[1]:
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
    shutil.rmtree(folder / SCRATCH, ignore_errors=True)  # of a run stopped right after publishing
    found = {
        path.relative_to(folder).as_posix()
        for path in folder.rglob("*")
        if path.is_file() and path != folder / MANIFEST
    }
    for name, listed in artifact.manifest["files"].items():
        path = folder / name
        if name not in found:
            raise ArtifactError(f"{path} is missing; {again}")
        if path.stat().st_size != listed["size"] or remembered_hash(path) != listed["sha256"]:
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

    The scratch folder is deleted only then, so a run stopped earlier can still resume.
    """
    for leftover in partial.glob(f"{MANIFEST}*"):  # of a run that was stopped here
        leftover.unlink()
    files: dict[str, dict[str, Any]] = {}
    scratch = partial / SCRATCH
    for path in sorted(path for path in partial.rglob("*") if path.is_file()):
        if scratch in path.parents:
            continue
        name = path.relative_to(partial).as_posix()
        files[name] = {"size": path.stat().st_size, "sha256": remembered_hash(path)}
    manifest = {**manifest, "files": files, "versions": _versions()}
    write_json(partial / MANIFEST, {**manifest, "checksum": digest_of(manifest)})
    rename_whole(partial, folder)
    shutil.rmtree(folder / SCRATCH, ignore_errors=True)
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
