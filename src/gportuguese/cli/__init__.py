"""`gpt-pt`: one module per command. Only this package prints or exits."""

from __future__ import annotations

# Only modules that Python itself has loaded: all other imports are in `main`, which handles Ctrl+C.
import os
import sys

TYPE_CHECKING = False  # typing's own would have to be imported
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any, NoReturn

_INTERRUPTED, _TERMINATED = 128 + 2, 128 + 15  # as a shell reports SIGINT and SIGTERM
_NOTHING_TO_RESUME = ("config", "generate", "plan", "serve", "status", "survey")


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Runs one command and exits.

    Exit codes: 0 success, 1 the reader of the output has closed it, 2 an error that the user can fix,
    130 stopped by SIGINT, 143 stopped by SIGTERM.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    is_own_process = arguments is None
    try:
        import signal

        if is_own_process and _is_main_process() and _can_resume(words):
            signal.signal(signal.SIGTERM, _exit_on_sigterm)
        from gportuguese.cli.running import run

        sys.exit(run(words))
    except KeyboardInterrupt:
        _say_stopped("interrupted", words)
        sys.exit(_INTERRUPTED)
    except SystemExit as end:
        if end.code == _TERMINATED:
            _say_stopped("terminated", words)
        raise
    finally:
        if is_own_process:  # a second signal, or one during the exit, ends it without a traceback
            import signal

            signal.signal(signal.SIGINT, signal.SIG_DFL)
            signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _exit_on_sigterm(number: int, frame: Any) -> NoReturn:
    sys.exit(_TERMINATED)


def _can_resume(words: Sequence[str]) -> bool:
    return bool(words) and words[0] not in _NOTHING_TO_RESUME


def _is_main_process() -> bool:
    return os.environ.get("RANK", "0") == "0"  # torchrun starts several, and signals all of them


def _say_stopped(how: str, words: Sequence[str]) -> None:
    """Prints why the command ended and, where that helps, how to resume it."""
    import contextlib
    import shlex

    if not _is_main_process():
        return
    text = f"gpt-pt: {how}"
    if _can_resume(words):
        start = ["gpt-pt"]
        if int(os.environ.get("WORLD_SIZE", "1")) > 1:
            start = ["torchrun", "...", "-m", "gportuguese"]
        text += f"; resume with: {shlex.join([*start, *words])}"
    with contextlib.suppress(OSError):
        print(text, file=sys.stderr)
