"""Documents of your own, read row by row from files of many formats, near or far, and kept as shards.

Only the columns of text, title and id are read.
"""

from __future__ import annotations

import logging
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from gportuguese import hashes
from gportuguese.config import (
    DUMP,
    CorpusConfig,
    SourceConfig,
    is_hub_id,
    is_path,
    is_url,
    resolve_path,
    sources_of,
)
from gportuguese.corpus.cleaning import Document, Dropped
from gportuguese.corpus.exclusion import Excluded
from gportuguese.corpus.files import FOLDER_KINDS, KINDS, File, local_files
from gportuguese.corpus.hub import commit_of, hub_files
from gportuguese.corpus.pool import CorpusError
from gportuguese.corpus.rows import START, Mark, Row, read_rows
from gportuguese.corpus.shards import ShardWriter, read_summary, shard_path
from gportuguese.corpus.splits import Reading
from gportuguese.corpus.web import web_file
from gportuguese.progress import track

log = logging.getLogger("gportuguese")

_SHARD_DOCUMENTS = 2000
_SHARD_BYTES = 32 << 20  # of text, in memory
_REPORT_BYTES = 1 << 20  # between two reports of progress
_PATIENCE_ROWS = 1000  # without a text or a named column, before a source is refused
_SHOWN_COLUMNS = 12


class _Result(NamedTuple):
    document: Document | Dropped
    next: tuple[int, Mark]
    """The file and the place after it, where reading goes on."""


def files_of(section: CorpusConfig, source: SourceConfig) -> list[File]:
    """The files of a source in order; raises `CorpusError` if there are none."""
    if is_url(source.documents):
        return [web_file(source.documents)]
    if is_on_hub(source):
        return hub_files(source, str(commit_of(source, download=True)))
    return local_files(source.documents, KINDS if section.sources else FOLDER_KINDS)


def identify_sources(section: CorpusConfig, download: bool) -> str | None:
    """The identity of all sources, for digests; None if a commit on the Hub is not known yet.

    Files on this machine are identified by their names and contents, data sets by their commit, and
    URLs by themselves. With `download`, commits that are not known are asked for.
    """
    found = [_identity(section, source, download) for source in sources_of(section)]
    if None in found:
        return None
    return hashes.digest_of(found) if section.sources else found[0]


def _identity(section: CorpusConfig, source: SourceConfig, download: bool) -> str | None:
    if source.documents == DUMP:
        return DUMP  # it is an input of the stage
    if is_url(source.documents):
        return source.documents
    if is_on_hub(source):
        commit = commit_of(source, download)
        return commit and f"{source.documents}@{commit}"
    files = files_of(section, source)
    return hashes.hash_files((file.name, Path(file.place)) for file in files)


def check_sources(section: CorpusConfig) -> None:
    """Reads each source until a text and the columns that it names are seen, except the dump.

    Raises `CorpusError` if they are not. Called before the dump is fetched, which may take hours.
    """
    for source in sources_of(section):
        if source.documents == DUMP:
            continue
        check = _Check(section, source, [])
        for file in files_of(section, source):
            rows = read_file(file, section, source)
            if any(check.add(*row) for row in rows):
                break
        else:
            check.end()


def is_on_hub(source: SourceConfig) -> bool:
    """Whether the documents are a data set on the Hub; a file of that name comes first."""
    given = source.documents
    return is_hub_id(given) and not is_path(given) and not resolve_path(given).exists()


def read_own(section: CorpusConfig) -> Iterator[Document | Dropped]:
    """Yields the documents of `corpus.documents`; those below `corpus.min_chars` are dropped."""
    (source,) = sources_of(section)
    for result in _read(section, source, files_of(section, source), "corpus", []):
        yield result.document


def read_source(
    section: CorpusConfig,
    source: SourceConfig,
    folder: Path,
    description: str,
    excluded: Path | None = None,
) -> Reading:
    """Writes the documents of a source as shards, after the shards that an earlier run has finished.

    `excluded` is the folder of `write_excluded`.
    """
    files = files_of(section, source)
    versions = [file.version for file in files]
    paths, summaries = _finished(folder, versions)
    shard = ShardWriter(section)

    def write(last: _Result) -> None:
        nonlocal shard
        paths.append(shard_path(folder, len(paths)))
        summaries.append(shard.write(paths[-1], next=last.next, versions=versions))
        shard = ShardWriter(section)

    result = None
    runs = Excluded.open(excluded)
    for result in _read(section, source, files, description, list(summaries), runs):
        shard.add(result.document)
        if shard.num_results == _SHARD_DOCUMENTS or shard.num_bytes >= _SHARD_BYTES:
            write(result)
    if result is not None and shard.num_results:
        write(result)
    facts: dict[str, Any] = {"files": len(files)}
    if is_on_hub(source):
        facts["revision"] = commit_of(source, download=True)
    elif any(versions):
        facts["revision"] = versions[0]
    return Reading(str(source.name), paths, summaries, facts=facts)


def _finished(folder: Path, versions: list[str | None]) -> tuple[list[Path], list[dict[str, Any]]]:
    """The shards of an earlier run; none if a remote file has changed since."""
    paths: list[Path] = []
    summaries: list[dict[str, Any]] = []
    while summary := read_summary(path := shard_path(folder, len(paths))):
        if "next" not in summary or summary["versions"] != versions:
            for old in folder.glob("*.jsonl"):
                old.unlink()
            return [], []
        paths.append(path)
        summaries.append(summary)
    return paths, summaries


def _read(
    section: CorpusConfig,
    source: SourceConfig,
    files: list[File],
    description: str,
    before: list[dict[str, Any]],
    excluded: Excluded | None = None,
) -> Iterator[_Result]:
    """Yields the documents after those of the summaries `before`, up to `source.bytes` of text."""
    first, mark = 0, START
    if before:
        first, mark = before[-1]["next"][0], Mark(*before[-1]["next"][1])
    num_bytes = sum(summary["bytes"] for summary in before)
    sizes = [file.size or 0 for file in files]
    check = _Check(section, source, before)
    with track(description, source.bytes or sum(sizes)) as advance:
        reported = num_bytes if source.bytes else sum(sizes[:first])
        advance(reported, resumed=True)
        for place, file in enumerate(files[first:], start=first):
            rows = read_file(file, section, source, mark if place == first else START)
            for row, document in rows:
                if source.bytes and num_bytes >= source.bytes:
                    check.end()
                    return
                check.add(row, document)
                if isinstance(document, Document):
                    if len(document.text) < (source.filter.min_chars or 0):
                        document = Dropped(document.id, document.title, "too short")
                    elif excluded:
                        document = excluded.checked(document)
                if source.bytes and isinstance(document, Document):
                    num_bytes += len(document.text.encode())
                done = num_bytes if source.bytes else sum(sizes[:place]) + row.read
                if done - reported > _REPORT_BYTES:
                    advance(done - reported, f"{file.name}, row {row.mark.number:,}")
                    reported = done
                yield _Result(document, (place, row.mark))
        check.end()
        if source.bytes and num_bytes < source.bytes:
            log.warning(
                "%s: ends after %s bytes of text, before the limit of %s",
                source.name, f"{num_bytes:,}", f"{source.bytes:,}",
            )  # fmt: skip


def read_file(
    file: File, section: CorpusConfig, source: SourceConfig, mark: Mark = START
) -> Iterator[tuple[Row, Document | Dropped]]:
    """Yields each row of a file after a mark, with its document, or as dropped if it has no text.

    A row without an id gets `name:line`. Raises `CorpusError` with file and line if a row cannot be
    read.
    """
    columns = (source.text, source.id, source.title)
    is_first = True
    try:
        for row in read_rows(file, columns, section.txt_document, mark):
            document = _document(row, source)
            if isinstance(document, Dropped) and is_first:
                is_first = False
                names = list(row.fields) if isinstance(row.fields, dict) else []
                found = f"columns: {', '.join(names)}" if names else f"{row.fields!r:.40}"
                log.info("%s has no %s (%s); such rows are dropped", row.where, source.text, found)
            yield row, document
    except (OSError, EOFError, zlib.error) as error:
        raise CorpusError(f"cannot read documents from {file.place}: {error}") from error


class _Check:
    """Refuses one of `corpus.sources` if its first rows lack a text, or an `id` or `title` that it names."""

    def __init__(
        self, section: CorpusConfig, source: SourceConfig, before: list[dict[str, Any]]
    ) -> None:
        self.source, self.is_on = source, bool(section.sources)
        self.rows = sum(summary["pages"] for summary in before)
        self.texts = self.rows - sum(summary["dropped"].get("no text", 0) for summary in before)
        self.columns: dict[str, None] = {}
        # columns with the default names may be missing; a run that goes on has seen the first rows
        self.unseen = {
            key: name
            for key in ("id", "title")
            if not before and (name := getattr(source, key)) != getattr(SourceConfig, key)
        }

    def add(self, row: Row, document: Document | Dropped) -> bool:
        """Counts a row; returns whether a text and the named columns have been seen."""
        self.rows += 1
        self.texts += isinstance(document, Document)
        if self.is_on and (self.unseen or not self.texts):
            found = row.fields if isinstance(row.fields, dict) else {}
            self.columns |= dict.fromkeys(found)
            self.unseen = {key: name for key, name in self.unseen.items() if name not in found}
            if self.rows == _PATIENCE_ROWS:
                self._refuse_wrong()
        return bool(self.texts) and not self.unseen

    def end(self) -> None:
        if self.is_on and not self.rows:
            raise CorpusError(f"source {self.source.name}: {self.source.documents} holds no rows")
        if self.is_on:
            self._refuse_wrong()

    def _refuse_wrong(self) -> None:
        """Raises `CorpusError` if a column that the source names has not been seen."""
        wrong = self.unseen if self.texts else {"text": self.source.text}
        if not wrong:
            return
        key, name = next(iter(wrong.items()))
        columns = list(self.columns)
        more = ", ..." if len(columns) > _SHOWN_COLUMNS else ""
        raise CorpusError(
            f"source {self.source.name}: the first {self.rows:,} rows have no {key} in the column "
            f"{name!r}; set its {key} to one of the columns found: "
            f"{', '.join(columns[:_SHOWN_COLUMNS]) or 'none'}{more}"
        )


def _document(row: Row, source: SourceConfig) -> Document | Dropped:
    fields = row.fields if isinstance(row.fields, dict) else {}
    text = fields.get(source.text)
    title = _as_text(fields.get(source.title))
    if not (isinstance(text, str) and text.strip()):
        return Dropped(row.where, title, "no text")
    return Document(_as_text(fields.get(source.id)) or row.where, title, _as_text(text).strip())


def _as_text(value: Any) -> str:
    """A field as text; half a surrogate pair, which UTF-8 cannot hold, becomes U+FFFD."""
    text = "" if value is None else str(value)
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
