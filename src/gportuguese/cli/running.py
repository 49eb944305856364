"""Parses the command line, runs the command, and turns errors into messages and exit codes."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Sequence

from gportuguese.cli.arguments import make_parser
from gportuguese.cli.output import note, prepare, show
from gportuguese.config import UserError
from gportuguese.progress import console, stop_bars
from gportuguese.world import leave_world

log = logging.getLogger("gportuguese")


def run(words: Sequence[str]) -> int:
    """Runs one command and returns its exit code, as `main` describes them."""
    debug = "--debug" in words
    try:
        prepare()
        _run(words)
    except UserError as error:
        if debug:
            raise
        note(f"gpt-pt: {error}")
        return 2
    except RuntimeError as error:
        if type(error).__name__ != "OutOfMemoryError" or debug:  # torch's, without loading it
            raise
        reason = str(error).partition(". ")[0]
        note(
            f"gpt-pt: {reason}: lower runtime.micro_batch_size or runtime.loss_rows, take a "
            "smaller model, or run on the CPU"
        )
        return 2
    except BrokenPipeError:
        return 1
    except OSError as error:
        if debug or not error.filename:
            raise
        note(f"gpt-pt: {error.filename}: {error.strerror}")
        return 2
    finally:
        note(end="")  # log lines that could not be written would fail again at the exit
    return 0


def _run(words: Sequence[str]) -> None:
    try:
        args = make_parser().parse_args(words)
    finally:
        show(end="")  # the help or version may fill the disk too
    _set_up_logging()
    try:
        args.run(args)
    finally:
        stop_bars()  # before any message
    leave_world()


def _set_up_logging() -> None:
    log.setLevel(logging.WARNING if os.environ.get("RANK", "0") != "0" else logging.INFO)
    handler: logging.Handler = logging.StreamHandler()
    if sys.stderr.isatty():
        from rich.highlighter import NullHighlighter
        from rich.logging import RichHandler

        handler = RichHandler(
            console=console(),  # shared with the progress bars, so that they stay below the log
            show_path=False,
            show_level=False,
            highlighter=NullHighlighter(),
            log_time_format="%H:%M:%S",
        )
        handler.setFormatter(logging.Formatter("%(message)s"))
    else:
        handler.setFormatter(logging.Formatter("%(asctime)s %(message)s", "%H:%M:%S"))
    log.handlers = [handler]
    # libraries stay quiet: we report progress ourselves
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("HF_DATASETS_DISABLE_PROGRESS_BARS", "1")
