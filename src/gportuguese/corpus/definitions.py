"""The template definitions of a dump: read from its template namespace, kept in one SQLite file.

Workers look templates up in it as they meet them, so that memory does not grow with their number.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from contextlib import closing, suppress
from pathlib import Path
from typing import Literal

from gportuguese.atomic import replacing
from gportuguese.dump.reader import Piece, RawPage
from gportuguese.wikitext.expansion import key_of, name_of
from gportuguese.wikitext.preprocessor import link_target, transcluded
from gportuguese.wikitext.shapes import Kind, kind_of

NAMESPACE = 10
_MAX_CHARS = 1 << 16  # longer bodies are lists of data, or boxes
_TABLE = "CREATE TABLE templates (name TEXT PRIMARY KEY, kind TEXT, body TEXT, piece INTEGER)"
# of two pages with one title the first holds, whichever worker is faster
_INSERT = """
INSERT INTO templates VALUES (?, ?, ?, ?) ON CONFLICT (name) DO UPDATE
SET kind = excluded.kind, body = excluded.body, piece = excluded.piece WHERE excluded.piece < piece
"""

Row = tuple[str, Kind | Literal["redirect"], str]
"""Name, kind, and the body of a template of words or the target of a redirect."""


def definition_of(page: RawPage, prefixes: frozenset[str]) -> Row:
    """What a call of a template page finds: words, a box, or Lua."""
    name = key_of(name_of(page.title, prefixes))
    if page.is_redirect:
        target = name_of(link_target(page.wikitext), prefixes)
        return name, "redirect", key_of(target)
    body = transcluded(page.wikitext)
    kind: Kind = "box" if len(body) > _MAX_CHARS else kind_of(body, page.wikitext)
    return name, kind, body if kind == "words" else ""


def write_definitions(
    path: Path, found: Iterable[tuple[int, list[Row]]], pieces: list[Piece]
) -> None:
    """Writes the rows of all pieces, in whatever order they come, and then the pieces themselves."""
    with replacing(path) as scratch:
        scratch.unlink(missing_ok=True)
        _write(scratch, found, pieces)


def _write(path: Path, found: Iterable[tuple[int, list[Row]]], pieces: list[Piece]) -> None:
    with closing(sqlite3.connect(path, isolation_level=None)) as database:
        database.execute("PRAGMA journal_mode = OFF")
        database.execute("PRAGMA synchronous = OFF")  # the whole file is synced at the end
        database.execute(_TABLE)
        database.execute("BEGIN")
        for piece, rows in found:
            database.executemany(_INSERT, ((*row, piece) for row in rows))
        database.execute("CREATE TABLE pieces (number INTEGER, start INTEGER, end INTEGER)")
        places = ((piece.number, piece.start, piece.end) for piece in pieces)
        database.executemany("INSERT INTO pieces VALUES (?, ?, ?)", places)
        database.execute("COMMIT")


def read_pieces(path: Path) -> list[Piece]:
    """The pieces of the dump, in its order; none if the file is missing or damaged."""
    if not path.exists():
        return []
    with closing(sqlite3.connect(path)) as database, suppress(sqlite3.DatabaseError):
        if database.execute("PRAGMA quick_check").fetchall() == [("ok",)]:
            return [Piece(*row) for row in database.execute("SELECT * FROM pieces ORDER BY number")]
    return []


class Definitions:
    """The definitions in a file, looked up one by one."""

    def __init__(self, path: Path) -> None:
        self.database = sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True)

    def fetch(self, name: str) -> tuple[str, Kind, str] | None:
        """Name, kind and body of a template; one redirect is followed, as MediaWiki does.

        A redirect that leads nowhere has its target's name and the kind `lua`: the tables may know it.
        """
        row = self._row(name)
        if row is None or row[1] != "redirect":
            return row  # type: ignore[return-value]
        target = self._row(row[2])
        if target is None or target[1] == "redirect":
            return row[2], "lua", ""
        return target  # type: ignore[return-value]

    def _row(self, name: str) -> Row | None:
        query = "SELECT name, kind, body FROM templates WHERE name = ?"
        row: Row | None = self.database.execute(query, (name,)).fetchone()
        return row
