"""Pages of one piece of a dump as the first pass leaves them for the second, so that bz2 is undone once.

Bzip2 takes fifty times as long to read as LZ4, which packs about half as well.
"""

from __future__ import annotations

import marshal
import os
from collections.abc import Iterable
from pathlib import Path

from gportuguese.dump.reader import RawPage

_CODEC = "lz4"
_LENGTH_BYTES = 8


def unpacked_path(folder: Path, number: int) -> Path:
    """Where the pages of a piece are, between the passes."""
    return folder / f"{number:06d}.pages"


def write_pages(path: Path, pages: Iterable[RawPage]) -> None:
    """Writes pages under another name and renames the file: it is whole or not there."""
    import pyarrow as pa

    rows = [
        (page.id, page.title, page.namespace, page.is_redirect, page.wikitext) for page in pages
    ]
    data = marshal.dumps(rows)
    packed = pa.compress(data, codec=_CODEC, asbytes=True)
    scratch = path.with_suffix(f".{os.getpid()}.tmp")
    scratch.write_bytes(len(data).to_bytes(_LENGTH_BYTES, "little") + packed)
    scratch.replace(path)


def read_pages(path: Path) -> list[RawPage]:
    """The pages that `write_pages` wrote."""
    import pyarrow as pa

    packed = memoryview(path.read_bytes())
    length = int.from_bytes(packed[:_LENGTH_BYTES], "little")
    data = pa.decompress(packed[_LENGTH_BYTES:], length, codec=_CODEC, asbytes=True)
    return [RawPage(*row) for row in marshal.loads(data)]
