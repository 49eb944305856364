"""Reads a dump in pieces for workers: its bz2 streams, or chunks cut at `</page>`."""

from __future__ import annotations

import bz2
import html
import mmap
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import IO

from gportuguese.config import UserError

_BZ2 = b"BZh"
_STREAM = re.compile(rb"BZh[1-9]1AY&SY")  # header and first block: streams begin on a whole byte
_STREAM_BYTES = 10
_END_OF_DUMP = b"</mediawiki>"
_RANGE_BYTES = 1 << 20  # of the file, in one piece of work
_HEADER_BYTES = 1 << 20  # within which <siteinfo> ends
_CHUNK = 1 << 18
_MAX_PAGE_BYTES = 1 << 26  # MediaWiki allows pages of 2 MB
_TITLE = re.compile(rb"<title>([^<]*)</title>")
_ID = re.compile(rb"<id>(\d+)</id>")
_NAMESPACE = re.compile(rb"<ns>(-?\d+)</ns>")
_TEXT = re.compile(rb"<text\b[^<>]*>([^<]*)</text>")
_NAMESPACE_NAME = re.compile(r'<namespace key="(-?\d+)"[^>]*>([^<]+)<')
_ROOT = re.compile(r"<\s*([A-Za-z][\w:.-]*)([^>]*)>")
_LANGUAGE = re.compile(r'xml:lang="([\w-]+)"')


class DumpError(UserError):
    """The dump is missing, truncated, or not a MediaWiki dump."""


@dataclass(frozen=True)
class RawPage:
    """One page of the dump."""

    id: int
    title: str
    namespace: int
    is_redirect: bool
    wikitext: str


@dataclass(frozen=True)
class Piece:
    """Consecutive whole pages of a dump: their place in the file, or their XML."""

    number: int
    start: int
    """First byte in the file (compressed)."""
    end: int
    xml: bytes | None = None
    """None if the bz2 streams from `start` to `end` contain it."""


@dataclass(frozen=True)
class Header:
    """The part of a dump before its pages."""

    language: str
    namespaces: tuple[tuple[int, str], ...]
    """Number and local name of each: (10, "Predefinição")."""


def read_header(path: Path) -> Header:
    """The header of a dump. Raises `DumpError` if this is not a MediaWiki dump."""
    head = b""
    with path.open("rb") as raw:
        try:
            for part in _decompressed(raw, path):
                head += part
                if b"</siteinfo>" in head or b"<page>" in head or len(head) > _HEADER_BYTES:
                    break
        except (EOFError, OSError) as error:
            if not head:
                raise _broken(path, error, "before any page", raw.tell()) from error
    text = re.sub(r"<\?.*?\?>|<!--.*?-->", "", head.decode("utf-8", "replace"), flags=re.DOTALL)
    root = _ROOT.search(text)
    if root is None:
        raise DumpError(f"{path} is not a MediaWiki dump: it is not XML")
    if root[1] != "mediawiki":
        raise DumpError(f"{path} is not a MediaWiki dump: its root is <{root[1]}>")
    language = _LANGUAGE.search(root[2])
    names = _NAMESPACE_NAME.findall(text.partition("</siteinfo>")[0])
    return Header(
        language[1] if language else "en",
        tuple((int(key), html.unescape(name)) for key, name in names),
    )


def pieces_of(path: Path) -> Iterator[Piece]:
    """Yields the pieces of a dump in order, always cut at the same places.

    Streams of a multistream file are searched for without an index, as pieces are requested. Plain
    and single-stream files are read here, in constant memory. Raises `DumpError` with page and byte
    if the file ends early.
    """
    if not _streams_hold_whole_pages(path):
        yield from _chunks(path)
        return
    size = path.stat().st_size
    first, number = 0, 0
    for start in chain(islice(stream_starts(path), 1, None), [size]):
        if start - first >= _RANGE_BYTES or start == size:
            yield Piece(number, first, start)
            first, number = start, number + 1


def stream_starts(path: Path, first: int = 0) -> Iterator[int]:
    """Start positions of a file's bz2 streams, from byte `first` on; none for a plain file."""
    with path.open("rb") as raw:
        if raw.read(3) != _BZ2:
            return
        with mmap.mmap(raw.fileno(), 0, access=mmap.ACCESS_READ) as data:
            released = 0  # what was searched does not stay mapped
            while (first := data.find(_BZ2, first)) >= 0:
                if _STREAM.match(data[first : first + _STREAM_BYTES]):
                    yield first
                first += 1
                searched = first // mmap.PAGESIZE * mmap.PAGESIZE
                if searched - released >= _RANGE_BYTES:
                    data.madvise(mmap.MADV_DONTNEED, released, searched - released)
                    released = searched


def _streams_hold_whole_pages(path: Path) -> bool:
    """Whether a file is a multistream dump, not one that pbzip2 cut anywhere."""
    starts = list(islice(stream_starts(path), 2))
    if len(starts) < 2:
        return False
    with path.open("rb") as raw:
        raw.seek(starts[1])
        try:
            second = bz2.BZ2Decompressor().decompress(raw.read(_RANGE_BYTES), 4096)
        except OSError:
            return False
    return second.lstrip().startswith((b"<page>", _END_OF_DUMP))


def pages_in(
    path: Path, piece: Piece, wanted: Callable[[int, bool], bool] = lambda *_: True
) -> Iterator[RawPage]:
    """Yields the pages of a piece, with one stream in memory at a time.

    Pages for which `wanted(namespace, is_redirect)` is false have empty wikitext. Raises `DumpError`
    if a stream is damaged or a page is incomplete.
    """
    if piece.xml is not None:
        yield from _pages(path, piece.xml, piece.start, wanted)
        return
    with path.open("rb") as raw:
        raw.seek(piece.start)
        data = raw.read(piece.end - piece.start)
    position = 0
    last: RawPage | None = None
    while position < len(data):
        stream = bz2.BZ2Decompressor()
        try:
            xml = stream.decompress(memoryview(data)[position:])
        except OSError as error:
            raise _broken(path, error, _after(last), piece.start + position) from error
        if not stream.eof:
            raise _broken(path, EOFError(), _after(last), piece.end)
        for last in _pages(path, xml, piece.start + position, wanted):
            yield last
        position = len(data) - len(stream.unused_data)


def check_end(path: Path, piece: Piece, last_page: str) -> None:
    """Raises `DumpError` unless `piece`, the last of the dump, ends with `</mediawiki>`."""
    if piece.xml is not None:
        tail = piece.xml[-256:]
    else:
        *_, start = stream_starts(path, piece.start)
        with path.open("rb") as raw:
            raw.seek(start)
            try:
                tail = bz2.decompress(raw.read())[-256:]
            except (ValueError, OSError) as error:
                raise _broken(path, EOFError(), last_page, path.stat().st_size) from error
    if _END_OF_DUMP not in tail:
        raise _broken(path, EOFError(), last_page, path.stat().st_size)


def read_pages(path: Path) -> Iterator[RawPage]:
    """Yields every page of a dump in order, in this process."""
    read_header(path)  # raises if this is no dump
    last_page, piece = "before any page", None
    for piece in pieces_of(path):
        for page in pages_in(path, piece):
            last_page = _after(page)
            yield page
    if piece is not None:
        check_end(path, piece, last_page)


def _chunks(path: Path) -> Iterator[Piece]:
    """Yields pieces of a file without multiple streams, a few megabytes of XML each."""
    rest, number, start = b"", 0, 0
    with path.open("rb") as raw:
        try:
            for part in _decompressed(raw, path):
                rest += part
                if len(rest) >= 4 * _RANGE_BYTES:
                    cut = rest.rfind(b"</page>") + len(b"</page>")
                    if cut >= len(b"</page>"):
                        yield Piece(number, start, raw.tell(), rest[:cut])
                        rest, number, start = rest[cut:], number + 1, raw.tell()
                    elif len(rest) > _MAX_PAGE_BYTES:
                        raise DumpError(
                            f"{path} has {len(rest):,} bytes of XML without the end of a page, "
                            f"before byte {raw.tell():,}; fetch it again, or take a dump without old revisions"
                        )
        except (EOFError, OSError) as error:
            titles = _TITLE.findall(rest)
            after = (
                f"after page {html.unescape(titles[-1].decode(errors='replace'))!r}"
                if titles
                else "there"
            )
            raise _broken(path, error, after, raw.tell()) from error
        yield Piece(number, start, raw.tell(), rest)


def _decompressed(raw: IO[bytes], path: Path) -> Iterator[bytes]:
    magic = raw.read(3)
    raw.seek(0)
    if magic == _BZ2:
        with bz2.BZ2File(raw) as stream:
            while part := stream.read(_CHUNK):
                yield part
    elif path.suffix == ".bz2":
        raise DumpError(f"{path} is named .bz2 but is not bzip2")
    else:
        while part := raw.read(_CHUNK):
            yield part


def _pages(
    path: Path, xml: bytes, offset: int, wanted: Callable[[int, bool], bool]
) -> Iterator[RawPage]:
    position, last = 0, None
    while (start := xml.find(b"<page>", position)) >= 0:
        end = xml.find(b"</page>", start)
        if end < 0:
            raise _broken(path, EOFError(), _after(last), offset)
        page_id, title = _ID.search(xml, start, end), _TITLE.search(xml, start, end)
        if page_id is None or title is None:
            raise DumpError(
                f"{path}: a page {_after(last)} (in the piece at byte {offset:,}) has no title or "
                "numeric id; fetch the dump again"
            )
        namespace = _NAMESPACE.search(xml, start, end)
        is_redirect = xml.find(b"<redirect ", start, end) >= 0
        text = _TEXT.search(xml, start, end)
        number = int(namespace[1]) if namespace else 0
        wikitext = ""
        if text and wanted(number, is_redirect):
            wikitext = _unescape(text[1])
        last = RawPage(
            id=int(page_id[1]),
            title=_unescape(title[1]),
            namespace=number,
            is_redirect=is_redirect,
            wikitext=wikitext,
        )
        yield last
        position = end


def _unescape(xml: bytes) -> str:
    """Text of an XML element, with a fast path for the four entities that MediaWiki writes."""
    text = xml.decode("utf-8", "replace")
    if "&" not in text:
        return text
    if "&#" in text or "&apos;" in text:
        return html.unescape(text)
    text = text.replace("&lt;", "<").replace("&gt;", ">").replace("&quot;", '"')
    return text.replace("&amp;", "&")


def _after(page: RawPage | None) -> str:
    return f"after page {page.id} ({page.title!r})" if page else "before any page"


def _broken(path: Path, error: Exception, where: str, byte: int) -> DumpError:
    what = "ends early" if isinstance(error, EOFError) else f"is damaged ({error})"
    size = path.stat().st_size
    return DumpError(f"{path} {what} {where}, at byte {byte:,} of {size:,}; fetch it again")
