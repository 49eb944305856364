"""The command line of `gpt-pt`: its parser, and the options that commands share."""

from __future__ import annotations

import argparse
import difflib
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn

from gportuguese import __version__
from gportuguese.config import UserError

MODEL = "artifacts folder of a run, stage folder, model folder, or Hub id"
Commands = argparse._SubParsersAction  # argparse has no public name for it
_EXAMPLES = "examples:"


class _Overview(argparse.HelpFormatter):
    """Puts the names of all commands and their meanings side by side."""

    def format_help(self) -> str:
        """The text."""
        self._action_max_length += 2  # argparse does not count that commands are indented
        return super().format_help()


class _Details(argparse.HelpFormatter):
    """Keeps the lines of the examples."""

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        return text if text.startswith(_EXAMPLES) else super()._fill_text(text, width, indent)


class Command(argparse.ArgumentParser):
    """The parser of one command. Options may stand between positional arguments."""

    _is_intermixed = False

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Parses options first: by default, argparse ends a list of prompts at the first option."""
        if self._is_intermixed:  # the call below calls this method again
            return super().parse_known_args(args, namespace)
        self._is_intermixed = True
        try:
            known, unknown = self.parse_known_intermixed_args(args, namespace)
        finally:
            self._is_intermixed = False
        if unknown:  # otherwise the parser of all commands would report them, with its own usage
            self.error(self._why_unknown(unknown[0]))
        return known, unknown

    def _why_unknown(self, word: str) -> str:
        """The error message for an argument that the command does not take."""
        options = [name for action in self._actions for name in action.option_strings]
        name = word.partition("=")[0]
        if not word.startswith("-"):
            takes_only_config = "--config" in options and not self._get_positional_actions()
            hint = f"; to choose a config, write --config {word}" if takes_only_config else ""
            return f"unexpected argument {word!r}{hint}"
        if close := difflib.get_close_matches(name, options, n=1):
            return f"no option {name}; did you mean {close[0]}?"
        hint = "; settings are changed by --set SECTION.KEY=VALUE" if "--set" in options else ""
        return f"no option {name}{hint}"


class _Parser(argparse.ArgumentParser):
    """The parser of all commands."""

    def error(self, message: str) -> NoReturn:
        """Exits with 2; suggests a command for a mistyped one."""
        if match := re.search(r"COMMAND: invalid choice: '(.*?)'", message):
            names = _names_of_commands(self)
            close = difflib.get_close_matches(match[1], names, n=1)
            hint = f"did you mean {close[0]!r}?" if close else f"known: {', '.join(names)}"
            message = f"no command {match[1]!r}; {hint}"
        super().error(message)

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Rejects options before the command, whose value would be taken for the command."""
        first = next(iter(args or ()), "")
        if first.startswith("-") and first not in ("-h", "--help", "--version"):
            self.error(f"options stand after the command: gpt-pt COMMAND {first} ...")
        return super().parse_known_args(args, namespace)


def _names_of_commands(parser: argparse.ArgumentParser) -> list[str]:
    return [
        name
        for action in parser._actions
        if isinstance(action, argparse._SubParsersAction)
        for name in action.choices
    ]


def make_parser() -> argparse.ArgumentParser:
    """The parser of all commands; it stores the chosen command's function as `run`."""
    from gportuguese.cli import config, generate, lr_find, plan, push, serve, stage, status, survey

    parser = _Parser(
        prog="gpt-pt",
        description="Takes a GPT-2 (or any causal LM with byte-level BPE) into Portuguese, or any "
        "language with a Wikipedia.",
        epilog="`gpt-pt COMMAND --help` explains a command. Start with: gpt-pt train",
        formatter_class=_Overview,
    )
    parser.add_argument("--version", action="version", version=f"gportuguese {__version__}")
    commands: Commands[argparse.ArgumentParser] = parser.add_subparsers(
        metavar="COMMAND", required=True, parser_class=Command
    )
    for module in (stage, status, config, plan, survey, lr_find, push, generate, serve):
        module.add_to(commands)
    return parser


def add_command(
    commands: Commands[argparse.ArgumentParser],
    name: str,
    text: str,
    run: Callable[[argparse.Namespace], None],
    examples: tuple[str, ...] = (),
    takes_config: bool = True,
) -> argparse.ArgumentParser:
    """Adds a command with the options that commands share; `run` gets its parsed arguments."""
    command = commands.add_parser(
        name,
        help=text,
        description=text[0].upper() + text[1:] + ".",
        epilog="\n  ".join([_EXAMPLES, *examples]) if examples else None,
        formatter_class=_Details,
    )
    command.set_defaults(command=name, run=run)
    shared = command.add_argument_group("options of most commands")
    if takes_config:
        shared.add_argument(
            "--config",
            type=Path,
            help="YAML file, name of a shipped config (gpt-pt config --list; default: demo), or a finished "
            "stage of a run, for the config of that run",
        )
        shared.add_argument(
            "--set",
            action="append",
            default=[],
            metavar="SECTION.KEY=VALUE",
            help="change a setting, such as train.seed=1 or train.phases.0.lr_max=1e-3; may be "
            "repeated",
        )
    shared.add_argument("--debug", action="store_true", help="show the traceback of an error")
    return command


def add_device(command: argparse.ArgumentParser) -> None:
    """Adds `--device`, for commands that only use a model."""
    command.add_argument(
        "--device",
        default="auto",
        type=_device,
        help="auto, cpu, cuda or cuda:N; auto is a GPU if there is one (default: %(default)s)",
    )


def _device(text: str) -> str:
    from gportuguese.config.schema import DEVICE

    if problem := DEVICE.problem(text):
        raise argparse.ArgumentTypeError(f"{text!r} {problem}")
    return text


def count(text: str) -> int:
    """A number of at least 1, as an argument."""
    if not (text.isdecimal() and int(text) > 0):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of at least 1")
    return int(text)


def reject_config_beside(given: str, config: Path | None, settings: Sequence[str] = ()) -> None:
    """Raises `UserError` if --config or --set stands beside a folder, which already names the run."""
    if extra := [name for name, value in (("--config", config), ("--set", settings)) if value]:
        raise UserError(f"{given} already names the run; leave out {' and '.join(extra)}")
