"""Pushes an exported folder to the Hugging Face Hub as one commit, with retries."""

from __future__ import annotations

import hashlib
import json
import logging
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from huggingface_hub import CommitOperationAdd, HfApi, get_session, get_token
from huggingface_hub.errors import (
    DeviceCodeError,
    HfHubHTTPError,
    OIDCError,
)
from huggingface_hub.hf_api import RepoFile

# lazy exports, which mypy does not see
from huggingface_hub.utils import httpx, parse_ratelimit_headers  # type: ignore[attr-defined]
from huggingface_hub.utils.sha import git_hash

from gportuguese import artifacts, atomic
from gportuguese.config import UserError

log = logging.getLogger("gportuguese")

_T = TypeVar("_T")

_TRIES = 6
_TIMEOUT_SECONDS = 300.0  # without receiving a byte; a large commit may take the Hub a minute
# 409 and 412: someone else committed in the meantime, so compare and commit again
_TRANSIENT = (408, 409, 412, 429, 500, 502, 503, 504)
_CONNECTION_LOSS = (httpx.TimeoutException, httpx.NetworkError, httpx.RemoteProtocolError)
# huggingface_hub raises RuntimeError for uploads, ValueError for a bad README or response
_FAILURES = (httpx.HTTPError, OSError, RuntimeError, ValueError)
_ADVICE = {
    401: "run `hf auth login`, or set HF_TOKEN to a token with write access",
    402: "see {endpoint}/settings/billing",
    403: "this token has no write access there: create one with the role 'write' at "
    "{endpoint}/settings/tokens, or choose a repository under your own name",
    404: "check --repo and --revision: the repository or branch does not exist, or this token may "
    "not see it",
    412: "other people keep committing, or this token may only open pull requests: run again later, "
    "or use a token with write access",
}


class PushError(UserError):
    """The Hub is unreachable or rejects the push, or the folder is not an export."""


@dataclass(frozen=True)
class PlannedFile:
    """A file as it should be on the Hub."""

    name: str
    """Path, relative to the folder and to the repository."""
    content: Path | bytes
    size: int
    sha256: str

    def is_same(self, there: RepoFile) -> bool:
        """Whether the Hub's file has this content. Large files have a SHA-256, others git's SHA-1."""
        if there.lfs is not None:
            return bool(there.lfs.sha256 == self.sha256)
        if there.size != self.size:
            return False
        content = self.content if isinstance(self.content, bytes) else self.content.read_bytes()
        return bool(there.blob_id == git_hash(content))


@dataclass(frozen=True)
class Receipt:
    """The state of the Hub after a push."""

    repo: str
    revision: str
    commit: str
    """The commit that holds every file; the previous head if there was nothing to send."""
    url: str
    sent: tuple[str, ...]
    """Names of the files that were sent; empty if nothing changed."""
    files: dict[str, dict[str, Any]]
    """Size and SHA-256 of every file."""


def plan(folder: Path, repo: str) -> list[PlannedFile]:
    """The files of an export, checked against its manifest.

    If `export.repo` is not set, the examples of the card get `repo`. Raises `PushError` if the folder
    is not an export, and `ArtifactError` if a file is missing, changed or added.
    """
    if repo.count("/") != 1:
        raise PushError(f"--repo {repo}: write it as user/name or organization/name")
    folder = folder.resolve()
    if folder.name.rpartition("-")[0] != "export" or not folder.is_dir():
        raise PushError(f"{folder} is not an export folder; run: gpt-pt export")
    manifest = artifacts.open_artifact(folder).manifest
    if not manifest["files"]:
        raise PushError(f"{folder} has no files to push; remove it and run: gpt-pt export")
    files = {
        name: PlannedFile(name, folder / name, facts["size"], facts["sha256"])
        for name, facts in sorted(manifest["files"].items())
    }
    if manifest["section"]["repo"] is None:
        text = (folder / "README.md").read_text(encoding="utf-8")
        # exports of older versions do not record their placeholder; their cards stay unchanged
        placeholder = manifest["facts"].get("repo")
        content = text.replace(f'("{placeholder}")', f'("{repo}")').encode()
        sha256 = hashlib.sha256(content).hexdigest()
        files["README.md"] = PlannedFile("README.md", content, len(content), sha256)
    return list(files.values())


def listing(
    files: list[PlannedFile], repo: str, *, private: bool = False, revision: str | None = None
) -> str:
    """The files as text: one line per file with its size, and the total."""
    return "\n".join(
        [
            f"to {repo}, branch {revision or 'main'}, in one commit, unless the Hub already has them"
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
    """Commits the files of an export that are missing or different in a repository's branch.

    Creates the repository and branch if they are missing. Other files there stay. If nothing differs,
    there is no commit. `token` and `endpoint` default to those of huggingface_hub (HF_TOKEN or
    `hf auth login`, HF_ENDPOINT). The token never appears in messages or log lines.

    Raises `PushError` that says what to do, and `ArtifactError` if the folder was changed.
    """
    files, branch, token = plan(folder, repo), revision or "main", _resolve_token(token)
    api = HfApi(endpoint=endpoint, token=token, library_name="gportuguese")
    sent: set[str] = set()

    def prepare() -> None:
        # None uses the organization's default, which may be private
        api.create_repo(repo, private=private or None, exist_ok=True)
        if private and api.model_info(repo).private is False:
            raise PushError(
                f"{repo} already exists and is public; make it private at "
                f"{api.endpoint}/{repo}/settings, or leave out --private"
            )
        if branch != "main":
            api.create_branch(repo, branch=branch, exist_ok=True)

    def compare_and_commit() -> str:
        # An attempt may have succeeded even if its response was lost, so each compares first. If it
        # succeeds only after the comparison, the head moves and the Hub rejects our parent commit.
        head = str(api.model_info(repo, revision=branch).sha)
        missing = _missing(api, repo, files, head)
        if not missing:
            return head
        sent.update(file.name for file in missing)
        log.info("%s: sending %d of %d files", repo, len(missing), len(files))
        return api.create_commit(
            repo,
            [CommitOperationAdd(file.name, file.content) for file in missing],
            commit_message=f"Push {folder.resolve().name}",
            revision=branch,
            parent_commit=head,
        ).oid

    retry = partial(_retry, repo, api.endpoint, token, sleep)
    retry(prepare)
    commit = retry(compare_and_commit)
    # the Hub silently drops files that match the repository's .gitignore
    if absent := retry(partial(_missing, api, repo, files, commit)):
        raise PushError(
            f"{folder / absent[0].name} is not in commit {commit} of {repo}; check the "
            "repository's .gitignore, and whether the file was changed during the push"
        )
    listed = {file.name: {"size": file.size, "sha256": file.sha256} for file in files}
    url = f"{api.endpoint}/{repo}/tree/{commit}"
    return Receipt(repo, branch, commit, url, tuple(sorted(sent)), listed)


def write_receipt(folder: Path, receipt: Receipt) -> Path:
    """Writes the receipt next to the export folder, one file per branch, and returns its path."""
    folder = folder.resolve()
    branch = [] if receipt.revision == "main" else [receipt.revision]
    where = "/".join([receipt.repo, *branch]).replace("/", "--")  # like the Hub's cache
    path = folder.with_name(f"push-{folder.name.rpartition('-')[2]}-{where}.json")
    now = datetime.now(timezone.utc).isoformat(timespec="seconds")
    try:
        atomic.write_json(path, {**asdict(receipt), "time": now})
    except OSError as error:
        raise PushError(
            f"pushed to {receipt.url}, but cannot write the receipt {path}: {error.strerror}"
        ) from error
    return path


def _resolve_token(token: str | None) -> str:
    """The given token, or the one huggingface_hub finds; raises `PushError` if it is unusable."""
    try:
        token = (token or get_token() or "").strip()
    except (OIDCError, DeviceCodeError, httpx.HTTPError) as error:
        raise PushError(f"no token ({type(error).__name__}); {_ADVICE[401]}") from None
    if not token:
        raise PushError(f"not logged in to the Hub; {_ADVICE[401]}")
    if not (token.isascii() and token.isprintable()) or " " in token:
        # the HTTP client would quote such a token in its error message
        raise PushError("the token contains invalid characters; run `hf auth login` again")
    return token


def _missing(api: HfApi, repo: str, files: list[PlannedFile], commit: str) -> list[PlannedFile]:
    """The files that are missing or different in a commit."""
    found = api.get_paths_info(repo, [file.name for file in files], revision=commit)
    there = {entry.path: entry for entry in found if isinstance(entry, RepoFile)}
    return [f for f in files if not (f.name in there and f.is_same(there[f.name]))]


def _retry(
    repo: str, endpoint: str, token: str, sleep: Callable[[float], None], call: Callable[[], _T]
) -> _T:
    """The result of `call`, retried while the Hub is overloaded or unreachable."""
    tries = 0
    while True:
        session = get_session()
        # by default, the client waits forever on a dead connection
        if session.timeout == httpx.Timeout(None):
            session.timeout = _TIMEOUT_SECONDS
        try:
            return call()
        except _FAILURES as error:
            tries += 1
            reason, advice = _explain(error, endpoint, token)
            wait = _wait_seconds(error, tries)
            if wait is None or tries == _TRIES:
                # not chained: the client's message may quote the token
                raise PushError(f"cannot push to {repo}: {reason}; {advice}") from None
        log.info("%s; retrying in %.0f s", reason, wait)
        sleep(wait)


def _wait_seconds(error: Exception, tries: int) -> float | None:
    """Seconds to wait before the next try; None if retrying cannot help.

    The Hub may ask for a time; otherwise the wait doubles with every try.

    >>> _wait_seconds(httpx.ConnectError("refused"), tries=3)
    4.0
    """
    wait, cause = 2.0 ** (tries - 1), _cause(error)
    if not isinstance(cause, HfHubHTTPError):
        # during an outage, proxies answer with HTML instead of JSON
        is_transient = isinstance(cause, (*_CONNECTION_LOSS, json.JSONDecodeError))
        return wait if is_transient else None
    if cause.response.status_code not in _TRANSIENT:
        return None
    headers = cause.response.headers
    limit = parse_ratelimit_headers(headers)
    if limit is not None and limit.remaining == 0:
        wait = float(limit.reset_in_seconds)
    if headers.get("Retry-After", "").isdigit():
        wait = float(headers["Retry-After"])
    return min(wait, 600.0)


def _explain(error: Exception, endpoint: str, token: str) -> tuple[str, str]:
    """The reason of a failure, without the token, and what to do about it."""
    cause = _cause(error)
    what, text, advice = type(cause).__name__, str(cause), "fix that and run again"
    again = "run again later: files that have arrived are not sent again"
    if isinstance(cause, HfHubHTTPError):
        status = cause.response.status_code
        what, text = f"{endpoint} responded with {status}", cause.server_message or ""
        advice = _ADVICE.get(status, again if status in _TRANSIENT else advice)
        advice = advice.format(endpoint=endpoint)
    elif isinstance(cause, _CONNECTION_LOSS):
        what, advice = f"no connection to {endpoint}: {what}", f"check the network and {again}"
    text = " ".join(text.replace(token, "***").split())[:300]
    return f"{what} ({text})" if text else what, advice


def _cause(error: BaseException) -> BaseException:
    """The Hub's response or connection loss behind an error, otherwise the root of its chain."""
    while not isinstance(error, (HfHubHTTPError, *_CONNECTION_LOSS)) and error.__cause__:
        error = error.__cause__
    return error
