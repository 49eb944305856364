"""A Wikipedia dump: where it is, and its pages one after the other."""

from __future__ import annotations

import bz2
import logging
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any
from xml.etree import ElementTree

from gportuguese import artifacts
from gportuguese.artifacts import Artifact
from gportuguese.config import Config, DumpConfig, UserError, resolve_path
from gportuguese.progress import track
from gportuguese.world import World

log = logging.getLogger("gportuguese")

HOST = "https://dumps.wikimedia.org"
USER_AGENT = "gportuguese/0.1 (+https://github.com/gportuguese/gportuguese)"
_CHUNK = 1 << 20


class DumpError(UserError):
    """The dump is missing, cut short, or not a MediaWiki dump."""


@dataclass(frozen=True)
class RawPage:
    """One page as it stands in the dump."""

    id: int
    title: str
    namespace: int
    is_redirect: bool
    wikitext: str


def source_of(dump: DumpConfig) -> str:
    """The path or URL that a dump section means."""
    if dump.source is not None:
        return dump.source
    host = (dump.mirror or HOST).rstrip("/")
    name = f"{dump.wiki}-{dump.date}-pages-articles-multistream.xml.bz2"
    return f"{host}/{dump.wiki}/{dump.date}/{name}"


def is_url(source: str) -> bool:
    """Whether the source has to be fetched."""
    return source.startswith(("http://", "https://"))


def build(config: Config, inputs: dict[str, Artifact], out: Path, world: World) -> dict[str, Any]:
    """Writes `receipt.json`; downloads the dump into `out` if its source is a URL."""
    source = source_of(config.dump)
    if is_url(source):
        name = source.rsplit("/", 1)[-1]
        _download(source, out / name)
        path, receipt_path = out / name, name
    else:
        path = local_path(config.dump)
        receipt_path = str(path.resolve())
    if not path.stat().st_size:
        raise DumpError(f"{path} is empty")
    with _open_stream(path):  # refuses a .bz2 that is none
        pass
    receipt = {
        "source": source,
        "path": receipt_path,
        "size": path.stat().st_size,
        "sha256": artifacts.hash_file(path),
    }
    artifacts.write_json(out / "receipt.json", receipt)
    return receipt


def load(artifact: Artifact, section: DumpConfig) -> Path:
    """The dump file of a built dump stage: the downloaded one, or the local one where it is now."""
    if is_url(source_of(section)):
        return artifact.folder / str(artifact.facts["path"])
    return local_path(section)


def local_path(dump: DumpConfig) -> Path:
    """The dump file named by a section; raises `DumpError` if it is not there."""
    path = resolve_path(source_of(dump))
    if not path.is_file():
        raise DumpError(f"no dump at {path}; set dump.source to a pages-articles .xml or .xml.bz2")
    return path


def read_pages(
    path: Path, advance: Callable[[int], None] = lambda num_bytes: None
) -> Iterator[RawPage]:
    """Yields every page of a plain, bz2 or multistream bz2 dump, in constant memory.

    `advance` is told how many bytes of the file were consumed since the last page. Raises
    `DumpError`, with page and byte, if the file ends early or is not MediaWiki's XML.
    """
    num_pages, last_title, position = 0, "", 0
    with _open_stream(path) as (stream, raw):

        def where() -> str:
            after = f"after page {num_pages} ({last_title!r})" if num_pages else "before any page"
            return f"{after}, at byte {raw.tell():,} of {path.stat().st_size:,}"

        try:
            events = ElementTree.iterparse(stream, events=("start", "end"))
            _, root = next(events)
            xmlns = root.tag.rpartition("mediawiki")[0]
            if root.tag != f"{xmlns}mediawiki":
                raise DumpError(f"{path} is not a MediaWiki dump: its root is <{root.tag}>")
            page_tag = f"{xmlns}page"
            for event, element in events:
                if event == "end" and element.tag == page_tag:
                    page = _page(element, xmlns)
                    root.clear()
                    num_pages, last_title = num_pages + 1, page.title
                    yield page
                    advance(raw.tell() - position)
                    position = raw.tell()
        except ElementTree.ParseError as error:
            early = raw.tell() >= path.stat().st_size and "no element found" in str(error)
            what = "ends early" if early else f"is not well-formed XML ({error})"
            raise DumpError(f"{path} {what} {where()}; fetch it again") from error
        except (EOFError, OSError) as error:
            if isinstance(error, OSError) and error.errno is not None:
                raise
            what = "ends early" if isinstance(error, EOFError) else f"is damaged ({error})"
            raise DumpError(f"{path} {what} {where()}; fetch it again") from error


def _page(element: ElementTree.Element, xmlns: str) -> RawPage:
    def text(name: str) -> str:
        return element.findtext(f"{xmlns}{name}") or ""

    try:
        return RawPage(
            id=int(text("id")),
            title=text("title"),
            namespace=int(text("ns") or 0),
            is_redirect=element.find(f"{xmlns}redirect") is not None,
            wikitext=element.findtext(f"{xmlns}revision/{xmlns}text") or "",
        )
    except ValueError as error:
        raise DumpError(f"the page {text('title')!r} has no numeric id or namespace") from error


@contextmanager
def _open_stream(path: Path) -> Iterator[tuple[IO[bytes], IO[bytes]]]:
    """The decompressed stream of a dump, and the raw file beneath it for its position."""
    with path.open("rb") as raw:
        magic = raw.read(3)
        raw.seek(0)
        if magic == b"BZh":
            with bz2.BZ2File(raw) as stream:
                yield stream, raw
        elif path.suffix == ".bz2":
            raise DumpError(f"{path} is named .bz2 but is not bzip2")
        else:
            yield raw, raw


def _download(url: str, path: Path) -> None:
    """Fetches `url` into `path`, going on where an earlier try stopped."""
    have = path.stat().st_size if path.exists() else 0
    request = urllib.request.Request(url, headers={"User-Agent": USER_AGENT})
    if have:
        request.add_header("Range", f"bytes={have}-")
    try:
        with urllib.request.urlopen(request, timeout=60) as response:
            if response.status != 206:
                have = 0
            total = have + int(response.headers["Content-Length"])
            with path.open("ab" if have else "wb") as file, track("dump", total) as advance:
                advance(have, "")
                while chunk := response.read(_CHUNK):
                    file.write(chunk)
                    advance(len(chunk), f"{file.tell() / 1e6:,.0f} MB")
    except urllib.error.HTTPError as error:
        if error.code == 416 and have:  # nothing left to fetch
            return
        raise DumpError(f"{url}: the server answers {error.code} {error.reason}") from error
    except (urllib.error.URLError, TimeoutError, ConnectionError) as error:
        raise DumpError(f"cannot fetch {url}: {error}; run again to go on from there") from error
    if path.stat().st_size != total:
        raise DumpError(
            f"{url} broke off at byte {path.stat().st_size:,} of {total:,}; "
            "run again to go on from there"
        )
