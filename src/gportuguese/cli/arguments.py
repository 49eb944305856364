"""The command-line arguments of `gpt-pt`."""

from __future__ import annotations

import argparse
import difflib
import re
from pathlib import Path
from typing import Any, NoReturn

from gportuguese import __version__
from gportuguese.stages import STAGES

_MODEL = "artifacts folder, stage folder, model folder or Hub id (default: the run of --config)"
_RUN_FOLDER = "artifacts folder of a run, or one of its stages, instead of --config"


class _Command(argparse.ArgumentParser):
    """The parser of one command. Options may stand between positional arguments."""

    _is_intermixed = False

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Parses options first: by default, argparse ends a list of prompts at the first option."""
        if self._is_intermixed:  # the call below calls this method again
            return super().parse_known_args(args, namespace)
        self._is_intermixed = True
        try:
            return self.parse_known_intermixed_args(args, namespace)
        finally:
            self._is_intermixed = False


class _Parser(argparse.ArgumentParser):
    """A parser that suggests a command for a mistyped one."""

    def error(self, message: str) -> NoReturn:
        """Exits with 2."""
        if match := re.search(r"COMMAND: invalid choice: '(.*?)'", message):
            close = difflib.get_close_matches(match[1], _commands(self), n=1)
            hint = (
                f"did you mean {close[0]!r}?" if close else f"known: {', '.join(_commands(self))}"
            )
            message = f"no command {match[1]!r}; {hint}"
        super().error(message)


def _commands(parser: argparse.ArgumentParser) -> list[str]:
    """The names of the parser's commands."""
    return [
        name
        for action in parser._actions
        if isinstance(action, argparse._SubParsersAction)
        for name in action.choices
    ]


def make_parser() -> argparse.ArgumentParser:
    """The parser of all commands; it stores the chosen one as `command`."""
    parser = _Parser(
        prog="gpt-pt",
        description="Takes a GPT-2 (or any causal LM with byte-level BPE) into Portuguese, or any "
        "language with a Wikipedia.",
    )
    parser.add_argument("--version", action="version", version=f"gportuguese {__version__}")
    commands: argparse._SubParsersAction[argparse.ArgumentParser] = parser.add_subparsers(
        metavar="COMMAND", required=True, parser_class=_Command
    )
    for stage in STAGES.values():
        command = _add_command(commands, stage.name, stage.about)
        if stage.name == "export":
            command.add_argument("run", nargs="?", help=_RUN_FOLDER)
    _add_command(commands, "status", "show which stages are done and which is next")
    config = _add_command(commands, "config", "print the resolved config")
    config.add_argument("--list", action="store_true", help="list the shipped configs")
    _add_plan(commands)
    _add_survey(commands)
    _add_command(commands, "lr-find", "run fastai's learning-rate finder for the first phase")
    push = _add_command(commands, "push", "send the exported folder to the Hub")
    push.add_argument("run", nargs="?", help=_RUN_FOLDER)
    push.add_argument("--repo", required=True, help="user/name or organization/name")
    push.add_argument("--private", action="store_true", help="make a new repository private")
    push.add_argument("--revision", help="branch, created if missing (default: main)")
    push.add_argument(
        "--dry-run", action="store_true", help="only list the files that would be sent"
    )
    _add_generate(commands)
    _add_serve(commands)
    return parser


def _add_plan(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    text = "estimate what a run needs: tokens, FLOPs, memory, hours and money"
    plan = _add_command(commands, "plan", text)
    plan.add_argument("--tokens", type=int, help="training tokens, if the corpus is not built yet")
    plan.add_argument(
        "--processes", type=int, default=1, help="number of devices that train together"
    )
    plan.add_argument("--no-measure", action="store_true", help="do not time this machine's CPU")
    plan.add_argument("--json", action="store_true", help="print all numbers as JSON")


def _count(text: str) -> int:
    """A number of at least 1, as an argument."""
    if not (text.isdecimal() and int(text) > 0):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of at least 1")
    return int(text)


def _add_survey(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    text = "what the table of a language should name: headings, templates, leftovers of a dump"
    survey = commands.add_parser("survey", help=text, description=text)
    survey.set_defaults(command="survey")
    survey.add_argument("dump", type=Path, help="file of a pages-articles dump")
    survey.add_argument(
        "--pages", type=_count, default=2000, help="articles to read (default: 2000)"
    )
    survey.add_argument("--names", type=_count, default=40, help="rows of each list (default: 40)")
    survey.add_argument("--debug", action="store_true", help="show tracebacks")


def _add_generate(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    generate = _add_command(commands, "generate", "continue a prompt with a trained model")
    generate.add_argument("model", nargs="?", help=f"{_MODEL}; leave it out with --config")
    generate.add_argument(
        "prompt", nargs="*", help="default: one prompt per line of standard input"
    )
    generate.add_argument(
        "--next-word", action="store_true", help="print only the most likely next word"
    )
    generate.add_argument("--max-new-tokens", type=int, default=50)
    generate.add_argument("--top-k", type=int, default=40, help="0: all tokens (default: 40)")
    generate.add_argument("--top-p", type=float, default=1.0)
    generate.add_argument(
        "--temperature", type=float, default=1.0, help="0: always the most likely token"
    )
    generate.add_argument("--repetition-penalty", type=float, default=1.0)
    generate.add_argument("--seed", type=int, default=0)
    generate.add_argument(
        "--stop",
        action="append",
        default=[],
        metavar="TEXT",
        help="stop before TEXT; may be repeated",
    )
    generate.add_argument(
        "--window", action="store_true", help="cut the beginning of a prompt that is too long"
    )
    generate.add_argument("--device", default="auto")


def _add_serve(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    text = "serve the demo page and an OpenAI-compatible completions API"
    serve = _add_command(commands, "serve", text)
    serve.add_argument("model", nargs="?", help=_MODEL)
    serve.add_argument(
        "--host", default="127.0.0.1", help="an address that other machines can reach needs a token"
    )
    serve.add_argument("--port", type=int, default=8000)
    serve.add_argument("--device", default="auto")
    serve.add_argument("--token", help="token that clients must send (better: set GPT_PT_TOKEN)")
    serve.add_argument("--max-concurrent", type=int, default=8, help="texts generated at once")
    serve.add_argument(
        "--max-queue", type=int, default=32, help="texts that may wait; more get HTTP 429"
    )
    serve.add_argument("--time-limit", type=float, default=60.0, help="seconds per text")


def _add_command(
    commands: argparse._SubParsersAction[argparse.ArgumentParser], name: str, text: str
) -> argparse.ArgumentParser:
    command = commands.add_parser(name, help=text, description=text)
    command.set_defaults(command=name)
    command.add_argument(
        "--config",
        type=Path,
        help="a YAML file, or the name of a shipped config (gpt-pt config --list; default: demo)",
    )
    command.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="SECTION.KEY=VALUE",
        help="change one setting, e.g. train.seed=1 or train.phases.0.lr_max=1e-3; may be repeated",
    )
    command.add_argument("--debug", action="store_true", help="show tracebacks")
    return command
