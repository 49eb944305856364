"""Progress of long steps: a bar on a terminal, a log line per interval elsewhere.

Bars and log lines share one console, so that they do not overwrite each other.
"""

from __future__ import annotations

import functools
import logging
import math
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Protocol, TypeVar

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress

log = logging.getLogger("gportuguese")

LINE_SECONDS = 15.0
_BAR_WIDTH = 30
_REFRESHES_PER_SECOND = 4
_bars: Progress | None = None

T = TypeVar("T")


class Advance(Protocol):
    """Reports that `amount` more of the total is done."""

    def __call__(
        self,
        amount: float,
        note: str = "",
        *,
        description: str | None = None,
        seconds_left: float | None = None,
    ) -> None:
        """Reports progress. By default, the mean rate gives the time left; nan means unknown."""


@functools.cache
def console() -> Console:
    """The console for log lines and bars, on standard error."""
    from rich.console import Console

    return Console(stderr=True, highlight=False)


@contextmanager
def track(description: str, total: float) -> Iterator[Advance]:
    """Yields `advance(amount, note)`, which reports progress towards `total`."""
    if not log.isEnabledFor(logging.INFO):  # only the main process reports
        yield _ignore
    elif sys.stderr.isatty():
        with _bar(description, total) as update:
            yield _Task(description, total, update)
    else:
        yield _Task(description, total, _lines())


def tracked(description: str, items: Iterable[T], total: int) -> Iterator[T]:
    """Yields the items and reports progress after each."""
    with track(description, total) as advance:
        for item in items:
            yield item
            advance(1)


@contextmanager
def busy(description: str) -> Iterator[None]:
    """Shows work of unknown length on a terminal."""
    if log.isEnabledFor(logging.INFO) and sys.stderr.isatty():
        with _bar(description, None):
            yield
    else:
        yield


def clock(seconds: float, short: bool = False) -> str:
    """Formats seconds as hours, minutes and seconds; `short` omits zero hours.

    >>> clock(465), clock(465, short=True), clock(20911)
    ('0:07:45', '7:45', '5:48:31')
    """
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{minutes}:{rest:02d}" if short and not hours else f"{hours}:{minutes:02d}:{rest:02d}"


_Update = Callable[[str, float, str], None]
"""Displays a description, the share done, and a note."""


class _Task:
    """Adds up progress and estimates the time left."""

    def __init__(self, description: str, total: float, update: _Update) -> None:
        self.description, self.total, self.update = description, total, update
        self.start, self.done = time.monotonic(), 0.0

    def __call__(
        self,
        amount: float,
        note: str = "",
        *,
        description: str | None = None,
        seconds_left: float | None = None,
    ) -> None:
        self.done += amount
        self.description = description or self.description
        if seconds_left is None and self.done > 0:
            elapsed = time.monotonic() - self.start
            seconds_left = elapsed * max(self.total - self.done, 0) / self.done
        parts = [note] if note else []
        if seconds_left is not None and math.isfinite(seconds_left):
            parts.append(f"{clock(seconds_left, short=True)} left")
        self.update(
            self.description, self.done / self.total if self.total else 1.0, ", ".join(parts)
        )


def _ignore(amount: float, note: str = "", **_: object) -> None:
    pass


def _lines() -> _Update:
    last = time.monotonic()

    def update(description: str, share: float, note: str) -> None:
        nonlocal last
        now = time.monotonic()
        if now - last >= LINE_SECONDS and share > 0:
            last = now
            log.info("%s: %.0f %%, %s", description, 100 * share, note)

    return update


@contextmanager
def _bar(description: str, total: float | None) -> Iterator[_Update]:
    """A bar at the bottom of the terminal. It hides the bars of enclosing work while it is shown."""
    global _bars
    bars = _bars = _bars or _make_bars()
    outer = [task.id for task in bars.tasks if task.visible]
    for each in outer:
        bars.update(each, visible=False)
    task = bars.add_task(description, total=None if total is None else 1.0, note="")
    bars.start()

    def update(description: str, share: float, note: str) -> None:
        note = f"{100 * share:3.0f} %, {note}"
        bars.update(task, description=description, completed=share, note=note)

    try:
        yield update
    finally:
        bars.remove_task(task)
        for each in outer:
            bars.update(each, visible=True)
        if not bars.tasks:
            bars.stop()
            _bars = None


def _make_bars() -> Progress:
    from rich.progress import BarColumn, Progress, TextColumn

    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(_BAR_WIDTH),
        TextColumn("{task.fields[note]}", markup=False),
        console=console(),
        refresh_per_second=_REFRESHES_PER_SECOND,
        transient=True,
        redirect_stdout=False,  # output of the command does not belong on this console
    )
