"""What the `compare_*` scripts share: options, runs side by side, results as JSON lines, tables."""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib import metadata
from pathlib import Path
from threading import Lock
from typing import Any, TypeVar

Run, Made = TypeVar("Run"), TypeVar("Made")

_WRITING = Lock()


def make_parser(doc: str) -> argparse.ArgumentParser:
    """A parser with the options of every comparison; `doc` is the script's docstring."""
    parser = argparse.ArgumentParser(description=doc.splitlines()[0])
    parser.add_argument("--config", type=Path, required=True)
    parser.add_argument("--set", action="append", default=[])
    parser.add_argument(
        "--jobs", type=int, default=1, help="runs at a time; cores are shared evenly"
    )
    return parser


def words_of(sets: Iterable[str]) -> list[str]:
    """Settings as words of a command: `--set` before each."""
    return [word for each in sets for word in ("--set", each)]


def environment(jobs: int) -> dict[str, str]:
    """The environment of one of `jobs` processes that share the cores evenly.

    The user's own OMP_NUM_THREADS is kept.
    """
    return {"OMP_NUM_THREADS": str(max(1, (os.cpu_count() or 1) // jobs)), **os.environ}


def run_all(run: Callable[[Run], Made], runs: Iterable[Run], jobs: int) -> list[Made]:
    """The results of all runs in their order, `jobs` at a time."""
    with ThreadPoolExecutor(jobs) as pool:
        return list(pool.map(run, runs))


class Results:
    """A file of JSON lines, one per finished run, from which an interrupted comparison resumes.

    A line holds the run's identity, which is everything that determines its result, and the result.
    `older` holds the values of keys that lines of earlier versions lack.
    """

    def __init__(self, path: Path, **older: Any) -> None:
        self.path, self.older = path, older

    def lines(self) -> list[dict[str, Any]]:
        """All lines; none without a file."""
        if not self.path.exists():
            return []
        lines = self.path.read_text(encoding="utf-8").splitlines()
        return [{**self.older, **json.loads(line)} for line in lines]

    def add(self, line: dict[str, Any]) -> None:
        """Appends the line of a finished run."""
        with _WRITING, self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")

    def of(self, identities: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """The lines of these runs."""
        return [line for line in self.lines() if _part(line, identities[0]) in identities]

    def missing(self, identities: list[dict[str, Any]]) -> list[int]:
        """The positions in `identities` of runs without a line."""
        found = [_part(line, identities[0]) for line in self.lines()]
        return [number for number, each in enumerate(identities) if each not in found]


def _part(line: dict[str, Any], identity: dict[str, Any]) -> dict[str, Any]:
    return {key: line[key] for key in identity}


def spread(values: Iterable[float]) -> str:
    """Mean and, of several values, the standard deviation.

    >>> spread([2.0]), spread([2.0, 2.1])
    ('2.0000', '2.0500 ± 0.0707')
    """
    values = list(values)
    text = f"{statistics.mean(values):.4f}"
    return f"{text} ± {statistics.stdev(values):.4f}" if len(values) > 1 else text


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table.

    >>> print(table(["way", "loss"], [["all", "2.1"]]))
    | way | loss |
    | --- | --- |
    | all | 2.1 |
    """
    lines = [f"| {' | '.join(cells)} |" for cells in (head, *rows)]
    return "\n".join([lines[0], "| --- " * len(head) + "|", *lines[1:]])


def setting(seeds: int, jobs: int, *facts: str) -> str:
    """The line under a table: what its numbers are, facts of the runs, and this machine."""
    return "\n" + "; ".join([
        f"Mean ± standard deviation over {seeds} seed(s)",
        *facts,
        f"{jobs} run(s) at a time",
        f"torch {metadata.version('torch')}, {os.cpu_count()} cores, {platform.machine()}",
    ])  # fmt: skip
