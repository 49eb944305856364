"""Standard output holds the result of a command, standard error everything else."""

from __future__ import annotations

import io
import os
import sys
from typing import TextIO

from gportuguese.config import UserError


class OutputError(UserError):
    """Standard output is closed, or on a full disk."""


def prepare() -> None:
    """Checks the streams before a command starts; raises `OutputError` if there is nowhere to write to."""
    if sys.stderr is None:
        sys.stderr = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115, PTH123 - until the exit
    if sys.stdout is None:
        raise OutputError("standard output is closed; redirect it to a file or to /dev/null")
    if isinstance(sys.stdout, io.TextIOWrapper):
        # a terminal that cannot show a character gets its escape sequence, as on standard error
        sys.stdout.reconfigure(errors="backslashreplace")


def show(text: str = "", end: str = "\n") -> None:
    """Prints on standard output at once; raises `OutputError`, or `BrokenPipeError` if its reader is gone."""
    try:
        print(text, end=end, flush=True)
    except BrokenPipeError:
        discard(sys.stdout)
        raise
    except OSError as error:
        discard(sys.stdout)
        raise OutputError(f"cannot write to standard output: {error.strerror}") from error


def note(text: str = "", end: str = "\n") -> None:
    """Prints on standard error; a failure to do so must not end the command."""
    try:
        print(text, end=end, file=sys.stderr, flush=True)
    except OSError:
        discard(sys.stderr)


def discard(stream: TextIO) -> None:
    """Drops what is left to write, which Python would otherwise try again at its exit, with a traceback."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
