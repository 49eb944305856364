"""`gpt-pt config`: the settings of a run, or the configs that come with the package."""

from __future__ import annotations

import argparse

import yaml

from gportuguese.cli.arguments import Commands, add_command
from gportuguese.cli.chosen import chosen_config
from gportuguese.cli.following import command_line, show_following
from gportuguese.cli.output import show
from gportuguese.config import as_tree, shipped_configs


def add_to(commands: Commands[argparse.ArgumentParser]) -> None:
    """Adds the command."""
    text = "print all settings of a run, as a config file"
    examples = (
        "gpt-pt config --list",
        "gpt-pt config --config v100 > my.yaml    a config of your own to start from",
    )
    command = add_command(commands, "config", text, run, examples)
    command.add_argument(
        "--list", action="store_true", help="list the configs that come with the package instead"
    )


def run(args: argparse.Namespace) -> None:
    """Prints YAML, or one line per shipped config."""
    if args.list:
        shipped = shipped_configs()
        width = max(map(len, shipped))
        show("\n".join(f"{name:{width}}  {about}" for name, about in shipped.items()))
        return
    tree = as_tree(chosen_config(args))
    show(yaml.safe_dump(tree, allow_unicode=True, sort_keys=False, width=100), end="")
    show_following([command_line("train", args)])
