"""The work of a worker process: read the templates of a piece of the dump, or clean its pages."""

from __future__ import annotations

import resource
import signal
import sqlite3
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NoReturn

from gportuguese.config import CorpusConfig
from gportuguese.corpus.cleaning import Document, Dropped, clean_page, is_wanted
from gportuguese.corpus.definitions import NAMESPACE, Definitions, Row, definition_of
from gportuguese.corpus.exclusion import Excluded
from gportuguese.corpus.shards import ShardWriter, read_summary, shard_path
from gportuguese.corpus.unpacked import read_pages, unpacked_path, write_pages
from gportuguese.dump.reader import DumpError, Piece, RawPage, pages_in
from gportuguese.wikitext import Language, count_faults
from gportuguese.wikitext.definitions import Templates
from gportuguese.wikitext.expansion import expand

SLOWEST = 10  # pages named in a summary
# of address space beyond the worker's start; a page that needs more is set aside
_MAX_BYTES = 3 << 30


class _TimeLimit(BaseException):
    """A page took too long. Not an `Exception`, so that no other code catches it."""


@dataclass(frozen=True)
class Job:
    """The settings of all workers."""

    path: Path
    section: CorpusConfig
    language: Language
    shards: Path
    excluded: Path | None = None
    """The folder of `write_excluded`."""

    @property
    def definitions(self) -> Path:
        """The file of template definitions that the first pass writes."""
        return self.shards / "templates.sqlite"


def work(job: Job, connection: Connection, page: Any) -> None:
    """Runs a worker until its parent closes the pipe."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # only the parent handles Ctrl-C
    signal.signal(signal.SIGPROF, _raise_time_limit)
    _limit_memory()
    templates: Templates | None = None
    while True:
        try:
            kind, piece, quarantined = connection.recv()
        except (EOFError, OSError):
            return
        try:
            answer: tuple[str, Any]
            if kind == "unpack":
                answer = ("done", unpack_piece(job, piece))
            else:
                if templates is None and job.section.templates == "expand":
                    templates = Templates(Definitions(job.definitions).fetch, job.language)
                answer = ("done", clean_piece(job, piece, quarantined, page, templates))
        except DumpError as error:
            answer = ("error", str(error))
        except MemoryError:
            answer = ("failed", "out of memory; run again with a smaller runtime.num_workers")
        except (OSError, sqlite3.Error) as error:  # not the page's fault: the disk's
            answer = ("failed", str(error))
        with suppress(OSError):
            connection.send(answer)


def _limit_memory() -> None:
    """A page that explodes ends this worker at worst, not the machine."""
    with suppress(ValueError, OSError):  # macOS has neither this file nor this limit
        # the libraries of a fresh worker already take some, and reserve more
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
        most = pages * resource.getpagesize() + _MAX_BYTES
        _, hard = resource.getrlimit(resource.RLIMIT_AS)
        if hard == resource.RLIM_INFINITY or hard > most:
            resource.setrlimit(resource.RLIMIT_AS, (most, hard))


def _raise_time_limit(*_: object) -> NoReturn:
    raise _TimeLimit


def unpack_piece(job: Job, piece: Piece) -> list[Row]:
    """Writes the pages of a piece for `clean_piece`; returns its template definitions."""
    pages: list[RawPage] = []
    rows = []
    for page in pages_in(job.path, piece, _is_wanted_or_template):
        if page.namespace == NAMESPACE:
            rows.append(definition_of(page, job.language.template_prefixes))
            page = replace(page, wikitext="")
        pages.append(page)
    if read_summary(shard_path(job.shards, piece.number)) is None:
        write_pages(unpacked_path(job.shards, piece.number), pages)
    return rows


def _is_wanted_or_template(namespace: int, is_redirect: bool) -> bool:
    return namespace == NAMESPACE or is_wanted(namespace, is_redirect)


def clean_piece(
    job: Job, piece: Piece, quarantined: dict[int, str], page: Any, templates: Templates | None
) -> dict[str, Any]:
    """Writes the shard of a piece; returns its summary.

    A page that raises, or takes more than `corpus.page_seconds`, is set aside with the reason, and so
    are the pages in `quarantined`. `page.value` is the place of the current page.
    """
    over_limit: Counter[str] = Counter()

    def expanded(wikitext: str, title: str) -> str:
        assert templates is not None
        text, over = expand(wikitext, title, templates)
        over_limit.update(over)
        return text

    unpacked = unpacked_path(job.shards, piece.number)
    pages = pages_in(job.path, piece, is_wanted) if templates is None else read_pages(unpacked)
    shard = ShardWriter(job.section, Excluded.open(job.excluded))
    aside: list[dict[str, str]] = []
    times: list[tuple[float, str]] = []
    faults = dropped_sentences = 0
    for place, raw in enumerate(pages, start=1):
        page.value = place
        start = time.perf_counter()
        result = quarantined.get(place) or _limited(raw, job, expanded if templates else None)
        times.append((time.perf_counter() - start, raw.title))
        if isinstance(result, str):
            aside.append({"id": str(raw.id), "title": raw.title, "reason": result})
            continue
        if isinstance(result, Document):
            faults += sum(count_faults(result.text, job.language))
            dropped_sentences += result.dropped_sentences
        shard.add(result)
    shard.num_results += len(aside)
    if aside:
        shard.dropped["quarantined"] = len(aside)
    summary = shard.write(
        shard_path(job.shards, piece.number),
        quarantined=aside,
        faults=faults,
        dropped_sentences=dropped_sentences,
        over_limit=over_limit,
        slowest=sorted(times, reverse=True)[:SLOWEST],
    )
    unpacked.unlink(missing_ok=True)
    return summary


def _limited(
    raw: RawPage, job: Job, expanded: Callable[[str, str], str] | None
) -> Document | Dropped | str:
    """The result of a page, or the reason to set it aside."""
    # CPU seconds: a sleeping or busy machine sets no page aside
    signal.setitimer(signal.ITIMER_PROF, job.section.page_seconds)
    try:
        result = clean_page(raw, job.section, job.language, expanded)
        signal.setitimer(signal.ITIMER_PROF, 0)
        return result
    except _TimeLimit:
        return "time limit"
    except Exception as error:  # noqa: BLE001 - no page may end the run
        return f"cleaner failed: {type(error).__name__}"
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
