"""One thread that owns the model and generates many texts in one batch.

Jobs wait in a bounded queue and join the batch when a row is free. They leave it when they are
finished, cancelled or too late. Each step of the model adds one token to every row.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch

from gportuguese import causal_lm
from gportuguese.config import UserError
from gportuguese.generation import Continuation, Sampling, Writer
from gportuguese.generation.batch import Batch
from gportuguese.generation.drawing import log_probabilities

_log = logging.getLogger(__name__)

# Budget for reading new prompts between two steps: large enough to fill an empty batch with short
# prompts at once, small enough not to delay the running rows for long.
_PROMPT_TOKENS_PER_STEP = 512


class ServeError(UserError):
    """The server cannot be started with these options."""


class BusyError(Exception):
    """All rows and the queue are full."""


@dataclass(frozen=True, kw_only=True)
class Limits:
    """The limits of one server."""

    max_concurrent: int = 8
    """Texts generated at once."""
    max_queue: int = 32
    """Texts that wait for a row."""
    time_limit: float = 60.0
    """Seconds per text, including the time in the queue."""
    max_context: int = 4096
    """Maximum tokens of prompt and continuation, for models that allow more."""

    def __post_init__(self) -> None:
        if self.max_concurrent < 1 or self.max_queue < 0 or not self.time_limit > 0:
            raise ServeError(
                "serve: needs --max-concurrent >= 1, --max-queue >= 0 and --time-limit > 0; "
                f"got {self.max_concurrent}, {self.max_queue} and {self.time_limit}"
            )


@dataclass(frozen=True)
class Candidates:
    """A token and its most likely alternatives, with natural log-probabilities."""

    name: str
    offset: int
    """Complete characters before it, including the echoed prompt."""
    logprob: float | None = None
    """None for the first token of a prompt, which the model does not predict."""
    top: tuple[tuple[str, float], ...] | None = None
    """Names and log-probabilities of the most likely tokens."""


@dataclass(frozen=True)
class Piece:
    """A piece of a text. The last piece has a `finish`: `stop`, `length`, `time` or `error`."""

    text: str
    num_tokens: int
    """Tokens drawn since the last piece, including end of text."""
    candidates: tuple[Candidates, ...] = ()
    finish: str | None = None
    stop: str | None = None
    """The stop string that ended the text."""


@dataclass(eq=False)
class Job:
    """A text to generate. The engine's thread calls `deliver` with every piece."""

    ids: Sequence[int]
    sampling: Sampling
    deliver: Callable[[Piece], None]
    num_candidates: int | None = None
    """How many alternatives to report for each token; None reports no probabilities."""
    echo: str | None = None
    """The prompt's text, if the client wants it back."""
    deadline: float = field(default=0.0, init=False)
    cancelled: bool = field(default=False, init=False)

    def cancel(self) -> None:
        """Stops the text before its next token. No more pieces are delivered."""
        self.cancelled = True


class _Row(Continuation):
    """The continuation of a job."""

    def __init__(self, job: Job, writer: Writer) -> None:
        super().__init__(job.ids, job.sampling, writer)
        self.job = job
        self.num_unsent = 0
        """Tokens drawn since the last piece."""
        self.candidates: list[Candidates] = []


class Engine:
    """The model, its queue and its thread. A context manager: leaving it ends the thread."""

    def __init__(self, writer: Writer, limits: Limits) -> None:
        self.writer = writer
        self.limits = limits
        self.texts = writer.texts
        self.context = min(causal_lm.num_positions(writer.model), limits.max_context)
        self._batch = Batch(writer.model)
        self._rows: list[_Row] = []
        self._waiting: deque[Job] = deque()
        self._changed = threading.Condition()
        self._closing = False
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)

    def __enter__(self) -> Engine:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Ends every text with an error and waits for the thread."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        self._thread.join()

    @property
    def is_alive(self) -> bool:
        """Whether the thread is running."""
        return self._thread.is_alive()

    @property
    def num_waiting(self) -> int:
        """Texts in the queue."""
        return len(self._waiting)

    @property
    def num_running(self) -> int:
        """Texts being generated."""
        return len(self._rows)

    def submit(self, jobs: Sequence[Job]) -> None:
        """Queues all jobs; raises `BusyError` and queues none if they do not all fit."""
        with self._changed:
            room = self.limits.max_concurrent + self.limits.max_queue
            if self._closing or self.num_running + self.num_waiting + len(jobs) > room:
                raise BusyError(
                    f"{self.num_running} texts are running and {self.num_waiting} are waiting"
                )
            for job in jobs:
                job.deadline = time.monotonic() + self.limits.time_limit
            self._waiting.extend(jobs)
            self._changed.notify()

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._closing or self._waiting or self._rows)
            if self._closing:
                break
            try:
                self._drop_ended()
                self._admit()
                if self._rows:
                    self._step()
            except Exception:  # noqa: BLE001 - logged; the thread must keep running
                # most likely out of memory: these texts are lost, but the server keeps running
                _log.exception("a step of the model failed")
                self._end_all(self._rows)
        with self._changed:
            for job in self._waiting:
                _deliver(job, Piece("", 0, finish="error"))
            self._waiting.clear()
        self._end_all(self._rows)

    def _admit(self) -> None:
        budget = _PROMPT_TOKENS_PER_STEP
        while budget > 0 and len(self._rows) < self.limits.max_concurrent:
            with self._changed:
                if not self._waiting:
                    return
                job = self._waiting.popleft()
                try:
                    row = _Row(job, self.writer)
                except Exception:  # it has left the queue, so nobody else would answer it
                    _deliver(job, Piece("", 0, finish="error"))
                    raise
                self._rows.append(row)
            if self._end_if_late(row):
                self._rows.pop()
                continue
            budget -= len(row.ids)
            logits_V = self._read(row)
            if row.finish is not None or self._take(row, logits_V):
                self._keep([other for other in self._rows if other is not row])

    def _step(self) -> None:
        logits_BV = self._batch.step([row.ids[-1] for row in self._rows])
        pairs = zip(self._rows, logits_BV, strict=True)
        ended = {row for row, logits_V in pairs if self._take(row, logits_V)}
        if ended:
            self._keep([row for row in self._rows if row not in ended])

    def _read(self, row: _Row) -> torch.Tensor:
        """Reads a prompt, delivers its echo, and returns the logits of the next token."""
        job, score = row.job, None
        if job.echo is not None and job.num_candidates is not None:
            row.candidates = [Candidates(self.texts.name(row.ids[0]), 0)]
            offsets = self.texts.offsets(row.ids)

            def score(start: int, logits_TV: torch.Tensor) -> None:
                after = slice(start + 1, start + 1 + len(logits_TV))
                tokens_T = row.ids[after]  # the last position of the prompt predicts a new token
                self._record(row, logits_TV[: len(tokens_T)], tokens_T, offsets[after])

        logits_V = self._batch.join(row.ids, score)
        self._send(row, job.echo or "", row.finish)
        return logits_V

    def _take(self, row: _Row, logits_V: torch.Tensor) -> bool:
        """Draws the next token of a row and delivers the final text; True if the row is finished."""
        offset = len(row.job.echo or "") + row.stream.num_characters
        text = row.take(logits_V)
        row.num_unsent += 1
        self._record(row, logits_V.unsqueeze(0), row.ids[-1:], [offset])
        self._send(row, text, row.finish)
        return row.finish is not None or row.job.cancelled

    def _record(
        self, row: _Row, logits_TV: torch.Tensor, tokens_T: Sequence[int], offsets_T: Sequence[int]
    ) -> None:
        """Stores the probabilities of tokens for the next piece, if the job wants them."""
        if row.job.num_candidates is None or not tokens_T:
            return
        name = self.texts.name
        found_T = log_probabilities(logits_TV, tokens_T, row.job.num_candidates)
        for token, offset, (logprob, top) in zip(tokens_T, offsets_T, found_T, strict=True):
            names = tuple((name(other), value) for other, value in top)
            row.candidates.append(Candidates(name(token), offset, logprob, names))

    def _send(self, row: _Row, text: str, finish: str | None) -> None:
        if finish is not None:
            text += row.stream.finish()
        elif not text:
            return
        piece = Piece(text, row.num_unsent, tuple(row.candidates), finish, row.stream.stop)
        row.num_unsent, row.candidates = 0, []
        _deliver(row.job, piece)

    def _end_if_late(self, row: _Row) -> bool:
        """Ends a row that is cancelled or past its deadline; returns whether it did."""
        if not row.job.cancelled and time.monotonic() < row.job.deadline:
            return False
        self._send(row, "", "time")
        return True

    def _drop_ended(self) -> None:
        kept = [row for row in self._rows if not self._end_if_late(row)]
        if len(kept) < len(self._rows):
            self._keep(kept)
        with self._changed:
            late = [
                job for job in self._waiting if job.cancelled or time.monotonic() > job.deadline
            ]
            for job in late:
                self._waiting.remove(job)
        for job in late:
            _deliver(job, Piece("", 0, finish="time"))

    def _keep(self, rows: list[_Row]) -> None:
        self._batch.keep([self._rows.index(row) for row in rows])
        self._rows = rows

    def _end_all(self, rows: list[_Row]) -> None:
        for row in rows:
            self._send(row, "", "error")
        self._rows = []
        self._batch = Batch(self.writer.model)


def _deliver(job: Job, piece: Piece) -> None:
    if job.cancelled:
        return
    try:
        job.deliver(piece)
    except RuntimeError:  # the receiver's event loop is closed
        job.cancel()
