"""Sends an exported folder to the Hugging Face Hub as one commit, and retries until it is there."""

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

# exported when asked for, which mypy does not see
from huggingface_hub.utils import httpx, parse_ratelimit_headers  # type: ignore[attr-defined]
from huggingface_hub.utils.sha import git_hash

from gportuguese import artifacts
from gportuguese.config import UserError

log = logging.getLogger("gportuguese")

_T = TypeVar("_T")

_TRIES = 6
_TIMEOUT_SECONDS = 300.0  # without a byte; the Hub may take a minute over a large commit
# 409 and 412: somebody else's commit came in between, so look again
_TRANSIENT = (408, 409, 412, 429, 500, 502, 503, 504)
_CONNECTION_LOSS = (httpx.TimeoutException, httpx.NetworkError, httpx.RemoteProtocolError)
# RuntimeError: an upload; ValueError: a README, or an answer that cannot be read
_FAILURES = (httpx.HTTPError, OSError, RuntimeError, ValueError)
_ADVICE = {
    401: "run `hf auth login`, or set HF_TOKEN to a token that may write",
    402: "see {endpoint}/settings/billing",
    403: "this token may not write there: make one with the role 'write' at "
    "{endpoint}/settings/tokens, or choose a repository under a name of your own",
    404: "check --repo and --revision: it has no such repository or branch, or hides it from this "
    "token",
    412: "others keep committing in between, or this token may only open pull requests: run again "
    "later, or with a token that may write",
}


class PushError(UserError):
    """The Hub cannot be reached or refuses, or the folder is no export."""


@dataclass(frozen=True)
class PlannedFile:
    """A file as it is to be on the Hub."""

    name: str
    """Path in the folder and in the repository."""
    content: Path | bytes
    size: int
    sha256: str

    def is_same(self, there: RepoFile) -> bool:
        """Whether the Hub's file has this content: by SHA-256 for large files, else git's SHA-1."""
        if there.lfs is not None:
            return bool(there.lfs.sha256 == self.sha256)
        if there.size != self.size:
            return False
        content = self.content if isinstance(self.content, bytes) else self.content.read_bytes()
        return bool(there.blob_id == git_hash(content))


@dataclass(frozen=True)
class Receipt:
    """What the Hub holds after a push."""

    repo: str
    revision: str
    commit: str
    """The commit that holds every file; an earlier one if there was nothing to send."""
    url: str
    sent: tuple[str, ...]
    """Names of the files that the Hub did not have; empty if nothing changed."""
    files: dict[str, dict[str, Any]]
    """Size and SHA-256 of every file."""


def plan(folder: Path, repo: str) -> list[PlannedFile]:
    """The files that a push of this export sends, each checked against the manifest.

    A card without `export.repo` gets `repo` in its examples. Raises `PushError` if the folder is no
    export, `ArtifactError` if anything in it is missing, was changed or was added.
    """
    folder = folder.resolve()
    if folder.name.rpartition("-")[0] != "export" or not folder.is_dir():
        raise PushError(f"{folder} is not the folder of an export; run: gpt-pt export")
    manifest = artifacts.open_artifact(folder).manifest
    if not manifest["files"]:
        raise PushError(f"{folder} holds no file to push; remove it and run: gpt-pt export")
    files = {
        name: PlannedFile(name, folder / name, facts["size"], facts["sha256"])
        for name, facts in sorted(manifest["files"].items())
    }
    if manifest["section"]["repo"] is None:
        text = (folder / "README.md").read_text(encoding="utf-8")
        # exports of older versions do not say what to replace, and stay as they are
        placeholder = manifest["facts"].get("repo")
        content = text.replace(f'("{placeholder}")', f'("{repo}")').encode()
        sha256 = hashlib.sha256(content).hexdigest()
        files["README.md"] = PlannedFile("README.md", content, len(content), sha256)
    return list(files.values())


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
    """Commits every file of an export that a repository's branch lacks; other files there stay.

    Repository and branch are made if absent; with nothing to send, no commit is made. `token` and
    `endpoint` are huggingface_hub's own (HF_TOKEN or `hf auth login`, HF_ENDPOINT) unless given. No
    message and no log line holds the token.

    Raises `PushError` saying what to do, `ArtifactError` if the folder is not as it was built.
    """
    if repo.count("/") != 1:
        raise PushError(f"--repo {repo}: give it as user/name or organization/name")
    files, branch, token = plan(folder, repo), revision or "main", _usable(token)
    api = HfApi(endpoint=endpoint, token=token, library_name="gportuguese")
    sent: set[str] = set()

    def make_ready() -> None:
        # None leaves it to an organization's own default, which may be private
        api.create_repo(repo, private=private or None, exist_ok=True)
        if private and api.model_info(repo).private is False:
            raise PushError(
                f"{repo} is there already and public; make it private at "
                f"{api.endpoint}/{repo}/settings, or leave out --private"
            )
        if branch != "main":
            api.create_branch(repo, branch=branch, exist_ok=True)

    def look_and_commit() -> str:
        # A try whose answer was lost may have landed, so each begins with a look. One that lands
        # only after the look moves the head, and the Hub refuses ours for its parent.
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

    patiently = partial(_patiently, repo, api.endpoint, token, sleep)
    patiently(make_ready)
    commit = patiently(look_and_commit)
    # the Hub leaves out, without a word, what the repository's .gitignore names
    if absent := patiently(partial(_missing, api, repo, files, commit)):
        raise PushError(
            f"{repo} does not hold {folder / absent[0].name} after commit {commit}; is the file "
            "named in the repository's .gitignore, or was it changed meanwhile?"
        )
    listed = {file.name: {"size": file.size, "sha256": file.sha256} for file in files}
    url = f"{api.endpoint}/{repo}/tree/{commit}"
    return Receipt(repo, branch, commit, url, tuple(sorted(sent)), listed)


def write_receipt(folder: Path, receipt: Receipt) -> Path:
    """Writes the receipt beside the export folder, a file for each branch, and returns its path."""
    folder = folder.resolve()
    branch = [] if receipt.revision == "main" else [receipt.revision]
    where = "/".join([receipt.repo, *branch]).replace("/", "--")  # as the Hub's own cache has it
    path = folder.with_name(f"push-{folder.name.rpartition('-')[2]}-{where}.json")
    now = datetime.now(timezone.utc).isoformat(timespec="seconds")
    try:
        artifacts.write_json(path, {**asdict(receipt), "time": now})
    except OSError as error:
        raise PushError(
            f"{receipt.url} is there, but its receipt {path} cannot be written: {error.strerror}"
        ) from error
    return path


def _usable(token: str | None) -> str:
    """The given token, or the one that huggingface_hub finds."""
    try:
        token = (token or get_token() or "").strip()
    except (OIDCError, DeviceCodeError, httpx.HTTPError) as error:
        raise PushError(f"no token ({type(error).__name__}); {_ADVICE[401]}") from None
    if not token:
        raise PushError(f"not logged in to the Hub; {_ADVICE[401]}")
    if not (token.isascii() and token.isprintable()) or " " in token:
        # sent as it is, the HTTP client would quote it in its complaint
        raise PushError("the token has characters that no token has; run `hf auth login` again")
    return token


def _missing(api: HfApi, repo: str, files: list[PlannedFile], commit: str) -> list[PlannedFile]:
    """Those of `files` that a commit does not hold, or holds with other content."""
    found = api.get_paths_info(repo, [file.name for file in files], revision=commit)
    there = {entry.path: entry for entry in found if isinstance(entry, RepoFile)}
    return [f for f in files if not (f.name in there and f.is_same(there[f.name]))]


def _patiently(
    repo: str, endpoint: str, token: str, sleep: Callable[[float], None], call: Callable[[], _T]
) -> _T:
    """The result of `call`, tried again while the Hub is overloaded or out of reach."""
    tries = 0
    while True:
        session = get_session()
        # by default the client waits on a dead connection for ever
        if session.timeout == httpx.Timeout(None):
            session.timeout = _TIMEOUT_SECONDS
        try:
            return call()
        except _FAILURES as error:
            tries += 1
            reason, advice = _explain(error, endpoint, token)
            wait = _wait_seconds(error, tries)
            if wait is None or tries == _TRIES:
                # not chained: the client's own message may quote what was sent
                raise PushError(f"cannot push to {repo}: {reason}; {advice}") from None
        log.info("%s; trying again in %.0f s", reason, wait)
        sleep(wait)


def _wait_seconds(error: Exception, tries: int) -> float | None:
    """How long to wait after so many tries: as the Hub asks, else doubled; None if it is no use.

    >>> _wait_seconds(httpx.ConnectError("refused"), tries=3)
    4.0
    """
    wait, cause = 2.0 ** (tries - 1), _cause(error)
    if not isinstance(cause, HfHubHTTPError):
        # in the middle of trouble, proxies answer with pages where JSON is due
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
    """What happened, without the token, and what to do about it."""
    cause = _cause(error)
    what, text, advice = type(cause).__name__, str(cause), "mend that and run again"
    again = "run again later: what has arrived is not sent twice"
    if isinstance(cause, HfHubHTTPError):
        status = cause.response.status_code
        what, text = f"{endpoint} answers {status}", cause.server_message or ""
        advice = _ADVICE.get(status, again if status in _TRANSIENT else advice)
        advice = advice.format(endpoint=endpoint)
    elif isinstance(cause, _CONNECTION_LOSS):
        what, advice = f"no connection to {endpoint}: {what}", f"check the network and {again}"
    text = " ".join(text.replace(token, "***").split())[:300]
    return f"{what} ({text})" if text else what, advice


def _cause(error: BaseException) -> BaseException:
    """The Hub's answer or the loss of connection behind an error, else the first in its chain."""
    while not isinstance(error, (HfHubHTTPError, *_CONNECTION_LOSS)) and error.__cause__:
        error = error.__cause__
    return error
