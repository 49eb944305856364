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
        resumed: bool = False,
    ) -> None:
        """Reports progress. By default, the mean rate gives the time left; nan means unknown.

        What an earlier run did is `resumed`: it does not count for the rate.
        """


@functools.cache
def console() -> Console:
    """The console for log lines and bars, on standard error."""
    from rich.console import Console

    return Console(stderr=True, highlight=False)


@contextmanager
def track(description: str, total: float) -> Iterator[Advance]:
    """Yields `advance(amount, note)`, which reports progress towards `total`; 0 means unknown."""
    if not log.isEnabledFor(logging.INFO):  # only the main process reports
        yield _ignore
    elif sys.stderr.isatty():
        with _bar(description, total) as update:
            yield _Task(description, total, update)
    else:
        yield _Task(description, total, _lines())


@contextmanager
def tracked(description: str, items: Iterable[T], total: int) -> Iterator[Iterator[T]]:
    """Yields an iterator over the items that reports progress after each."""
    # the bar belongs to the `with` block: an error would leave a generator, and its bar, suspended
    with track(description, total) as advance:

        def reported() -> Iterator[T]:
            for item in items:
                yield item
                advance(1)

        yield reported()


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


_Update = Callable[[str, "float | None", str], None]
"""Displays a description, the share done (None if unknown), and a note."""


class _Task:
    """Adds up progress and estimates the time left."""

    def __init__(self, description: str, total: float, update: _Update) -> None:
        self.description, self.total, self.update = description, total, update
        self.start, self.done = time.monotonic(), 0.0
        self.resumed = 0.0

    def __call__(
        self,
        amount: float,
        note: str = "",
        *,
        description: str | None = None,
        seconds_left: float | None = None,
        resumed: bool = False,
    ) -> None:
        self.done += amount
        self.resumed += amount if resumed else 0
        self.description = description or self.description
        if seconds_left is None and self.total and self.done > self.resumed:
            rate = (self.done - self.resumed) / max(time.monotonic() - self.start, 1e-9)
            seconds_left = max(self.total - self.done, 0) / rate
        parts = [note] if note else []
        if seconds_left is not None and math.isfinite(seconds_left):
            parts.append(f"{clock(seconds_left, short=True)} left")
        share = self.done / self.total if self.total else None
        self.update(self.description, share, ", ".join(parts))


def _ignore(amount: float, note: str = "", **_: object) -> None:
    pass


def _lines() -> _Update:
    last = time.monotonic()

    def update(description: str, share: float | None, note: str) -> None:
        nonlocal last
        now = time.monotonic()
        if now - last >= LINE_SECONDS and share != 0:
            last = now
            log.info("%s: %s", description, _share_and_note(share, note).lstrip())

    return update


def _share_and_note(share: float | None, note: str) -> str:
    parts = [] if share is None else [f"{100 * share:3.0f} %"]
    return ", ".join([*parts, note] if note else parts)


@contextmanager
def _bar(description: str, total: float | None) -> Iterator[_Update]:
    """A bar at the bottom of the terminal. It hides the bars of enclosing work while it is shown."""
    global _bars
    is_outermost = _bars is None
    bars = _bars = _bars or _make_bars()
    outer = [task.id for task in bars.tasks if task.visible]
    for each in outer:
        bars.update(each, visible=False)
    task = bars.add_task(description, total=1.0 if total else None, note="")
    bars.start()

    def update(description: str, share: float | None, note: str) -> None:
        note = _share_and_note(share, note)
        bars.update(task, description=description, completed=share, note=note)

    try:
        yield update
    finally:
        bars.remove_task(task)
        for each in set(outer) & set(bars.task_ids):  # a suspended generator outlives outer bars
            bars.update(each, visible=True)
        if is_outermost and bars is _bars:
            stop_bars()


def stop_bars() -> None:
    """Removes all bars from the terminal and shows its cursor again."""
    global _bars
    if _bars is not None:
        _bars.stop()
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
