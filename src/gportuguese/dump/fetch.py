"""Downloads a dump from Wikimedia's host or a mirror: resumed, retried, and verified by SHA-1."""

from __future__ import annotations

import hashlib
import json
import logging
import re
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import requests
from urllib3.exceptions import HTTPError

from gportuguese import atomic
from gportuguese.config import DumpConfig
from gportuguese.dump.connection import MAX_RETRIES, TIMEOUTS, in_words, patient_session
from gportuguese.dump.reader import DumpError
from gportuguese.progress import Advance, track

log = logging.getLogger("gportuguese")

HOST = "https://dumps.wikimedia.org"
# Wikis dumped in parts list the single file under the second job, which finishes later.
_JOB, _RECOMBINE = "articlesmultistreamdump", "articlesmultistreamdumprecombine"
_CHUNK = 1 << 20
_MAX_STALLS = MAX_RETRIES  # consecutive tries without a byte
_ELSEWHERE = "or set dump.source to a dump that you have, or dump.mirror to another host"


class NoRunError(DumpError):
    """The host has no such run."""


@dataclass(frozen=True)
class RemoteFile:
    """A file to download, with its size and SHA-1 if the host lists them."""

    url: str
    size: int | None = None
    sha1: str | None = None

    @property
    def name(self) -> str:
        """The file's name."""
        return self.url.rsplit("/", 1)[-1]


class Host:
    """A server with the layout of Wikimedia's dump host; one connection at a time.

    Overloaded servers (429, 503) are asked again after the time they ask for, or else after
    `wait_seconds`, doubled each time. Proxies are taken from HTTPS_PROXY and similar variables.
    """

    def __init__(self, mirror: str | None = None, wait_seconds: float = 1.0) -> None:
        self.base = (mirror or HOST).rstrip("/")
        self.wait_seconds = wait_seconds
        self.session = patient_session(wait_seconds)

    def __enter__(self) -> Host:
        return self

    def __exit__(self, *_: object) -> None:
        self.session.close()

    def find_run(self, section: DumpConfig) -> tuple[str, list[RemoteFile]]:
        """Date and files (dump, then index) of a finished multistream run; `latest` is the newest.

        Raises `NoRunError` if the host has none, and `DumpError` if it cannot be reached.
        """
        folder = f"{self.base}/{section.wiki}"
        run = "the latest run" if section.date == "latest" else f"run {section.date}"
        log.info("dump: asking %s for %s", folder, run)
        if section.date != "latest":
            dates = [section.date]
        else:
            listing = self._text(f"{folder}/") or ""
            dates = sorted(set(re.findall(r'href="(?:[^"]*/)?(\d{8})/?"', listing)), reverse=True)
        for date in dates:
            try:
                files = self._files_of(section.wiki, date)
            except DumpError as error:
                if section.date != "latest":
                    raise
                log.info("skipping %s: %s", date, error)
                continue
            if files:
                return date, files
        raise NoRunError(
            f"{folder}: no run {section.date} whose {_JOB} is done; check dump.wiki and dump.date"
        )

    def _files_of(self, wiki: str, date: str) -> list[RemoteFile]:
        """Dump and index of a finished run; empty if it is unfinished or missing."""
        folder = f"{self.base}/{wiki}/{date}"
        text = self._text(f"{folder}/dumpstatus.json")
        if text is None:
            return []
        try:
            jobs = json.loads(text)["jobs"]
            job = jobs[_RECOMBINE if _RECOMBINE in jobs else _JOB]
            if job["status"] != "done":
                return []
            ends = ("multistream.xml.bz2", "multistream-index.txt.bz2")
            names = [f"{wiki}-{date}-pages-articles-{end}" for end in ends]
            return [
                RemoteFile(f"{folder}/{name}", int(facts["size"]), str(facts["sha1"]))
                for name, facts in ((name, job["files"][name]) for name in names)
            ]
        except (ValueError, KeyError, TypeError) as error:
            raise DumpError(
                f"{folder}/dumpstatus.json does not list a multistream dump ({error!r}); "
                "choose another dump.date or give dump.source"
            ) from error

    def _text(self, url: str) -> str | None:
        """The text of a small page; None if it does not exist."""
        try:
            answer = self.session.get(url, timeout=TIMEOUTS)
        except requests.RequestException as error:
            raise _unreachable(url, error) from error
        if answer.status_code == 404:
            return None
        if not answer.ok:
            raise DumpError(f"{url}: the server answers {answer.status_code} {answer.reason}")
        return str(answer.text)

    def fetch(self, file: RemoteFile, path: Path) -> dict[str, Any]:
        """Downloads `file` to `path`, resuming an earlier try; returns its receipt.

        Raises `DumpError` if the remote file changed during the download, if size or SHA-1 differ from
        the listed ones, or if the download stalls. The bytes received are kept for the next try. A file
        without its `.download.json` is complete and is only verified.
        """
        stalls = 0
        with track(file.name, float(file.size or 0)) as advance:
            advance(_size(path), resumed=True)
            while not _is_whole(path):
                have = _size(path)
                reason = self._fetch_rest(file, path, have, advance)
                if reason is None:
                    break
                stalls = 0 if _size(path) > have else stalls + 1
                if stalls == _MAX_STALLS:
                    raise DumpError(
                        f"{file.url}: the download stalled at {_size(path):,} bytes: {reason}; run "
                        f"again to resume it, {_ELSEWHERE}"
                    )
                wait = self.wait_seconds * 2**stalls
                log.info(
                    "%s: %s; resuming at byte %d in %.0f s", file.name, reason, _size(path), wait
                )
                time.sleep(wait)
        log.info("%s: checking the SHA-1", file.name)
        sha1, sha256 = _digests(path)
        if file.sha1 not in (None, sha1):
            path.unlink()
            raise DumpError(
                f"{file.url} arrived with SHA-1 {sha1}, but {file.sha1} is listed; the file was removed, "
                "run again"
            )
        _state(path).unlink(missing_ok=True)
        return {"url": file.url, "size": _size(path), "sha1": sha1, "sha256": sha256}

    def _fetch_rest(self, file: RemoteFile, path: Path, have: int, advance: Advance) -> str | None:
        """One request for the missing bytes; returns None, or why the file is still incomplete."""
        headers = {"Range": f"bytes={have}-"} if have else {}
        start, first = time.monotonic(), have
        try:
            with self.session.get(
                file.url, headers=headers, stream=True, timeout=TIMEOUTS
            ) as answer:
                total = _total(answer)
                saved_size = (_saved_version(path) or {"size": total})["size"]
                if answer.status_code == 416 and total == have == saved_size:
                    return None
                if answer.status_code not in (200, 206, 416):
                    raise DumpError(
                        f"{file.url}: the server answers {answer.status_code} {answer.reason}"
                    )
                _check_same_file(file, path, have, total, answer)
                if answer.status_code == 200 and have:  # the server ignores Range
                    advance(-have, resumed=True)
                    have = first = 0
                with path.open("r+b" if have else "wb") as out:
                    out.seek(have)
                    # read1 returns what has arrived, so that no byte is lost if the connection breaks
                    while chunk := answer.raw.read1(_CHUNK):
                        out.write(chunk)
                        have += len(chunk)
                        rate = (have - first) / 1e6 / max(time.monotonic() - start, 1e-9)
                        advance(len(chunk), f"{have / 1e6:,.0f} MB, {rate:,.1f} MB/s")
        except requests.RequestException as error:
            if not have:
                raise _unreachable(file.url, error) from error
            return in_words(error)
        except HTTPError as error:
            return in_words(error)
        return None if total in (None, have) else "the connection broke off"


def _unreachable(url: str, error: requests.RequestException) -> DumpError:
    return DumpError(f"cannot reach {url}: {in_words(error)}; check the network, {_ELSEWHERE}")


def _check_same_file(
    file: RemoteFile, path: Path, have: int, total: int | None, answer: requests.Response
) -> None:
    """Raises `DumpError` if this is not the listed file, or not the one of the earlier try."""
    if file.size is not None and total is not None and total != file.size:
        raise DumpError(f"{file.url} has {total:,} bytes, but {file.size:,} are listed; try later")
    version = {
        "size": total,
        "etag": answer.headers.get("ETag"),
        "modified": answer.headers.get("Last-Modified"),
    }
    saved = _saved_version(path)
    starts = answer.headers.get("Content-Range", f"bytes {have}-").startswith(f"bytes {have}-")
    if have and (saved != version or answer.status_code == 416 or not starts):
        raise DumpError(
            f"{file.url} changed since {have:,} bytes of it were downloaded; remove {path} to start again"
        )
    if saved != version:
        atomic.write_json(_state(path), version)


def _total(answer: requests.Response) -> int | None:
    """Size of the whole remote file, if the server states it."""
    if answer.status_code in (206, 416):
        total = answer.headers.get("Content-Range", "").rpartition("/")[2]
    else:
        total = answer.headers.get("Content-Length", "")
    return int(total) if total.isdigit() else None


def _state(path: Path) -> Path:
    return path.with_name(path.name + ".download.json")


def _is_whole(path: Path) -> bool:
    """Whether the download is complete: its state file is written first and removed last."""
    return path.exists() and not _state(path).exists()


def _saved_version(path: Path) -> dict[str, Any] | None:
    """Size and version of the remote file at the first try; None before it."""
    state = _state(path)
    return dict(json.loads(state.read_text(encoding="utf-8"))) if state.exists() else None


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _digests(path: Path) -> tuple[str, str]:
    """SHA-1, which the host lists, and SHA-256, which identifies the dump here, in one reading."""
    sha1, sha256 = hashlib.sha1(usedforsecurity=False), hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            sha1.update(chunk)
            sha256.update(chunk)
    return sha1.hexdigest(), sha256.hexdigest()
