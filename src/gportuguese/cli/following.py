"""Suggests the next commands after a command has finished."""

from __future__ import annotations

import argparse
import shlex
from pathlib import Path

from gportuguese.cli.output import note
from gportuguese.stages import STAGES


def command_line(command: str, args: argparse.Namespace) -> str:
    """The command line of `command` with the same --config and --set."""
    words = ["gpt-pt", command]
    if args.config is not None:
        words += ["--config", str(args.config)]
    return shlex.join([*words, *(word for setting in args.set for word in ("--set", setting))])


def following(
    command: str, args: argparse.Namespace, folder: Path, prompts: list[str]
) -> list[str]:
    """The commands to suggest after a stage was built in `folder`."""
    prompt = prompts[0] if prompts else "..."
    if command == "train":
        model = str(folder / "model")
        lines = [
            command_line("evaluate", args),
            shlex.join(["gpt-pt", "serve", model]),
            shlex.join(["gpt-pt", "generate", model, prompt]),
        ]
        if (folder / "logs").is_dir():
            lines.append(shlex.join(["tensorboard", "--logdir", str(folder / "logs")]))
        return lines
    if command == "export":
        return [
            shlex.join(["gpt-pt", "generate", str(folder), prompt]),
            shlex.join(["gpt-pt", "push", str(folder), "--repo", "USER/NAME", "--dry-run"]),
        ]
    names = list(STAGES)
    return [command_line(names[names.index(command) + 1], args)]


def show_following(lines: list[str]) -> None:
    """Prints the commands on standard error, so that standard output holds only the result."""
    for index, line in enumerate(lines):
        note(f"{'next:' if index == 0 else '     '} {line}")
