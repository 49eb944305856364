"""The template definitions of a dump, stored in one SQLite file.

Workers look templates up there on first use, so memory does not grow with the number of templates.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from contextlib import closing, suppress
from pathlib import Path
from typing import Literal

from gportuguese.atomic import replacing
from gportuguese.dump.reader import Piece, RawPage
from gportuguese.wikitext.definitions import Kind, kind_of
from gportuguese.wikitext.names import definition_key, template_name
from gportuguese.wikitext.preprocessor import link_target, transcluded

NAMESPACE = 10
_MAX_CHARS = 1 << 16  # longer bodies are data lists or boxes
_TABLE = "CREATE TABLE templates (name TEXT PRIMARY KEY, kind TEXT, body TEXT, piece INTEGER)"
# of two pages with one title the first in the dump wins, whichever worker is faster
_INSERT = """
INSERT INTO templates VALUES (?, ?, ?, ?) ON CONFLICT (name) DO UPDATE
SET kind = excluded.kind, body = excluded.body, piece = excluded.piece WHERE excluded.piece < piece
"""

Row = tuple[str, Kind | Literal["redirect"], str]
"""Name, kind, and the body of a words template or the target of a redirect."""


def definition_of(page: RawPage, prefixes: frozenset[str]) -> Row:
    """Name, kind and body of a template page; `prefixes` are names of the template namespace."""
    name = definition_key(template_name(page.title, prefixes))
    if page.is_redirect:
        target = template_name(link_target(page.wikitext), prefixes)
        return name, "redirect", definition_key(target)
    body = transcluded(page.wikitext)
    kind: Kind = "box" if len(body) > _MAX_CHARS else kind_of(body, page.wikitext)
    return name, kind, body if kind == "words" else ""


def write_definitions(
    path: Path, found: Iterable[tuple[int, list[Row]]], pieces: list[Piece]
) -> None:
    """Writes the rows of all pieces, in any order, then the list of pieces."""
    with replacing(path) as scratch:
        scratch.unlink(missing_ok=True)
        _write(scratch, found, pieces)


def _write(path: Path, found: Iterable[tuple[int, list[Row]]], pieces: list[Piece]) -> None:
    with closing(sqlite3.connect(path, isolation_level=None)) as database:
        database.execute("PRAGMA journal_mode = OFF")
        database.execute("PRAGMA synchronous = OFF")  # `replacing` syncs the whole file
        database.execute(_TABLE)
        database.execute("BEGIN")
        for piece, rows in found:
            database.executemany(_INSERT, ((*row, piece) for row in rows))
        database.execute("CREATE TABLE pieces (number INTEGER, start INTEGER, end INTEGER)")
        places = ((piece.number, piece.start, piece.end) for piece in pieces)
        database.executemany("INSERT INTO pieces VALUES (?, ?, ?)", places)
        database.execute("COMMIT")


def read_pieces(path: Path) -> list[Piece]:
    """The pieces of the dump in order; none if the file is missing or damaged."""
    if not path.exists():
        return []
    with closing(sqlite3.connect(path)) as database, suppress(sqlite3.DatabaseError):
        if database.execute("PRAGMA quick_check").fetchall() == [("ok",)]:
            return [Piece(*row) for row in database.execute("SELECT * FROM pieces ORDER BY number")]
    return []


class Definitions:
    """Looks definitions up in a file."""

    def __init__(self, path: Path) -> None:
        self.database = sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True)

    def fetch(self, name: str) -> tuple[str, Kind, str] | None:
        """Name, kind and body of a template, after at most one redirect, as in MediaWiki.

        A broken redirect has its target's name and the kind `lua`, for the tables to decide.
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
