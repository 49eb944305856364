"""The commands of the stages: each builds its stage and any missing ones before it."""

from __future__ import annotations

import argparse
import logging
import sys
from pathlib import Path

from gportuguese.artifacts import Artifact
from gportuguese.cli.arguments import Commands, add_command, reject_config_beside
from gportuguese.cli.chosen import chosen_config
from gportuguese.cli.following import command_line, following, show_following
from gportuguese.cli.output import note, show
from gportuguese.config import Config
from gportuguese.pipeline import Pipeline
from gportuguese.progress import busy
from gportuguese.stages import STAGES
from gportuguese.world import World, init_world

log = logging.getLogger("gportuguese")

RUN_FOLDER = "artifacts folder of a run, or one of its stages, instead of --config"
_SAMPLE_TOKENS = 25  # a line or two of a terminal
_EXAMPLES = {
    "train": (
        "gpt-pt train                    the demo: offline, minutes on two CPU cores",
        "gpt-pt train --config v100      the published recipe, on one GPU",
        "gpt-pt train --config my.yaml --set train.seed=1",
    ),
    "export": (
        "gpt-pt export artifacts         the only run in that folder",
        "gpt-pt export artifacts --set export.formats='[onnx, gguf-f16]'",
    ),
}


def add_to(commands: Commands[argparse.ArgumentParser]) -> None:
    """Adds a command for each stage."""
    for stage in STAGES.values():
        command = add_command(commands, stage.name, stage.about, run, _EXAMPLES.get(stage.name, ()))
        if stage.name == "export":
            command.add_argument("run_folder", nargs="?", metavar="RUN", help=RUN_FOLDER)


def run(args: argparse.Namespace) -> None:
    """Builds a stage and prints its folder."""
    has_run = args.command == "export" and args.run_folder is not None
    config = _config_of_run(args) if has_run else chosen_config(args)
    world = init_world(config.runtime)
    pipeline = Pipeline(config)
    artifact = pipeline.build(args.command, world)
    if not world.is_main:
        return
    prompts: list[str] = []
    if args.command in ("train", "evaluate", "export"):
        from gportuguese.corpus import prompts_of

        built = pipeline.find("corpus")
        prompts = prompts_of(config.evaluate, built) if built else []
    if args.command in ("train", "evaluate"):
        _show_epochs(artifact)
    if args.command == "evaluate":
        _show_measures(artifact)
    if args.command == "train":
        _show_samples(prompts[:2], artifact.folder / "model", world)
    show(str(artifact.folder))
    show_following(following(args.command, args, artifact.folder, prompts))


def _config_of_run(args: argparse.Namespace) -> Config:
    """The config of the run whose folder was given. Logs the folder."""
    from gportuguese import locate

    reject_config_beside(args.run_folder, args.config)
    folder = locate.find_stage(args.run_folder, "train")
    log.info("run: %s", folder)
    config = locate.config_of_run(folder, tuple(args.set))
    if Pipeline(config).folder("train") != folder:
        again = argparse.Namespace(config=folder, set=args.set)
        raise locate.LocateError(
            f"{folder} would be trained again: a setting, an input or the program has changed since "
            f"it was built; to train again, run: {command_line('export', again)}"
        )
    return config


def _show_epochs(artifact: Artifact) -> None:
    """Prints the epoch table: drawn on a terminal, Markdown elsewhere."""
    from gportuguese.epochs import epochs_markdown, epochs_table

    markdown = epochs_markdown(artifact)
    if sys.stdout.isatty():
        from rich.console import Console

        Console().print(epochs_table(markdown))
    else:
        show(f"{markdown}\n")


def _show_measures(artifact: Artifact) -> None:
    """Prints the measures of the held-out sets: drawn on a terminal, Markdown elsewhere."""
    paths = [artifact.folder / name for name in ("measures.md", "sources.md")]
    paths = [path for path in paths if path.exists()]  # no set may fill a block
    for path in paths:
        markdown = path.read_text(encoding="utf-8").rstrip()
        if sys.stdout.isatty():
            from rich.console import Console

            from gportuguese.epochs import measures_table

            Console().print(measures_table(markdown))
        else:
            show(f"{markdown}\n")
    if paths:
        from gportuguese.intervals import caution

        measured = [*artifact.facts["measures"].values()]
        measured += [each["after"] for each in artifact.facts.get("sources", ())]
        show("[...]: 95 % intervals, bootstrap over documents")
        if said := caution(each["documents"] for each in measured):
            show(said)


def _show_samples(prompts: list[str], model: Path, world: World) -> None:
    """Prints short samples of the trained model on standard error."""
    if not prompts:
        return
    with busy("writing samples"):
        from gportuguese import causal_lm
        from gportuguese.generation import Sampling, Writer

        writer = Writer.load(model, world.device)
        sampling = Sampling(
            max_new_tokens=min(_SAMPLE_TOKENS, causal_lm.num_positions(writer.model) - 1)
        )
        texts = ["".join(writer.stream(prompt, sampling, window=True)) for prompt in prompts]
    for prompt, text in zip(prompts, texts, strict=True):
        note(f"sample: {prompt} | {' '.join(text.split())}")
