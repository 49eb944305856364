"""`gpt-pt status`: which stages of a config are done, and the next command."""

from __future__ import annotations

import argparse

from gportuguese.cli.arguments import Commands, add_command
from gportuguese.cli.chosen import chosen_config
from gportuguese.cli.following import command_line
from gportuguese.cli.output import show
from gportuguese.pipeline import Pipeline


def add_to(commands: Commands[argparse.ArgumentParser]) -> None:
    """Adds the command."""
    add_command(commands, "status", "show which stages are done and which is next", run)


def run(args: argparse.Namespace) -> None:
    """Prints one line per stage."""
    missing = None
    for stage in Pipeline(chosen_config(args)).status():
        show(f"{stage.name:10} {stage.state:8} {stage.folder or ''}".rstrip())
        if missing is None and stage.state != "done":
            missing = stage.name
    show("next: " + (command_line(missing, args) if missing else "nothing, all stages are done"))
