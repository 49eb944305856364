"""Worker processes that clean the pieces of a dump into shards; a page that hurts one is set aside.

With `corpus.templates: expand` they first read the template definitions out of all pieces. They keep the
pages that they unpacked on the way, so that nobody undoes bzip2 twice.

A shard is complete or absent: a run that was killed goes on with the pieces that have none, and ends
with the same bytes.
"""

from __future__ import annotations

import json
import multiprocessing
import resource
import signal
import sqlite3
import sys
import time
import types
from collections import Counter, deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any, Literal

from gportuguese.atomic import replacing
from gportuguese.config import CorpusConfig, UserError
from gportuguese.corpus.cleaning import Document, Dropped, clean_page, is_wanted
from gportuguese.corpus.definitions import (
    NAMESPACE,
    Definitions,
    Row,
    definition_of,
    read_pieces,
    write_definitions,
)
from gportuguese.corpus.shards import read_summary, shard_line, shard_path
from gportuguese.corpus.unpacked import is_complete, read_pages, unpacked_path, write_pages
from gportuguese.dump.reader import DumpError, Piece, RawPage, check_end, pages_in, pieces_of
from gportuguese.progress import Advance, track
from gportuguese.wikitext import Language, count_faults
from gportuguese.wikitext.expansion import Templates, expand

DROPPED_SAMPLES = 20  # per reason and shard, to be read by a person
SLOWEST = 10
_WORKER_BYTES = 3 << 30  # more address space than at its start: a page that wants that is set aside
_MAX_DEATHS = 20  # at one piece
_MAX_DEATHS_UNPACKING = 2  # at one piece: no page can be set aside there
_GRACE_SECONDS = 60.0  # beyond the time limit of a page, for code that no signal can stop


class CorpusError(UserError):
    """No corpus can be made of this input."""


class _TimeLimit(BaseException):
    """A page took too long; not an `Exception`, so that nothing on the way swallows it."""


@dataclass(frozen=True)
class Job:
    """What every worker has to know."""

    path: Path
    section: CorpusConfig
    language: Language
    shards: Path
    template_prefixes: frozenset[str] = frozenset(("template",))
    """Names of the template namespace in lower case."""

    @property
    def definitions(self) -> Path:
        """The templates of the dump, between the passes."""
        return self.shards / "templates.sqlite"


@dataclass
class _Task:
    piece: Piece
    kind: Literal["clean", "unpack"] = "clean"
    quarantined: dict[int, str] = field(default_factory=dict)
    """Pages (by their place in the piece) that must not be tried again, and why."""
    deaths: Counter[int] = field(default_factory=Counter)


def clean_dump(job: Job, num_workers: int) -> Iterator[tuple[Piece, dict[str, Any]]]:
    """Yields each piece of the dump, in any order, with the summary of its shard once that is whole.

    Raises `DumpError` if the dump is damaged; what was cleaned before stays for the next try.
    """
    pool = _Pool(job, num_workers)
    last: Piece | None = None
    try:
        is_expanding = job.section.templates == "expand"
        for piece in _unpacked(job, pool) if is_expanding else pieces_of(job.path):
            last = piece
            summary = read_summary(shard_path(job.shards, piece.number))
            if summary is not None:
                yield piece, summary
                continue
            yield from pool.give(_Task(piece))
        yield from pool.finish()
    finally:
        pool.close()
    if last is not None and not is_expanding:
        check_end(job.path, last, "after the last page")


def _unpacked(job: Job, pool: _Pool) -> list[Piece]:
    """The pieces, once the definitions and the pages of each are in the scratch folder."""
    pieces = read_pieces(job.definitions)
    if pieces and all(_is_here(job, piece) for piece in pieces):
        return pieces
    pieces.clear()

    def found(advance: Advance) -> Iterator[tuple[int, list[Row]]]:
        last: Piece | None = None
        for last in pieces_of(job.path):
            pieces.append(replace(last, xml=None))
            for piece, rows in pool.give(_Task(last, "unpack")):
                advance(piece.end - piece.start)
                yield piece.number, rows
        for piece, rows in pool.finish():
            advance(piece.end - piece.start)
            yield piece.number, rows
        if last is not None:
            check_end(job.path, last, "after the last page")

    with track("templates", job.path.stat().st_size) as advance:
        write_definitions(job.definitions, found(advance), pieces)
    return pieces


def _is_here(job: Job, piece: Piece) -> bool:
    """Whether the second pass has what it needs of a piece, or has been there."""
    unpacked = unpacked_path(job.shards, piece.number)
    return is_complete(unpacked) or read_summary(shard_path(job.shards, piece.number)) is not None


@contextmanager
def _without_main() -> Iterator[None]:
    """Hides the program's main module: a spawned process imports it again, and would build again."""
    main = sys.modules["__main__"]
    sys.modules["__main__"] = types.ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main


class _Worker:
    """A process, the task it has, and the page that it is at."""

    def __init__(self, job: Job) -> None:
        context = multiprocessing.get_context("spawn")  # the parent may hold threads
        self.connection, theirs = context.Pipe()
        self.page = context.Value("q", 0, lock=False)
        self.process = context.Process(target=_work, args=(job, theirs, self.page), daemon=True)
        with _without_main():
            self.process.start()
        theirs.close()
        self.task: _Task | None = None
        self.seen, self.since = -1, time.monotonic()

    def start(self, task: _Task) -> None:
        self.task, self.seen, self.since = task, -1, time.monotonic()
        self.page.value = 0
        with suppress(OSError):  # it died meanwhile: noticed at the next look
            self.connection.send((task.kind, task.piece, dict(task.quarantined)))

    def is_stuck(self, limit_seconds: float) -> bool:
        now = time.monotonic()
        if self.page.value != self.seen:
            self.seen, self.since = self.page.value, now
        return self.task is not None and now - self.since > limit_seconds + _GRACE_SECONDS

    def stop(self) -> None:
        self.process.kill()
        self.process.join()
        self.connection.close()


class _Pool:
    def __init__(self, job: Job, num_workers: int) -> None:
        self.job, self.num_workers = job, num_workers
        self.workers: list[_Worker] = []
        self.again: deque[_Task] = deque()

    def give(self, task: _Task) -> Iterator[tuple[Piece, Any]]:
        """Hands out a task as soon as a worker is free; yields what was finished meanwhile."""
        self.again.append(task)
        while self.again:
            free = next((worker for worker in self.workers if worker.task is None), None)
            if free is None and len(self.workers) < self.num_workers:
                free = _Worker(self.job)
                self.workers.append(free)
            if free is not None:
                free.start(self.again.popleft())
            else:
                yield from self._collect()

    def finish(self) -> Iterator[tuple[Piece, Any]]:
        """Yields the rest."""
        while any(worker.task for worker in self.workers):
            yield from self._collect()
            if self.again:
                yield from self.give(self.again.popleft())

    def close(self) -> None:
        for worker in self.workers:
            worker.stop()

    def _collect(self) -> Iterator[tuple[Piece, Any]]:
        """Waits for a worker to report, to die, or to be stuck."""
        busy = {worker.connection: worker for worker in self.workers if worker.task}
        for connection in wait(list(busy), timeout=1.0):
            worker = busy[connection]  # type: ignore[index]
            try:
                kind, content = worker.connection.recv()
            except (EOFError, OSError):
                self._bury(worker, "the worker died", limit=2)
                continue
            if kind == "error":
                raise DumpError(content)
            task, worker.task = worker.task, None
            assert task is not None
            if kind == "failed":
                raise CorpusError(
                    f"a worker failed at piece {task.piece.number} of {self.job.path}: {content}"
                )
            yield task.piece, content
        for worker in self.workers:
            if worker.is_stuck(self.job.section.page_seconds):
                self._bury(worker, "time limit", limit=1)

    def _bury(self, worker: _Worker, reason: str, limit: int) -> None:
        """Replaces a worker; a page at which `limit` workers died is set aside."""
        worker.stop()
        self.workers.remove(worker)
        task = worker.task
        assert task is not None
        place = worker.page.value
        task.deaths[place] += 1
        if task.deaths[place] >= limit:
            task.quarantined[place] = reason
        if task.kind == "unpack" and task.deaths.total() == _MAX_DEATHS_UNPACKING:
            raise CorpusError(
                f"two workers failed to read the templates of piece {task.piece.number} of "
                f"{self.job.path}, bytes {task.piece.start:,} to {task.piece.end:,} ({reason}); run "
                "again with a smaller runtime.num_workers or a larger corpus.page_seconds, or set "
                "corpus.templates to tables"
            )
        if task.deaths.total() > _MAX_DEATHS:
            raise CorpusError(
                f"workers keep dying at piece {task.piece.number} of {self.job.path} (out of "
                "memory?); run again with a smaller runtime.num_workers"
            )
        self.again.append(task)


def _work(job: Job, connection: Connection, page: Any) -> None:
    """The life of a worker: it ends with the pipe to its parent."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent
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
                    fetch = Definitions(job.definitions).fetch
                    templates = Templates(fetch, job.template_prefixes, job.language)
                answer = ("done", clean_piece(job, piece, quarantined, page, templates))
        except DumpError as error:
            answer = ("error", str(error))
        except MemoryError:
            answer = ("failed", "out of memory; run again with a smaller runtime.num_workers")
        except (OSError, sqlite3.Error) as error:  # not of a page: the disk
            answer = ("failed", str(error))
        with suppress(OSError):
            connection.send(answer)


def _limit_memory() -> None:
    """A page that explodes ends this worker at worst, not the machine."""
    with suppress(ValueError, OSError):  # macOS has neither this file nor this limit
        # a worker starts with what the user's script imports: with torch that is gigabytes
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
        most = pages * resource.getpagesize() + _WORKER_BYTES
        _, hard = resource.getrlimit(resource.RLIMIT_AS)
        if hard == resource.RLIM_INFINITY or hard > most:
            resource.setrlimit(resource.RLIMIT_AS, (most, hard))


def _raise_time_limit(*_: object) -> None:
    raise _TimeLimit


def unpack_piece(job: Job, piece: Piece) -> list[Row]:
    """Writes the pages of a piece for `clean_piece`; returns the definitions among them."""
    pages: list[RawPage] = []
    rows = []
    for page in pages_in(job.path, piece, _is_wanted_or_template):
        if page.namespace == NAMESPACE:
            rows.append(definition_of(page, job.template_prefixes))
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

    A page that raises, or takes more than `corpus.page_seconds`, is set aside with the reason.
    """
    over_limit: Counter[str] = Counter()

    def expanded(wikitext: str, title: str) -> str:
        assert templates is not None
        text, over = expand(wikitext, title, templates)
        over_limit.update(over)
        return text

    unpacked = unpacked_path(job.shards, piece.number)
    pages = pages_in(job.path, piece, is_wanted) if templates is None else read_pages(unpacked)
    language, section = job.language, job.section
    lines: list[str] = []
    dropped: Counter[str] = Counter()
    samples: list[dict[str, str]] = []
    aside: list[dict[str, str]] = []
    times: list[tuple[float, str]] = []
    place = faults = dropped_sentences = 0
    for place, raw in enumerate(pages, start=1):
        page.value = place
        start = time.perf_counter()
        reason = quarantined.get(place)
        result = (
            _limited(raw, section, language, expanded if templates else None)
            if reason is None
            else reason
        )
        times.append((time.perf_counter() - start, raw.title))
        if isinstance(result, str):
            aside.append({"id": str(raw.id), "title": raw.title, "reason": result})
            dropped["quarantined"] += 1
        elif isinstance(result, Dropped):
            dropped[result.reason] += 1
            if dropped[result.reason] <= DROPPED_SAMPLES:
                samples.append(result.__dict__)
        else:
            faults += sum(count_faults(result.text, language))
            dropped_sentences += result.dropped_sentences
            lines.append(shard_line(result, section))
    summary = {
        "pages": place,
        "dropped": dropped,
        "samples": samples,
        "quarantined": aside,
        "faults": faults,
        "dropped_sentences": dropped_sentences,
        "over_limit": over_limit,
        "slowest": sorted(times, reverse=True)[:SLOWEST],
    }
    shard = shard_path(job.shards, piece.number)
    text = "".join(f"{line}\n" for line in [*lines, json.dumps(summary, ensure_ascii=False)])
    with replacing(shard) as scratch:
        scratch.write_text(text, encoding="utf-8")
    unpacked.unlink(missing_ok=True)
    return summary


def _limited(
    raw: RawPage,
    section: CorpusConfig,
    language: Language,
    expanded: Callable[[str, str], str] | None,
) -> Document | Dropped | str:
    """The result of a page, or why it has none."""
    # seconds of computing: a machine that sleeps or is busy sets no page aside
    signal.setitimer(signal.ITIMER_PROF, section.page_seconds)
    try:
        result = clean_page(raw, section, language, expanded)
        signal.setitimer(signal.ITIMER_PROF, 0)
        return result
    except _TimeLimit:
        return "time limit"
    except Exception as error:  # noqa: BLE001 - whatever a page holds, it must not end the run
        return f"cleaner failed: {type(error).__name__}"
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
