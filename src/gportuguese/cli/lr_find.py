"""`gpt-pt lr-find`: fastai's learning-rate finder."""

from __future__ import annotations

import argparse

from gportuguese.cli.arguments import Commands, add_command
from gportuguese.cli.chosen import chosen_config
from gportuguese.cli.following import command_line, show_following
from gportuguese.cli.output import show
from gportuguese.pipeline import Pipeline
from gportuguese.progress import busy
from gportuguese.world import WorldError, init_world


def add_to(commands: Commands[argparse.ArgumentParser]) -> None:
    """Adds the command."""
    add_command(
        commands,
        "lr-find",
        "run fastai's learning-rate finder for the first phase of training",
        run,
    )


def run(args: argparse.Namespace) -> None:
    """Prints the suggested rate and the path of the curve."""
    config = chosen_config(args)
    world, pipeline = init_world(config.runtime), Pipeline(config)
    if world.num_ranks > 1:
        raise WorldError("lr-find runs in one process; start it without torchrun")
    inputs = {"align": pipeline.build("align", world), "tokens": pipeline.open("tokens")}
    with busy("loading fastai"):
        from gportuguese import lr_find

    picture = inputs["align"].folder.parent / f"lr-find-{inputs['align'].digest}.png"
    with busy("lr-find"):
        rate = lr_find.find_rate(config, inputs, picture, world)
    show(f"suggested lr_max: {rate:.2e}\n{picture}")
    show_following([f"{command_line('train', args)} --set train.phases.0.lr_max={rate:.2e}"])
