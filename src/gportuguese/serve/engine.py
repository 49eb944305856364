"""One thread that owns the model and writes many texts at once.

Requests wait in a bounded queue, join the running batch as rows become free, and leave it when
they are done, cancelled or late; every step of the model moves all running rows by one token.
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
from gportuguese.generate import Continuation, Sampling, Writer
from gportuguese.generate.batch import Batch
from gportuguese.generate.sampling import log_probabilities

_log = logging.getLogger(__name__)

# prompts read between two steps of the running rows: enough to fill an empty batch with short
# prompts at once, little enough that one long prompt does not stop the others for long
_PROMPT_TOKENS_PER_STEP = 512


class ServeError(UserError):
    """The server cannot be started as asked."""


class BusyError(Exception):
    """Rows and queue are full."""


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What one server takes on."""

    max_concurrent: int = 8
    """Texts written at once."""
    max_queue: int = 32
    """Texts that wait for a row."""
    time_limit: float = 60.0
    """Seconds from the arrival of a text to its end, waiting included."""
    max_context: int = 4096
    """Tokens of prompt and continuation together, where the model itself allows more."""

    def __post_init__(self) -> None:
        if self.max_concurrent < 1 or self.max_queue < 0 or not self.time_limit > 0:
            raise ServeError(
                "serve: --max-concurrent >= 1, --max-queue >= 0 and --time-limit > 0 are needed; "
                f"got {self.max_concurrent}, {self.max_queue} and {self.time_limit}"
            )


@dataclass(frozen=True)
class Candidates:
    """A token, and what was likely in its place: names with natural log-probabilities."""

    name: str
    offset: int
    """Complete characters of the text before it, the echoed prompt included."""
    logprob: float | None = None
    """None for the first token of a prompt, which nothing predicts."""
    top: tuple[tuple[str, float], ...] | None = None


@dataclass(frozen=True)
class Piece:
    """More of a text. `finish` is set on its last piece: `stop`, `length`, `time` or `error`."""

    text: str
    num_tokens: int
    """Tokens drawn since the last piece, end of text included."""
    candidates: tuple[Candidates, ...] = ()
    finish: str | None = None
    stop: str | None = None
    """The stop string that ended the text."""


@dataclass(eq=False)
class Job:
    """A text to write. `deliver` is called in the engine's thread with every piece."""

    ids: Sequence[int]
    sampling: Sampling
    deliver: Callable[[Piece], None]
    num_candidates: int | None = None
    """How many likely tokens to report beside each one; None reports nothing."""
    echo: str | None = None
    """The prompt's text where it is wanted back, with its tokens' probabilities if reported."""
    deadline: float = field(default=0.0, init=False)
    cancelled: bool = field(default=False, init=False)

    def cancel(self) -> None:
        """Makes the text end before its next token; no further piece is delivered."""
        self.cancelled = True


class _Row(Continuation):
    """A text being written for a job."""

    def __init__(self, job: Job, writer: Writer) -> None:
        super().__init__(job.ids, job.sampling, writer)
        self.job = job
        self.untold = 0
        """Tokens drawn since the last piece."""
        self.candidates: list[Candidates] = []


class Engine:
    """The model, its queue and its thread; a context manager, for the thread must be ended."""

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
        """Whether texts can be written."""
        return self._thread.is_alive()

    @property
    def num_waiting(self) -> int:
        """Texts in the queue."""
        return len(self._waiting)

    @property
    def num_running(self) -> int:
        """Texts being written."""
        return len(self._rows)

    def submit(self, jobs: Sequence[Job]) -> None:
        """Queues all jobs, or none: raises `BusyError` if they do not fit."""
        with self._changed:
            room = self.limits.max_concurrent + self.limits.max_queue
            if self._closing or self.num_running + self.num_waiting + len(jobs) > room:
                raise BusyError(
                    f"{self.num_running} texts are being written, {self.num_waiting} wait"
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
            except Exception:  # noqa: BLE001 - logged; the thread must outlive it
                # memory ran out, most likely: these texts are lost, the server is not
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
                row = _Row(job, self.writer)
                self._rows.append(row)
            if self._is_over(row):
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
        """Reads a prompt, delivers what is wanted back of it; the logits of the next token."""
        job, score = row.job, None
        if job.echo is not None and job.num_candidates is not None:
            row.candidates = [Candidates(self.texts.name(row.ids[0]), 0)]
            offsets = self.texts.offsets(row.ids)

            def score(start: int, logits_TV: torch.Tensor) -> None:
                after = slice(start + 1, start + 1 + len(logits_TV))
                tokens_T = row.ids[after]  # one fewer at the end of the prompt
                self._note(row, logits_TV[: len(tokens_T)], tokens_T, offsets[after])

        logits_V = self._batch.join(row.ids, score)
        self._tell(row, job.echo or "", row.finish)
        return logits_V

    def _take(self, row: _Row, logits_V: torch.Tensor) -> bool:
        """Draws the next token of a row and delivers what it makes certain; True at the end."""
        offset = len(row.job.echo or "") + row.stream.num_characters
        text = row.take(logits_V)
        row.untold += 1
        self._note(row, logits_V.unsqueeze(0), row.ids[-1:], [offset])
        self._tell(row, text, row.finish)
        return row.finish is not None or row.job.cancelled

    def _note(
        self, row: _Row, logits_TV: torch.Tensor, tokens_T: Sequence[int], offsets_T: Sequence[int]
    ) -> None:
        """Keeps the probabilities of tokens for the next piece, if the job reports them."""
        if row.job.num_candidates is None or not tokens_T:
            return
        name = self.texts.name
        found_T = log_probabilities(logits_TV, tokens_T, row.job.num_candidates)
        for token, offset, (logprob, top) in zip(tokens_T, offsets_T, found_T, strict=True):
            names = tuple((name(other), value) for other, value in top)
            row.candidates.append(Candidates(name(token), offset, logprob, names))

    def _tell(self, row: _Row, text: str, finish: str | None) -> None:
        if finish is not None:
            text += row.stream.finish()
        elif not text:
            return
        piece = Piece(text, row.untold, tuple(row.candidates), finish, row.stream.stop)
        row.untold, row.candidates = 0, []
        _deliver(row.job, piece)

    def _is_over(self, row: _Row) -> bool:
        """Whether a row is to end before its next token; tells so if it is late."""
        if not row.job.cancelled and time.monotonic() < row.job.deadline:
            return False
        self._tell(row, "", "time")
        return True

    def _drop_ended(self) -> None:
        kept = [row for row in self._rows if not self._is_over(row)]
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
            self._tell(row, "", "error")
        self._rows = []
        self._batch = Batch(self.writer.model)


def _deliver(job: Job, piece: Piece) -> None:
    if job.cancelled:
        return
    try:
        job.deliver(piece)
    except RuntimeError:  # the event loop of the receiver is closed
        job.cancel()
