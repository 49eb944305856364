"""Fetching a dump from Wikimedia's host or a mirror: resumed, retried, and verified by SHA-1."""

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
# Wikis dumped in parts list the single file under the second job, which ends later.
_JOB, _RECOMBINE = "articlesmultistreamdump", "articlesmultistreamdumprecombine"
_CHUNK = 1 << 20
_MAX_STALLS = MAX_RETRIES  # tries in a row that bring no byte
_ELSEWHERE = "or set dump.source to a dump that you have, or dump.mirror to another host"


class NoRunError(DumpError):
    """The host answers, and has no such run."""


@dataclass(frozen=True)
class RemoteFile:
    """A file to fetch and what is known of it beforehand."""

    url: str
    size: int | None = None
    sha1: str | None = None

    @property
    def name(self) -> str:
        """The file's name."""
        return self.url.rsplit("/", 1)[-1]


class Host:
    """A server laid out as Wikimedia's dump host is; one connection at a time.

    Overloaded servers (429, 503) are asked again after the time that they name, else after
    `wait_seconds`, doubled each time. Proxies come from HTTPS_PROXY and its kin.
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

        Raises `NoRunError` if the host has none, and `DumpError` if it cannot be asked.
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
                log.info("passing over %s: %s", date, error)
                continue
            if files:
                return date, files
        raise NoRunError(
            f"{folder}: no run {section.date} whose {_JOB} is done; check dump.wiki and dump.date"
        )

    def _files_of(self, wiki: str, date: str) -> list[RemoteFile]:
        """Dump and index of a finished run; empty if it is not finished or not there."""
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
        """A small page; None where the server has none."""
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
        """Fetches `file` into `path`, going on where an earlier try stopped; returns its receipt.

        Raises `DumpError` if the remote file changed under a half-finished download, if size or
        SHA-1 are not as listed, or if nothing comes any more. What came stays for the next try.
        A file without its `.download.json` is one that an earlier try finished; it is verified only.
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
                f"{file.url} arrived with SHA-1 {sha1}, but {file.sha1} is listed: it was removed, "
                "run again"
            )
        _state(path).unlink(missing_ok=True)
        return {"url": file.url, "size": _size(path), "sha1": sha1, "sha256": sha256}

    def _fetch_rest(self, file: RemoteFile, path: Path, have: int, advance: Advance) -> str | None:
        """One request for the bytes that are missing; None, or why the file is not whole yet."""
        headers = {"Range": f"bytes={have}-"} if have else {}
        start, first = time.monotonic(), have
        try:
            with self.session.get(
                file.url, headers=headers, stream=True, timeout=TIMEOUTS
            ) as answer:
                total = _total(answer)
                begun_size = (_begun(path) or {"size": total})["size"]
                if answer.status_code == 416 and total == have == begun_size:
                    return None
                if answer.status_code not in (200, 206, 416):
                    raise DumpError(
                        f"{file.url}: the server answers {answer.status_code} {answer.reason}"
                    )
                _check_same_file(file, path, have, total, answer)
                if answer.status_code == 200 and have:  # it ignores Range
                    advance(-have, resumed=True)
                    have = first = 0
                with path.open("r+b" if have else "wb") as out:
                    out.seek(have)
                    # what is there, not a full chunk: nothing that came is lost with a connection
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
    """Raises `DumpError` if this is not the file listed, or not the one that was begun."""
    if file.size is not None and total is not None and total != file.size:
        raise DumpError(f"{file.url} has {total:,} bytes, but {file.size:,} are listed; try later")
    version = {
        "size": total,
        "etag": answer.headers.get("ETag"),
        "modified": answer.headers.get("Last-Modified"),
    }
    begun = _begun(path)
    starts = answer.headers.get("Content-Range", f"bytes {have}-").startswith(f"bytes {have}-")
    if have and (begun != version or answer.status_code == 416 or not starts):
        raise DumpError(
            f"{file.url} changed since {have:,} bytes of it were fetched; remove {path} to start anew"
        )
    if begun != version:
        atomic.write_json(_state(path), version)


def _total(answer: requests.Response) -> int | None:
    """Size of the whole remote file, if the server says it."""
    if answer.status_code in (206, 416):
        total = answer.headers.get("Content-Range", "").rpartition("/")[2]
    else:
        total = answer.headers.get("Content-Length", "")
    return int(total) if total.isdigit() else None


def _state(path: Path) -> Path:
    return path.with_name(path.name + ".download.json")


def _is_whole(path: Path) -> bool:
    """Whether an earlier try finished this file: its state is written first and removed last."""
    return path.exists() and not _state(path).exists()


def _begun(path: Path) -> dict[str, Any] | None:
    """What the server said of the file when its download began."""
    state = _state(path)
    return dict(json.loads(state.read_text(encoding="utf-8"))) if state.exists() else None


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _digests(path: Path) -> tuple[str, str]:
    """SHA-1, which the host lists, and SHA-256, by which the dump is known here, in one reading."""
    sha1, sha256 = hashlib.sha1(usedforsecurity=False), hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            sha1.update(chunk)
            sha256.update(chunk)
    return sha1.hexdigest(), sha256.hexdigest()
