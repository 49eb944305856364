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

from gportuguese.artifacts import Artifact
from gportuguese.cli.arguments import make_parser
from gportuguese.cli.following import command_line, following, show_following
from gportuguese.config import Config, UserError, as_tree, load_config, shipped_configs
from gportuguese.pipeline import Pipeline
from gportuguese.progress import busy, console, stop_bars
from gportuguese.world import World, init_world, leave_world

_SAMPLE_TOKENS = 25  # a line or two of a terminal

log = logging.getLogger("gportuguese")


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Runs one command and exits: 0 success, 2 an error the user can fix, 130 interrupted."""
    args = make_parser().parse_args(arguments)
    _set_up_logging()
    try:
        try:
            _RUN.get(args.command, _run_stage)(args)
        finally:
            stop_bars()  # before any message
        sys.stdout.flush()
        leave_world()
    except UserError as error:
        if args.debug:
            raise
        print(f"gpt-pt: {error}", file=sys.stderr)
        sys.exit(2)
    except RuntimeError as error:
        if type(error).__name__ != "OutOfMemoryError" or args.debug:  # torch's, without loading it
            raise
        reason = str(error).partition(". ")[0]
        print(
            f"gpt-pt: {reason}: lower runtime.micro_batch_size or runtime.loss_rows, take a "
            "smaller model, or run on the CPU",
            file=sys.stderr,
        )
        sys.exit(2)
    except KeyboardInterrupt:
        if os.environ.get("RANK", "0") == "0":  # torchrun interrupts every process
            print(f"gpt-pt: interrupted; resume with: {_same_command_line()}", file=sys.stderr)
        sys.exit(130)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    sys.exit(0)


def _set_up_logging() -> None:
    log.setLevel(logging.WARNING if os.environ.get("RANK", "0") != "0" else logging.INFO)
    handler: logging.Handler = logging.StreamHandler()
    if sys.stderr.isatty():
        from rich.highlighter import NullHighlighter
        from rich.logging import RichHandler

        handler = RichHandler(
            console=console(),  # shared with the progress bars, so that they stay below the log
            show_path=False,
            show_level=False,
            highlighter=NullHighlighter(),
            log_time_format="%H:%M:%S",
        )
        handler.setFormatter(logging.Formatter("%(message)s"))
    else:
        handler.setFormatter(logging.Formatter("%(asctime)s %(message)s", "%H:%M:%S"))
    log.handlers = [handler]
    # libraries stay quiet: we report progress ourselves
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("HF_DATASETS_DISABLE_PROGRESS_BARS", "1")


def _config(args: argparse.Namespace) -> Config:
    return load_config(args.config, tuple(args.set))


def _run_stage(args: argparse.Namespace) -> None:
    has_run = args.command == "export" and args.run is not None
    config = _config_of_run(args) if has_run else _config(args)
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
        _print_epochs(artifact)
    if args.command == "train":
        _show_samples(prompts[:2], artifact.folder / "model", world)
    print(artifact.folder, flush=True)
    show_following(following(args.command, args, artifact.folder, prompts))


def _print_epochs(artifact: Artifact) -> None:
    """Prints the epoch table: drawn on a terminal, Markdown elsewhere."""
    from gportuguese.epochs import epochs_markdown, epochs_table

    markdown = epochs_markdown(artifact)
    if sys.stdout.isatty():
        from rich.console import Console

        Console().print(epochs_table(markdown))
    else:
        print(f"{markdown}\n", flush=True)


def _show_samples(prompts: list[str], model: Path, world: World) -> None:
    """Prints short samples of the trained model on standard error."""
    if not prompts:
        return
    with busy("writing samples"):
        from gportuguese.generation import Sampling, Writer

        writer = Writer.load(model, world.device)
        texts = [writer.write(p, Sampling(max_new_tokens=_SAMPLE_TOKENS)) for p in prompts]
    for prompt, text in zip(prompts, texts, strict=True):
        print(f"sample: {prompt} | {' '.join(text.split())}", file=sys.stderr)


def _run_status(args: argparse.Namespace) -> None:
    missing = None
    for stage in Pipeline(_config(args)).status():
        print(f"{stage.name:10} {stage.state:8} {stage.folder or ''}".rstrip())
        if missing is None and stage.state != "done":
            missing = stage.name
    print("next: " + (command_line(missing, args) if missing else "nothing, all stages are done"))


def _run_config(args: argparse.Namespace) -> None:
    if args.list:
        shipped = shipped_configs()
        width = max(map(len, shipped))
        print("\n".join(f"{name:{width}}  {about}" for name, about in shipped.items()))
        return
    tree = as_tree(_config(args))
    print(yaml.safe_dump(tree, allow_unicode=True, sort_keys=False, width=100), end="", flush=True)
    show_following([command_line("train", args)])


def _run_plan(args: argparse.Namespace) -> None:
    config = _config(args)
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
    from gportuguese.plan.text import plan_text

    print(json.dumps(as_tree(made), indent=1) if args.json else plan_text(made), flush=True)
    if not args.json:
        show_following([command_line("train", args)])


def _run_survey(args: argparse.Namespace) -> None:
    from gportuguese.corpus.survey import survey
    from gportuguese.dump import DumpError

    if not args.dump.is_file():
        raise DumpError(f"no dump at {args.dump}; name a pages-articles .xml or .xml.bz2 file")
    print(survey(args.dump, args.pages, args.names))


def _run_lr_find(args: argparse.Namespace) -> None:
    config = _config(args)
    world, pipeline = init_world(config.runtime), Pipeline(config)
    inputs = {"align": pipeline.build("align", world), "tokens": pipeline.open("tokens")}
    with busy("loading fastai"):
        from gportuguese import learner

    picture = inputs["align"].folder.parent / f"lr-find-{inputs['align'].digest}.png"
    with busy("lr-find"):
        rate = learner.find_rate(config, inputs, picture, world)
    print(f"suggested lr_max: {rate:.2e}\n{picture}", flush=True)
    show_following([f"{command_line('train', args)} --set train.phases.0.lr_max={rate:.2e}"])


def _config_of_run(args: argparse.Namespace) -> Config:
    """The config of the run whose folder was given. Logs the folder."""
    from gportuguese import locate

    _check_one_run(args.run, args.config)
    folder = locate.find_stage(args.run, "train")
    log.info("run: %s", folder)
    config = locate.config_of_run(folder, tuple(args.set))
    if Pipeline(config).folder("train") != folder:
        raise locate.LocateError(
            f"{folder} would be trained again: a setting, an input or the program has changed since "
            "it was built; to train again, run: gpt-pt export --config CONFIG"
        )
    return config


def _model(args: argparse.Namespace) -> Path:
    """The model's folder, given by a folder, a Hub id, or the config of a run."""
    if args.model is not None:
        from gportuguese import locate

        _check_one_run(args.model, args.config, *args.set)
        return locate.find_model(args.model)
    folder = Pipeline(_config(args)).built_folder("train") / "model"
    log.info("model: %s", folder)
    return folder


def _check_one_run(given: str, *also: object) -> None:
    if any(also):
        raise UserError(f"{given} already names the run; leave out --config and --set")


def _run_push(args: argparse.Namespace) -> None:
    if args.run is not None:
        from gportuguese import locate

        _check_one_run(args.run, args.config, *args.set)
        folder = locate.find_stage(args.run, "export")
    else:
        config = _config(args)
        folder = Pipeline(config).build("export", init_world(config.runtime)).folder
    from gportuguese import push

    log.info("export: %s", folder)
    where = {"private": args.private, "revision": args.revision}
    print(push.listing(push.plan(folder, args.repo), args.repo, **where), flush=True)
    if args.dry_run:
        return
    receipt = push.push(folder, args.repo, **where)
    print(f"sent {len(receipt.sent)} files: {receipt.url}")
    print(push.write_receipt(folder, receipt), flush=True)
    show_following([f"gpt-pt generate {args.repo} '...'"])


def _prompts_of_stdin() -> list[str]:
    """The lines of standard input, without empty ones."""
    if sys.stdin.isatty():
        print("type one prompt per line, and Ctrl+D at the end:", file=sys.stderr)
    try:
        return [line.rstrip("\r\n") for line in sys.stdin if line.strip()]
    except UnicodeDecodeError as error:
        raise UserError(f"standard input is not UTF-8 text: {error}") from error


def _run_generate(args: argparse.Namespace) -> None:
    with busy("loading PyTorch"):
        from gportuguese import generation
    from gportuguese.config import RuntimeConfig

    if args.model is not None and (args.config is not None or args.set):
        # the config selects the model, so all positional arguments are prompts
        args.model, args.prompt = None, [args.model, *args.prompt]
    folder = _model(args)
    prompts = args.prompt or _prompts_of_stdin()
    if not prompts:
        raise generation.GenerateError(
            "no prompt; pass one, or write one per line to standard input"
        )
    for number, prompt in enumerate(prompts, start=1):
        if not prompt.isprintable() and any("\ud800" <= mark <= "\udfff" for mark in prompt):
            raise generation.GenerateError(f"prompt {number} is not UTF-8 text")
    models = [prompt for prompt in args.prompt if _is_model(prompt)]
    if models and args.model is not None:
        raise generation.GenerateError(
            f"expected one model, got {', '.join([args.model, *models])}; pass only one"
        )
    writer = generation.Writer.load(folder, init_world(RuntimeConfig(device=args.device)).device)
    if args.next_word:
        for prompt in prompts:
            print(writer.next_word(prompt, args.window))
        return
    sampling = generation.Sampling(
        max_new_tokens=args.max_new_tokens,
        top_k=args.top_k,
        top_p=args.top_p,
        temperature=args.temperature,
        repetition_penalty=args.repetition_penalty,
        seed=args.seed,
        stop=tuple(args.stop),
    )
    start, number = time.monotonic(), 0
    if len(prompts) == 1:
        row = writer.begin(prompts[0], sampling, args.window)
        print(prompts[0], end="", flush=True)
        for piece in writer.run(row):
            print(piece, end="", flush=True)
        print()
        number = row.num_tokens
    else:
        rows = writer.write_all(prompts, sampling, args.window)
        for index, (prompt, row) in enumerate(zip(prompts, rows, strict=True)):
            print("\n" * (index > 0) + prompt + row.text, flush=True)
            number += row.num_tokens
    seconds = time.monotonic() - start
    print(f"{number} tokens, {number / seconds:.1f} per second", file=sys.stderr)


def _is_model(text: str) -> bool:
    """Whether a prompt is in fact a model folder, as when a shell pattern matches several."""
    # the file system raises for names longer than 255 bytes
    return "/" in text and len(text.encode()) < 256 and Path(text, "config.json").is_file()


def _run_serve(args: argparse.Namespace) -> None:
    with busy("loading PyTorch"):
        from gportuguese import serve
    from gportuguese.config import RuntimeConfig

    serve.run(
        _model(args),
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


def _same_command_line() -> str:
    words = sys.argv[1:]
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
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
"""The commands that are not stages."""
