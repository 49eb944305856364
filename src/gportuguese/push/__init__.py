"""An exported folder to the Hugging Face Hub: one commit, whatever happens on the way."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path

from gportuguese import artifacts
from gportuguese.push.hub import Branch, PlannedFile, PushError

__all__ = ["PlannedFile", "PushError", "Receipt", "listing", "plan", "push", "write_receipt"]


@dataclass(frozen=True)
class Receipt:
    """What the Hub holds after a push."""

    repo: str
    revision: str
    commit: str
    """The commit that holds every file; an earlier one if there was nothing to send."""
    url: str
    files: tuple[PlannedFile, ...]
    sent: tuple[str, ...]
    """Names of the files that the Hub did not have; empty if nothing changed."""

    @property
    def num_bytes(self) -> int:
        """Size of all files, sent or there already."""
        return sum(file.size for file in self.files)


def plan(folder: Path) -> list[PlannedFile]:
    """The files that a push of this export sends, each checked against the manifest.

    Raises `PushError` if the folder is no export, `ArtifactError` if anything in it is missing,
    was changed or was added.
    """
    folder = folder.resolve()
    if folder.name.rpartition("-")[0] != "export" or not folder.is_dir():
        raise PushError(f"{folder} is not the folder of an export; run: gpt-pt export")
    listed = artifacts.open_artifact(folder).manifest["files"]
    if not listed:
        raise PushError(f"{folder} holds no file to push; remove it and run: gpt-pt export")
    return [
        PlannedFile(name, folder / name, facts["size"], facts["sha256"])
        for name, facts in sorted(listed.items())
    ]


def listing(
    files: list[PlannedFile], repo: str, *, private: bool = False, revision: str | None = None
) -> str:
    """What a push would send, as text: a line per file with its size, and the total."""
    return "\n".join(
        [
            f"to {repo}, branch {revision or 'main'}, in one commit, where the Hub lacks them"
            + (" (private):" if private else ":"),
            *(f"{file.size:15,}  {file.name}" for file in files),
            f"{sum(file.size for file in files):15,}  bytes in {len(files)} files",
        ]
    )


def push(
    folder: Path,
    repo: str,
    *,
    private: bool = False,
    revision: str | None = None,
    token: str | None = None,
    endpoint: str | None = None,
    sleep: Callable[[float], None] = time.sleep,
) -> Receipt:
    """Brings a repository's branch to hold every file of an export; other files there stay.

    Repository and branch are made if absent. Only files that the Hub does not have are sent, as
    one commit; with none, no commit is made. `token` and `endpoint` are huggingface_hub's own
    (HF_TOKEN or `hf auth login`, HF_ENDPOINT) unless given.

    Raises `PushError` saying what to do, `ArtifactError` if the folder is not as it was built.
    """
    files = plan(folder)
    branch = Branch(repo, revision or "main", token, endpoint, sleep)
    branch.make_ready(private)
    commit, sent = branch.land(files, message=f"Push {folder.resolve().name}")
    url = f"{branch.endpoint}/{repo}/tree/{commit}"
    return Receipt(repo, branch.revision, commit, url, tuple(files), sent)


def write_receipt(folder: Path, receipt: Receipt) -> Path:
    """Writes `push-<digest>.json` beside the export folder and returns its path."""
    folder = folder.resolve()
    path = folder.with_name(f"push-{folder.name.rpartition('-')[2]}.json")
    facts = {
        "repo": receipt.repo,
        "revision": receipt.revision,
        "commit": receipt.commit,
        "url": receipt.url,
        "time": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "bytes": receipt.num_bytes,
        "sent": list(receipt.sent),
        "files": {file.name: {"size": file.size, "sha256": file.sha256} for file in receipt.files},
    }
    try:
        artifacts.write_json(path, facts)
    except OSError as error:
        raise PushError(
            f"{receipt.url} is there, but its receipt {path} cannot be written: {error.strerror}"
        ) from error
    return path
