"""Worker processes that clean the pieces of a dump into shards, replaced when they die or hang.

With `corpus.templates: expand` a first pass collects the template definitions of all pieces. It keeps
the unpacked pages for the second pass, so that bzip2 is undone once.

A shard is complete or absent. A run that was killed cleans only the pieces without a shard, and ends
with the same bytes.
"""

from __future__ import annotations

import multiprocessing
import sys
import time
import types
from collections import Counter, deque
from collections.abc import Generator, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from multiprocessing.connection import wait
from typing import Any, Literal

from gportuguese.config import UserError
from gportuguese.corpus.definitions import Row, read_pieces, write_definitions
from gportuguese.corpus.shards import read_summary, shard_path
from gportuguese.corpus.unpacked import is_complete, unpacked_path
from gportuguese.corpus.workers import Job, work
from gportuguese.dump.reader import DumpError, Piece, check_end, pieces_of
from gportuguese.progress import Advance, track

_MAX_DEATHS = 20  # per piece
_MAX_DEATHS_UNPACKING = 2  # per piece: the first pass can set no page aside
_GRACE_SECONDS = 60.0  # beyond a page's time limit, for code that no signal can stop


class CorpusError(UserError):
    """This input gives no corpus."""


@dataclass
class _Task:
    piece: Piece
    kind: Literal["clean", "unpack"] = "clean"
    quarantined: dict[int, str] = field(default_factory=dict)
    """Place of a page in the piece -> why it is set aside."""
    deaths: Counter[int] = field(default_factory=Counter)


def clean_dump(job: Job, num_workers: int) -> Generator[tuple[Piece, dict[str, Any]], None, None]:
    """Yields each piece of the dump and the summary of its shard, as the pieces finish.

    Raises `DumpError` if the dump is damaged; finished shards stay for the next run.
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
    """The pieces, after their definitions and pages are in the scratch folder."""
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
    """Whether the pages of a piece are ready for the second pass, or its shard is done."""
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
    """A process, its task, and the place of its current page."""

    def __init__(self, job: Job) -> None:
        context = multiprocessing.get_context("spawn")  # the parent may hold threads
        self.connection, theirs = context.Pipe()
        self.page = context.Value("q", 0, lock=False)
        self.process = context.Process(target=work, args=(job, theirs, self.page), daemon=True)
        with _without_main():
            self.process.start()
        theirs.close()
        self.task: _Task | None = None
        self.seen, self.since = -1, time.monotonic()

    def start(self, task: _Task) -> None:
        self.task, self.seen, self.since = task, -1, time.monotonic()
        self.page.value = 0
        with suppress(OSError):  # it just died, which `_collect` will notice
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
        """Starts a task as soon as a worker is free; yields the results that arrive meanwhile."""
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
        """Yields the remaining results."""
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
        """Ends a worker and queues its task again; sets a page aside after `limit` deaths there."""
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
