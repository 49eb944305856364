"""How far a long step is: a bar on a terminal, one line per interval anywhere else."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

log = logging.getLogger("gportuguese")

LINE_SECONDS = 15.0


@contextmanager
def track(description: str, total: float) -> Iterator[Callable[[float, str], None]]:
    """Yields `advance(amount, note)`: `amount` of `total` is done, `note` says how it goes."""
    if not log.isEnabledFor(logging.INFO):  # another process speaks for this one
        yield _silence
    elif sys.stderr.isatty():
        yield from _bar(description, total)
    else:
        yield from _lines(description, total)


def _silence(amount: float, note: str = "") -> None:
    pass


def _bar(description: str, total: float) -> Iterator[Callable[[float, str], None]]:
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        Progress,
        TaskProgressColumn,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task(description, total=total, note="")

        def advance(amount: float, note: str = "") -> None:
            progress.update(task, advance=amount, note=note)

        yield advance


def _lines(description: str, total: float) -> Iterator[Callable[[float, str], None]]:
    start = last = time.monotonic()
    done = 0.0

    def advance(amount: float, note: str = "") -> None:
        nonlocal done, last
        done += amount
        now = time.monotonic()
        if now - last >= LINE_SECONDS and done > 0:
            last = now
            left = (now - start) * max(total - done, 0) / done
            log.info("%s: %.0f %%, %.0f s left, %s", description, 100 * done / total, left, note)

    yield advance
