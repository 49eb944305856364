"""Pages of one piece of a dump as the first pass leaves them for the second, so that bz2 is undone once.

Bzip2 takes fifty times as long to read as LZ4, which packs about half as well.
"""

from __future__ import annotations

import marshal
import struct
from collections.abc import Iterable
from pathlib import Path

from gportuguese.atomic import replacing
from gportuguese.dump.reader import RawPage

_CODEC = "lz4"
_LENGTHS = struct.Struct("<QQ")  # of the data, and of the packed data that follow


def unpacked_path(folder: Path, number: int) -> Path:
    """Where the pages of a piece are, between the passes."""
    return folder / f"{number:06d}.pages"


def write_pages(path: Path, pages: Iterable[RawPage]) -> None:
    """Writes pages for `read_pages`."""
    import pyarrow as pa

    rows = [
        (page.id, page.title, page.namespace, page.is_redirect, page.wikitext) for page in pages
    ]
    data = marshal.dumps(rows)
    packed = pa.compress(data, codec=_CODEC, asbytes=True)
    with replacing(path) as scratch:
        scratch.write_bytes(_LENGTHS.pack(len(data), len(packed)) + packed)


def is_complete(path: Path) -> bool:
    """Whether there is a file of pages with the size that its first bytes state."""
    try:
        with path.open("rb") as file:
            length: int = _LENGTHS.unpack(file.read(_LENGTHS.size))[1]
        return path.stat().st_size == _LENGTHS.size + length > _LENGTHS.size
    except (FileNotFoundError, struct.error):
        return False


def read_pages(path: Path) -> list[RawPage]:
    """The pages that `write_pages` wrote. A damaged file is removed, so that the next run writes it."""
    import pyarrow as pa

    packed = memoryview(path.read_bytes())
    try:
        length, _ = _LENGTHS.unpack_from(packed)
        data = pa.decompress(packed[_LENGTHS.size :], length, codec=_CODEC, asbytes=True)
        return [RawPage(*row) for row in marshal.loads(data)]
    except (OSError, struct.error, ValueError, EOFError, TypeError) as error:
        path.unlink()
        raise OSError(f"{path} was damaged and is removed; run again") from error
