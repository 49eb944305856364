"""gpt-pt: one command per stage. The only module that prints or exits."""

from __future__ import annotations

import argparse
import json
import logging
import os
import shlex
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

import yaml

from gportuguese import __version__
from gportuguese.config import Config, UserError, as_tree, load_config
from gportuguese.pipeline import STAGES, Pipeline
from gportuguese.world import init_world

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


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Runs one command and exits: 0 done, 2 a problem the user can mend, 130 interrupted."""
    args = _parser().parse_args(arguments)
    _set_up_logging()
    try:
        args.run(args)
        sys.stdout.flush()
    except UserError as error:
        if args.debug:
            raise
        print(f"gpt-pt: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        if os.environ.get("RANK", "0") == "0":  # of the processes that torchrun started
            print(f"gpt-pt: interrupted; go on with: {_command_line()}", file=sys.stderr)
        sys.exit(130)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    sys.exit(0)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="gpt-pt",
        description="Takes a GPT-2 (or any causal LM with byte-level BPE) into Portuguese, or any "
        "language with a Wikipedia.",
    )
    parser.add_argument("--version", action="version", version=f"gportuguese {__version__}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    for stage in STAGES:
        _add_command(commands, stage.name, _HELP[stage.name], _run_stage)
    _add_command(commands, "status", "which stages are done and which is next", _run_status)
    _add_command(commands, "config", "print the resolved config", _run_config)
    _add_plan(commands)
    _add_command(commands, "lr-find", "fastai's learning-rate finder for phase one", _run_lr_find)
    push = _add_command(commands, "push", "send the exported folder to the Hub", _run_push)
    push.add_argument("--repo", required=True, help="user/name or organization/name")
    push.add_argument("--private", action="store_true", help="make a new repository private")
    push.add_argument("--revision", help="branch, made if absent (default: main)")
    push.add_argument("--dry-run", action="store_true", help="only say what would be sent")
    generate = commands.add_parser("generate", help="continue a prompt with a trained model")
    generate.set_defaults(run=_run_generate)
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
    _add_serve(commands)
    return parser


def _add_plan(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    text = "what a run will take before it starts: tokens, FLOPs, memory, hours and money"
    plan = _add_command(commands, "plan", text, _run_plan)
    plan.add_argument("--tokens", type=int, help="training tokens of a corpus not built yet")
    plan.add_argument("--processes", type=int, default=1, help="devices that share the work")
    plan.add_argument(
        "--price", action="append", default=[], metavar="DEVICE=USD", help="of an hour, as A100=1.5"
    )
    plan.add_argument("--no-measure", action="store_true", help="do not time this machine's CPU")
    plan.add_argument("--json", action="store_true", help="all numbers, for programs")


def _add_serve(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    text = "the demo page and an OpenAI-compatible server of completions"
    serve = commands.add_parser("serve", help=text, description=text)
    serve.set_defaults(run=_run_serve)
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
    commands: argparse._SubParsersAction[argparse.ArgumentParser], name: str, text: str, run: object
) -> argparse.ArgumentParser:
    command = commands.add_parser(name, help=text, description=text)
    command.set_defaults(run=run, command=name)
    command.add_argument("--config", type=Path, help="a YAML file (default: the packaged demo)")
    command.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="SECTION.KEY=VALUE",
        help="change one setting; may be repeated",
    )
    command.add_argument("--debug", action="store_true", help="show tracebacks")
    return command


def _set_up_logging() -> None:
    log = logging.getLogger("gportuguese")
    log.setLevel(logging.WARNING if os.environ.get("RANK", "0") != "0" else logging.INFO)
    handler: logging.Handler = logging.StreamHandler()
    if sys.stderr.isatty():
        from rich.console import Console
        from rich.logging import RichHandler

        console = Console(stderr=True)
        handler = RichHandler(console=console, show_path=False, show_level=False, highlighter=None)
        handler.setFormatter(logging.Formatter("%(message)s"))
    else:
        handler.setFormatter(logging.Formatter("%(asctime)s %(message)s", "%H:%M:%S"))
    log.handlers = [handler]
    # the base model's weights are complete without a network; progress is ours to show
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("HF_DATASETS_DISABLE_PROGRESS_BARS", "1")


def _config(args: argparse.Namespace) -> Config:
    return load_config(args.config, tuple(args.set))


def _run_stage(args: argparse.Namespace) -> None:
    config = _config(args)
    world = init_world(config.runtime)
    artifact = Pipeline(config).build(args.command, world)
    if not world.is_main:
        return
    if args.command in ("train", "evaluate"):
        from gportuguese.report import epochs_markdown

        print(epochs_markdown(artifact))
        print()
    print(artifact.folder)
    if args.command == "train":
        print(f"next: {_command_line(command='evaluate')}", file=sys.stderr)


def _run_status(args: argparse.Namespace) -> None:
    following = None
    for stage in Pipeline(_config(args)).status():
        print(f"{stage.name:10} {stage.state:8} {stage.folder or ''}".rstrip())
        if following is None and stage.state != "done":
            following = stage.name
    print("next: " + (_command_line(command=following) if following else "nothing, all is done"))


def _run_config(args: argparse.Namespace) -> None:
    tree = as_tree(_config(args))
    print(yaml.safe_dump(tree, allow_unicode=True, sort_keys=False, width=100), end="")


def _run_plan(args: argparse.Namespace) -> None:
    config = _config(args)
    built = None
    # a dump may have to be hashed to find its tokens: not where nothing is asked of them
    if args.tokens is None and None in (config.train.epoch_tokens, config.train.valid_tokens):
        built = Pipeline(config).find("tokens")
    from gportuguese import plan

    made = plan.make_plan(
        config,
        built,
        assumed_tokens=args.tokens,
        processes=args.processes,
        prices=tuple(args.price),
        measure=not args.no_measure,
    )
    from gportuguese.plan.text import plan_text

    print(json.dumps(as_tree(made), indent=1) if args.json else plan_text(made))


def _run_lr_find(args: argparse.Namespace) -> None:
    config = _config(args)
    world, pipeline = init_world(config.runtime), Pipeline(config)
    inputs = {name: pipeline.build(name, world) for name in ("align", "tokens")}
    from gportuguese import learner

    picture = inputs["align"].folder.parent / f"lr-find-{inputs['align'].digest}.png"
    rate = learner.find_rate(config, inputs, picture, world)
    print(f"suggested lr_max: {rate:.2e}\n{picture}")


def _run_push(args: argparse.Namespace) -> None:
    config = _config(args)
    if config.export.repo is None:  # the card's examples name the repository
        config = load_config(args.config, (*args.set, f"export.repo={args.repo}"))
    artifact = Pipeline(config).build("export", init_world(config.runtime))
    from gportuguese import push

    where = {"private": args.private, "revision": args.revision}
    print(push.listing(push.plan(artifact.folder), args.repo, **where), flush=True)
    if args.dry_run:
        return
    receipt = push.push(artifact.folder, args.repo, **where)
    print(f"sent {len(receipt.sent)} files: {receipt.url}")
    print(push.write_receipt(artifact.folder, receipt))


def _run_generate(args: argparse.Namespace) -> None:
    from gportuguese import generate
    from gportuguese.config import RuntimeConfig

    prompts = args.prompt or [line.rstrip("\n") for line in sys.stdin]
    if not prompts:
        raise generate.GenerateError("no prompt; give one, or one a line on standard input")
    if models := [each for each in args.prompt if Path(each, "config.json").is_file()]:
        raise generate.GenerateError(
            f"one model wanted, got {', '.join([args.model, *models])}; name one"
        )
    writer = generate.Writer.load(args.model, init_world(RuntimeConfig(device=args.device)).device)
    if args.next_word:
        for prompt in prompts:
            print(writer.next_word(prompt))
        return
    sampling = generate.Sampling(
        max_new_tokens=args.max_new_tokens,
        top_k=args.top_k,
        top_p=args.top_p,
        temperature=args.temperature,
        repetition_penalty=args.repetition_penalty,
        seed=args.seed,
        stop=tuple(args.stop),
    )
    start, numbers = time.monotonic(), list[int]()
    if len(prompts) == 1:
        print(prompts[0], end="", flush=True)
        for piece in writer.stream(prompts[0], sampling, args.window, numbers.append):
            print(piece, end="", flush=True)
        print()
    else:
        texts, number = writer.write_all(prompts, sampling, args.window)
        numbers.append(number)
        print("\n\n".join(map("".join, zip(prompts, texts, strict=True))))
    seconds = time.monotonic() - start
    print(f"{numbers[0]} tokens, {numbers[0] / seconds:.1f} a second", file=sys.stderr)


def _run_serve(args: argparse.Namespace) -> None:
    from gportuguese import serve
    from gportuguese.config import RuntimeConfig

    serve.run(
        args.model,
        host=args.host,
        port=args.port,
        device=init_world(RuntimeConfig(device=args.device)).device,
        token=args.token or os.environ.get("GPT_PT_TOKEN"),
        limits=serve.Limits(
            max_concurrent=args.max_concurrent,
            max_queue=args.max_queue,
            time_limit=args.time_limit,
        ),
    )


def _command_line(command: str | None = None) -> str:
    """This command line, or the same config with another command."""
    words = sys.argv[1:]
    if command is not None:
        words = [command, *words[1:]]
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        return f"torchrun ... -m gportuguese {shlex.join(words)}"
    return shlex.join(["gpt-pt", *words])
