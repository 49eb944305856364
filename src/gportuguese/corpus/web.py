"""A file at a URL, read as it arrives. It goes on after broken connections, and is never stored."""

from __future__ import annotations

import io
import time
from pathlib import PurePosixPath
from typing import IO, Any
from urllib.parse import unquote, urlsplit

import requests
from urllib3.exceptions import HTTPError

from gportuguese.corpus.files import FORMATS, File, is_document
from gportuguese.corpus.pool import CorpusError
from gportuguese.dump.connection import MAX_RETRIES, TIMEOUTS, in_words, patient_session

_BUFFER_BYTES = 1 << 20


def web_file(url: str, wait_seconds: float = 1.0) -> File:
    """The file at a URL; raises `CorpusError` if it cannot be had.

    Overloaded servers are asked again after `wait_seconds`, doubled each time.
    """
    name = PurePosixPath(unquote(urlsplit(url).path)).name
    if not is_document(name):
        raise CorpusError(f"{url}: the name must end in {FORMATS}")
    with _WebStream(url, wait_seconds) as stream:
        stream.connect()
        size, version = stream.size, stream.version

    def opened() -> IO[bytes]:
        raw = _WebStream(url, wait_seconds, version)
        return io.BufferedReader(raw, _BUFFER_BYTES)

    return File(name, url, size, opened, version)


class _WebStream(io.RawIOBase):
    """Asks for the rest of the file whenever it starts to read elsewhere."""

    def __init__(self, url: str, wait_seconds: float, version: str | None = None) -> None:
        super().__init__()
        self.url, self.wait_seconds, self.version = url, wait_seconds, version
        self.session = patient_session(wait_seconds)
        self.answer: requests.Response | None = None
        self.position = 0
        self.size: int | None = None

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self.position

    def seek(self, offset: int, whence: int = 0) -> int:
        if whence == io.SEEK_END:
            if self.size is None:
                self.connect()
            if self.size is None:
                raise CorpusError(f"{self.url}: the server does not say its size; download it")
            offset += self.size
        elif whence == io.SEEK_CUR:
            offset += self.position
        if offset != self.position:
            self.disconnect()
            self.position = offset
        return offset

    def readinto(self, buffer: Any) -> int:
        for left in reversed(range(MAX_RETRIES)):
            try:
                if self.answer is None:
                    self.connect()
                if self.answer is None:  # at the end
                    return 0
                data = self.answer.raw.read(len(buffer))
                buffer[: len(data)] = data
                self.position += len(data)
                return len(data)
            except (HTTPError, OSError) as error:  # the connection broke off
                self.disconnect()
                if not left:
                    raise CorpusError(
                        f"cannot read {self.url} after byte {self.position:,}: {in_words(error)}; "
                        "run again to go on"
                    ) from error
                time.sleep(self.wait_seconds)
        return 0

    def connect(self) -> None:
        """Asks for what comes after the position. Raises `CorpusError` if there is no such file."""
        if self.size is not None and self.position >= self.size:
            return
        wanted = {"Range": f"bytes={self.position}-"}
        try:
            answer = self.session.get(self.url, headers=wanted, stream=True, timeout=TIMEOUTS)
        except requests.RequestException as error:
            raise CorpusError(f"cannot read {self.url}: {in_words(error)}") from error
        self.answer = answer
        if answer.status_code == 416:  # empty, or all of it is here
            self.disconnect()
            self.size = self.position
            return
        if answer.status_code not in (200, 206):
            self.disconnect()
            raise CorpusError(f"cannot read {self.url}: the server answers {answer.status_code}")
        if answer.status_code == 206:
            size = answer.headers.get("Content-Range", "").rpartition("/")[2]
        else:
            size = answer.headers.get("Content-Length", "")
        self.size = int(size) if size.isdecimal() else None
        version = self._version(answer)
        if self.version not in (None, version):
            self.disconnect()
            raise CorpusError(f"{self.url} has changed while it was read; run again")
        self.version = version
        if answer.status_code == 206:
            return
        rest = self.position  # the server cannot begin in the middle
        while rest and (chunk := answer.raw.read(min(rest, _BUFFER_BYTES))):
            rest -= len(chunk)

    def _version(self, answer: requests.Response) -> str | None:
        """What tells whether the file has changed: its ETag, or else its date and size."""
        if etag := answer.headers.get("ETag"):
            return str(etag)
        size = None if self.size is None else f"{self.size:,} bytes"
        return ", ".join(filter(None, [answer.headers.get("Last-Modified"), size])) or None

    def disconnect(self) -> None:
        """Ends the answer that is being read."""
        if self.answer is not None:
            self.answer.close()
            self.answer = None

    def close(self) -> None:
        """Closes the connection."""
        if not self.closed:
            self.disconnect()
            self.session.close()
        super().close()
