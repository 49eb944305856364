"""`gpt-pt plan`: what a run will take."""

from __future__ import annotations

import argparse
import json

from gportuguese.cli.arguments import Commands, add_command
from gportuguese.cli.chosen import chosen_config
from gportuguese.cli.following import command_line, show_following
from gportuguese.cli.output import show
from gportuguese.config import as_tree
from gportuguese.pipeline import Pipeline
from gportuguese.progress import busy


def add_to(commands: Commands[argparse.ArgumentParser]) -> None:
    """Adds the command."""
    text = "estimate what a run needs: tokens, FLOPs, memory, hours and money"
    examples = (
        "gpt-pt plan --config v100",
        "gpt-pt plan --config h100 --processes 8",
    )
    plan = add_command(commands, "plan", text, run, examples)
    plan.add_argument(
        "--tokens",
        type=int,
        metavar="N",
        help="training tokens of the corpus (default: counted if it is built, otherwise an estimate "
        "where there is one)",
    )
    plan.add_argument(
        "--processes",
        type=int,
        default=1,
        metavar="N",
        help="devices that train together (default: %(default)s)",
    )
    plan.add_argument("--no-measure", action="store_true", help="do not time this machine's CPU")
    plan.add_argument("--json", action="store_true", help="print all numbers as JSON")


def run(args: argparse.Namespace) -> None:
    """Prints the plan."""
    config = chosen_config(args)
    built = None
    # finding the tokens may hash the whole dump, so skip it if the token counts are set
    if args.tokens is None and None in (config.train.epoch_tokens, config.train.valid_tokens):
        built = Pipeline(config).find("tokens")
    with busy("loading PyTorch"):
        from gportuguese import plan

    made = plan.make_plan(
        config,
        built,
        assumed_tokens=args.tokens,
        processes=args.processes,
        measure=not args.no_measure,
    )
    if args.json:
        show(json.dumps(as_tree(made), indent=1))
        return
    from gportuguese.plan.text import plan_text

    show(plan_text(made))
    show_following([command_line("train", args)])
