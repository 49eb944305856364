"""Pushes an exported folder to the Hugging Face Hub as one commit, with retries.

huggingface_hub retries the parts of an upload and skips those that the Hub's storage has. It sends the commit
only once and waits for the response without a limit, so this module compares, commits and retries.
"""

from __future__ import annotations

import hashlib
import json
import logging
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from huggingface_hub import CommitOperationAdd, HfApi, get_session, get_token
from huggingface_hub.errors import DeviceCodeError, HfHubHTTPError, OIDCError
from huggingface_hub.hf_api import RepoFile

# The HTTP library whose errors huggingface_hub raises: httpx2 at present, httpx before. It exports
# either under this name, but lazily, so mypy does not see it.
from huggingface_hub.utils import httpx, parse_ratelimit_headers  # type: ignore[attr-defined]
from huggingface_hub.utils.sha import git_hash

from gportuguese import artifacts, atomic
from gportuguese.config import UserError

log = logging.getLogger("gportuguese")

_T = TypeVar("_T")

_TRIES = 6
_TIMEOUT_SECONDS = 300.0  # without receiving a byte; a large commit may take the Hub a minute
_LONGEST_WAIT = 600.0  # seconds, if the Hub asks for more
# 409 and 412: someone else committed in the meantime, so compare and commit again
_TRANSIENT = (408, 409, 412, 429, 500, 502, 503, 504)
_CONNECTION_LOSS = (httpx.TimeoutException, httpx.NetworkError, httpx.RemoteProtocolError)
# huggingface_hub raises RuntimeError for uploads, ValueError for a bad README or response
_FAILURES = (httpx.HTTPError, OSError, RuntimeError, ValueError)
_AGAIN = "run again later: files that have arrived are not sent again"
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


class PlannedFile(NamedTuple):
    """A file as it should be on the Hub."""

    name: str
    """Path, relative to the folder and to the repository."""
    content: Path | bytes
    size: int
    sha256: str


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
    if artifacts.parts_of(folder)[0] != "export" or not folder.is_dir():
        raise PushError(f"{folder} is not an export folder; run: gpt-pt export")
    manifest = artifacts.open_artifact(folder).manifest
    if not manifest["files"]:
        raise PushError(f"{folder} has no files to push; remove it and run: gpt-pt export")
    files = {
        name: PlannedFile(name, folder / name, facts["size"], facts["sha256"])
        for name, facts in sorted(manifest["files"].items())
    }
    if manifest["section"]["repo"] is None:
        # exports of older versions do not record their placeholder; their cards stay unchanged
        placeholder = manifest["facts"].get("repo")
        text = (folder / "README.md").read_text(encoding="utf-8")
        content = text.replace(f'("{placeholder}")', f'("{repo}")').encode()
        sha256 = hashlib.sha256(content).hexdigest()
        files["README.md"] = PlannedFile("README.md", content, len(content), sha256)
    return list(files.values())


def listing(
    files: list[PlannedFile], repo: str, *, private: bool = False, revision: str | None = None
) -> str:
    """The files as text: one line per file with its size, and the total."""
    where = (
        f"to {repo}, branch {revision or 'main'}, in one commit, unless the Hub already has them"
    )
    lines = [f"{file.size:15,}  {file.name}" for file in files]
    total = f"{sum(file.size for file in files):15,}  bytes in {len(files)} files"
    return "\n".join([where + (" (private):" if private else ":"), *lines, total])


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

    def compare_and_commit() -> str:
        # None uses the organization's default, which may be private
        api.create_repo(repo, private=private or None, exist_ok=True)
        if private and api.model_info(repo).private is False:
            raise PushError(
                f"{repo} already exists and is public; make it private at "
                f"{api.endpoint}/{repo}/settings, or leave out --private"
            )
        if branch != "main":
            api.create_branch(repo, branch=branch, exist_ok=True)
        # An attempt may have succeeded even if its response was lost, so each compares first. If it
        # succeeds only after the comparison, the head moves and the Hub rejects our parent commit.
        head = str(api.model_info(repo, revision=branch).sha)
        missing = _missing(api, repo, files, head)
        if not missing:
            return head
        sent.update(file.name for file in missing)
        log.info("%s: sending %d of %d files", repo, len(missing), len(files))
        commit = api.create_commit(
            repo,
            [CommitOperationAdd(file.name, file.content) for file in missing],
            commit_message=f"Push {folder.resolve().name}",
            revision=branch,
            parent_commit=head,
        ).oid
        # the Hub silently drops files that match the repository's .gitignore
        if absent := _missing(api, repo, files, commit):
            raise PushError(
                f"{folder / absent[0].name} is not in commit {commit} of {repo}; check the "
                "repository's .gitignore, and whether the file was changed during the push"
            )
        return commit

    commit = _retry(compare_and_commit, repo, api.endpoint, token, sleep)
    listed = {file.name: {"size": file.size, "sha256": file.sha256} for file in files}
    url = f"{api.endpoint}/{repo}/tree/{commit}"
    return Receipt(repo, branch, commit, url, tuple(sorted(sent)), listed)


def write_receipt(folder: Path, receipt: Receipt) -> Path:
    """Writes the receipt next to the export folder, one file per branch, and returns its path."""
    folder = folder.resolve()
    branch = "" if receipt.revision == "main" else f"/{receipt.revision}"
    where = f"{receipt.repo}{branch}".replace("/", "--")  # like the Hub's cache
    path = folder.with_name(f"push-{artifacts.parts_of(folder)[1]}-{where}.json")
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
    return [file for file in files if not _is_same(file, there.get(file.name))]


def _is_same(file: PlannedFile, there: RepoFile | None) -> bool:
    """Whether the Hub has a file's content. It lists large files with SHA-256, others with git's SHA-1."""
    if there is None or there.size != file.size:
        return False
    if there.lfs is not None:
        return bool(there.lfs.sha256 == file.sha256)
    content = file.content if isinstance(file.content, bytes) else file.content.read_bytes()
    return bool(there.blob_id == git_hash(content))


def _retry(
    call: Callable[[], _T], repo: str, endpoint: str, token: str, sleep: Callable[[float], None]
) -> _T:
    """The result of `call`, retried while the Hub is overloaded or unreachable."""
    tries = 0
    while True:
        session = get_session()
        if session.timeout == httpx.Timeout(None):  # it would wait forever on a dead connection
            session.timeout = _TIMEOUT_SECONDS
        try:
            return call()
        except _FAILURES as error:
            reason, advice, wait = _explain(error, endpoint, token, 2.0**tries)
            tries += 1
            if wait is None or tries == _TRIES:
                # not chained: the client's message may quote the token
                raise PushError(f"cannot push to {repo}: {reason}; {advice}") from None
        log.info("%s; retrying in %.0f s", reason, wait)
        sleep(wait)


def _explain(
    error: BaseException, endpoint: str, token: str, wait: float
) -> tuple[str, str, float | None]:
    """The reason of a failure, without the token; what to do; and the seconds to wait before a retry.

    The seconds are `wait` unless the Hub asks for another time, and None if a retry cannot help.
    """
    # the Hub's response or the connection loss behind an error, otherwise the root of its chain
    while not isinstance(error, (HfHubHTTPError, *_CONNECTION_LOSS)) and error.__cause__:
        error = error.__cause__
    what, text, advice = type(error).__name__, str(error), "fix that and run again"
    # during an outage, proxies answer with HTML instead of JSON
    is_transient = isinstance(error, (*_CONNECTION_LOSS, json.JSONDecodeError))
    if isinstance(error, HfHubHTTPError):
        status, headers = error.response.status_code, error.response.headers
        is_transient = status in _TRANSIENT
        what, text = f"{endpoint} responded with {status}", error.server_message or ""
        advice = _ADVICE.get(status, _AGAIN if is_transient else advice).format(endpoint=endpoint)
        limit = parse_ratelimit_headers(headers)
        if limit is not None and limit.remaining == 0:
            wait = float(limit.reset_in_seconds)
        if headers.get("Retry-After", "").isdigit():
            wait = float(headers["Retry-After"])
    elif isinstance(error, _CONNECTION_LOSS):
        what, advice = f"no connection to {endpoint}: {what}", f"check the network and {_AGAIN}"
    text = " ".join(text.replace(token, "***").split())[:300]
    reason = f"{what} ({text})" if text else what
    return reason, advice, min(wait, _LONGEST_WAIT) if is_transient else None
