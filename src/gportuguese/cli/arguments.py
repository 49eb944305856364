"""The words that `gpt-pt` understands."""

from __future__ import annotations

import argparse
from pathlib import Path

from gportuguese import __version__
from gportuguese.pipeline import STAGES

_HELP = {
    "dump": "verify or fetch the Wikipedia dump",
    "corpus": "clean documents and split them",
    "tokenizer": "train the byte-level BPE tokenizer",
    "tokens": "tokenize the documents into memory-mapped files",
    "align": "give the base model embeddings for the new vocabulary",
    "train": "run the recipe to its epoch table, building whatever is missing before it",
    "evaluate": "report, epoch table, curves and samples of the trained model",
    "export": "the folder that users load, with its model card and other formats",
}


def make_parser() -> argparse.ArgumentParser:
    """Of all commands; `command` is the one given."""
    parser = argparse.ArgumentParser(
        prog="gpt-pt",
        description="Takes a GPT-2 (or any causal LM with byte-level BPE) into Portuguese, or any "
        "language with a Wikipedia.",
    )
    parser.add_argument("--version", action="version", version=f"gportuguese {__version__}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    for stage in STAGES:
        _add_command(commands, stage.name, _HELP[stage.name])
    _add_command(commands, "status", "which stages are done and which is next")
    config = _add_command(commands, "config", "print the resolved config")
    config.add_argument("--list", action="store_true", help="the shipped configs, one a line")
    _add_plan(commands)
    _add_survey(commands)
    _add_command(commands, "lr-find", "fastai's learning-rate finder for phase one")
    push = _add_command(commands, "push", "send the exported folder to the Hub")
    push.add_argument("--repo", required=True, help="user/name or organization/name")
    push.add_argument("--private", action="store_true", help="make a new repository private")
    push.add_argument("--revision", help="branch, made if absent (default: main)")
    push.add_argument("--dry-run", action="store_true", help="only say what would be sent")
    _add_generate(commands)
    _add_serve(commands)
    return parser


def _add_plan(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    text = "what a run will take before it starts: tokens, FLOPs, memory, hours and money"
    plan = _add_command(commands, "plan", text)
    plan.add_argument("--tokens", type=int, help="training tokens of a corpus not built yet")
    plan.add_argument("--processes", type=int, default=1, help="devices that share the work")
    plan.add_argument(
        "--price", action="append", default=[], metavar="DEVICE=USD", help="of an hour, as A100=1.5"
    )
    plan.add_argument("--no-measure", action="store_true", help="do not time this machine's CPU")
    plan.add_argument("--json", action="store_true", help="all numbers, for programs")


def _add_survey(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    text = "what the table of a language should name: headings, templates, leftovers of a dump"
    survey = commands.add_parser("survey", help=text, description=text)
    survey.set_defaults(command="survey")
    survey.add_argument("dump", type=Path, help="file of a pages-articles dump")
    survey.add_argument("--pages", type=int, default=2000, help="articles to read (default: 2000)")
    survey.add_argument("--names", type=int, default=40, help="rows of each list (default: 40)")
    survey.add_argument("--debug", action="store_true", help="show tracebacks")


def _add_generate(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    generate = commands.add_parser("generate", help="continue a prompt with a trained model")
    generate.set_defaults(command="generate")
    generate.add_argument("model", help="folder of a model, such as train-.../model")
    generate.add_argument("prompt", nargs="*", help="none: one a line from standard input")
    generate.add_argument("--next-word", action="store_true", help="only the most likely next word")
    generate.add_argument("--max-new-tokens", type=int, default=50)
    generate.add_argument("--top-k", type=int, default=40, help="0: all tokens (default: 40)")
    generate.add_argument("--top-p", type=float, default=1.0)
    generate.add_argument("--temperature", type=float, default=1.0)
    generate.add_argument("--repetition-penalty", type=float, default=1.0)
    generate.add_argument("--seed", type=int, default=0)
    generate.add_argument(
        "--stop",
        action="append",
        default=[],
        metavar="TEXT",
        help="end before TEXT; may be repeated",
    )
    generate.add_argument(
        "--window", action="store_true", help="a prompt too long for the model loses its beginning"
    )
    generate.add_argument("--device", default="auto")
    generate.add_argument("--debug", action="store_true", help="show tracebacks")


def _add_serve(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    text = "the demo page and an OpenAI-compatible server of completions"
    serve = commands.add_parser("serve", help=text, description=text)
    serve.set_defaults(command="serve")
    serve.add_argument("model", help="folder of a model, such as train-.../model")
    serve.add_argument(
        "--host", default="127.0.0.1", help="any other than this machine's own needs a token"
    )
    serve.add_argument("--port", type=int, default=8000)
    serve.add_argument("--device", default="auto")
    serve.add_argument("--token", help="what clients must send (better: set GPT_PT_TOKEN)")
    serve.add_argument("--max-concurrent", type=int, default=8, help="texts written at once")
    serve.add_argument("--max-queue", type=int, default=32, help="texts that wait; then 429")
    serve.add_argument("--time-limit", type=float, default=60.0, help="seconds for one text")
    serve.add_argument("--debug", action="store_true", help="show tracebacks")


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
        help="change one setting, as train.seed=1 or train.phases.0.lr_max=1e-3; may be repeated",
    )
    command.add_argument("--debug", action="store_true", help="show tracebacks")
    return command
