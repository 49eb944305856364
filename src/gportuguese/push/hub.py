"""One branch of a repository on the Hub: what it holds, and how files get there exactly once."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from huggingface_hub import CommitOperationAdd, HfApi, get_session, get_token
from huggingface_hub.errors import (
    DeviceCodeError,
    OIDCError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.hf_api import RepoFile
from huggingface_hub.utils import httpx  # type: ignore[attr-defined]  # exported when asked for

from gportuguese.config import UserError
from gportuguese.push import answers

log = logging.getLogger("gportuguese")

_T = TypeVar("_T")

_TRIES = 6
_TIMEOUT_SECONDS = 300.0  # without a byte; the Hub may take a minute over a large commit
_MAX_PATHS = 500  # the Hub refuses to look up more than 1,000 at once


class PushError(UserError):
    """The Hub cannot be reached or refuses, or the folder is no export."""


@dataclass(frozen=True)
class PlannedFile:
    """A file of an export, as its manifest lists it."""

    name: str
    """Path in the folder and in the repository."""
    path: Path
    size: int
    sha256: str


class Branch:
    """A branch to push to. Nothing that comes from here holds the token: no message, no log line."""

    def __init__(
        self,
        repo: str,
        revision: str,
        token: str | None,
        endpoint: str | None,
        sleep: Callable[[float], None],
    ) -> None:
        if repo.count("/") != 1:
            raise PushError(f"--repo {repo}: give it as user/name or organization/name")
        self.repo, self.revision = repo, revision
        self._token, self._sleep = _usable(token), sleep
        self._api = HfApi(endpoint=endpoint, token=self._token, library_name="gportuguese")
        self.endpoint = self._api.endpoint

    def make_ready(self, private: bool) -> None:
        """Makes repository and branch where they are absent.

        Raises `PushError` if it is to be private and is there already, open to all.
        """
        self._patiently(lambda: self._make_repository(private))
        self._patiently(self._make_branch)

    def _make_repository(self, private: bool) -> None:
        try:
            info = self._api.model_info(self.repo)
        except RepositoryNotFoundError:
            # None leaves it to an organization's own default, which may be private
            self._api.create_repo(self.repo, private=private or None, exist_ok=True)
            info = self._api.model_info(self.repo)
        if private and info.private is False:
            raise PushError(
                f"{self.repo} is there already and public; make it private at "
                f"{self.endpoint}/{self.repo}/settings, or leave out --private"
            )

    def _make_branch(self) -> None:
        try:
            self._api.model_info(self.repo, revision=self.revision)
        except RevisionNotFoundError:
            self._api.create_branch(self.repo, branch=self.revision, exist_ok=True)

    def land(self, files: list[PlannedFile], message: str) -> tuple[str, tuple[str, ...]]:
        """The commit that holds all `files`, and the names of those that had to be sent."""
        sent: set[str] = set()

        def look_and_commit() -> str:
            # A try whose answer was lost may have landed, so each begins with a look. One that
            # lands only after the look moves the head, and the Hub refuses ours for its parent.
            head = self._api.model_info(self.repo, revision=self.revision).sha
            assert head is not None
            missing = self._missing(files, head)
            if not missing:
                return head
            sent.update(file.name for file in missing)
            log.info("%s: sending %d of %d files", self.repo, len(missing), len(files))
            return self._api.create_commit(
                self.repo,
                [CommitOperationAdd(file.name, file.path) for file in missing],
                commit_message=message,
                revision=self.revision,
                parent_commit=head,
            ).oid

        commit = self._patiently(look_and_commit)
        # the Hub leaves out, without a word, what the repository's .gitignore names
        if absent := self._patiently(lambda: self._missing(files, commit)):
            raise PushError(
                f"{self.repo} does not hold {absent[0].path} after commit {commit}; is the file "
                "named in the repository's .gitignore, or was it changed meanwhile?"
            )
        return commit, tuple(sorted(sent))

    def _missing(self, files: list[PlannedFile], commit: str) -> list[PlannedFile]:
        """Those of `files` that a commit does not hold, or holds with other content."""
        there: dict[str, RepoFile] = {}
        for start in range(0, len(files), _MAX_PATHS):
            names = [file.name for file in files[start : start + _MAX_PATHS]]
            for entry in self._api.get_paths_info(self.repo, names, revision=commit):
                if isinstance(entry, RepoFile):
                    there[entry.path] = entry
        return [
            file for file in files if not (file.name in there and _is_same(file, there[file.name]))
        ]

    def _patiently(self, call: Callable[[], _T]) -> _T:
        """The result of `call`, tried again while the Hub is overloaded or out of reach."""
        tries = 0
        while True:
            session = get_session()
            # by default the client waits on a dead connection for ever
            if session.timeout == httpx.Timeout(None):
                session.timeout = _TIMEOUT_SECONDS
            try:
                return call()
            except answers.FAILURES as error:
                tries += 1
                reason = answers.reason(error, self.endpoint, self._token)
                wait = answers.wait_seconds(error, tries)
                if wait is None or tries == _TRIES:
                    todo = answers.advice(error, self.endpoint)
                    # not chained: the client's own message may quote what was sent
                    raise PushError(f"cannot push to {self.repo}: {reason}; {todo}") from None
            log.info("%s; trying again in %.0f s", reason, wait)
            self._sleep(wait)


def _usable(token: str | None) -> str:
    """The given token, or the one that huggingface_hub finds."""
    try:
        token = (token or get_token() or "").strip()
    except (OIDCError, DeviceCodeError, httpx.HTTPError) as error:
        kind = type(error).__name__
        raise PushError(f"no token ({kind}); run `hf auth login`, or set HF_TOKEN") from None
    if not token:
        raise PushError(
            "not logged in to the Hub; run `hf auth login`, or set HF_TOKEN to a token that may "
            "write"
        )
    if not (token.isascii() and token.isprintable()) or " " in token:
        # sent as it is, the HTTP client would quote it in its complaint
        raise PushError("the token has characters that no token has; run `hf auth login` again")
    return token


def _is_same(file: PlannedFile, there: RepoFile) -> bool:
    """Whether the Hub's file has this content: by SHA-256 for large files, else git's SHA-1."""
    if there.lfs is not None:
        return bool(there.lfs.sha256 == file.sha256)
    return there.size == file.size and there.blob_id == _blob_id(file.path)


def _blob_id(path: Path) -> str:
    """What git calls a file's content."""
    sha1 = hashlib.sha1(f"blob {path.stat().st_size}\0".encode(), usedforsecurity=False)
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            sha1.update(chunk)
    return sha1.hexdigest()
