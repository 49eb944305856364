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

from gportuguese.cli.arguments import make_parser
from gportuguese.config import Config, UserError, as_tree, load_config, shipped_configs
from gportuguese.pipeline import Pipeline
from gportuguese.world import init_world, leave_world


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Runs one command and exits: 0 done, 2 a problem the user can mend, 130 interrupted."""
    args = make_parser().parse_args(arguments)
    _set_up_logging()
    try:
        _RUN.get(args.command, _run_stage)(args)
        sys.stdout.flush()
        leave_world()
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
    if args.list:
        shipped = shipped_configs()
        width = max(map(len, shipped))
        print("\n".join(f"{name:{width}}  {about}" for name, about in shipped.items()))
        return
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


def _run_survey(args: argparse.Namespace) -> None:
    from gportuguese.corpus.survey import survey
    from gportuguese.dump import DumpError

    if not args.dump.is_file():
        raise DumpError(f"no dump at {args.dump}; name a pages-articles .xml or .xml.bz2 file")
    print(survey(args.dump, args.pages, args.names))


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
    if models := [prompt for prompt in args.prompt if _is_model(prompt)]:
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


def _is_model(text: str) -> bool:
    """Whether a prompt is the folder of a model, of which a pattern may match several."""
    # a longer one is no file's name, and asking for it raises
    return "/" in text and len(text.encode()) < 256 and Path(text, "config.json").is_file()


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
    elif int(os.environ.get("WORLD_SIZE", "1")) > 1:
        return f"torchrun ... -m gportuguese {shlex.join(words)}"
    return shlex.join(["gpt-pt", *words])


_RUN = {
    "status": _run_status,
    "config": _run_config,
    "plan": _run_plan,
    "survey": _run_survey,
    "lr-find": _run_lr_find,
    "push": _run_push,
    "generate": _run_generate,
    "serve": _run_serve,
}
"""What a command that is no stage does."""
