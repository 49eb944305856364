"""`gpt-pt generate`: continues prompts with a trained model."""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from gportuguese.cli.arguments import MODEL, Commands, add_command, add_device
from gportuguese.cli.chosen import model_folder
from gportuguese.cli.output import note, show
from gportuguese.config import RuntimeConfig, UserError
from gportuguese.progress import busy
from gportuguese.sampling import GenerateError, Sampling
from gportuguese.world import init_world

if TYPE_CHECKING:
    from gportuguese.generation import Continuation, Writer


def add_to(commands: Commands[argparse.ArgumentParser]) -> None:
    """Adds the command."""
    examples = (
        "gpt-pt generate artifacts 'O rio Amazonas'",
        "gpt-pt generate artifacts 'O rio' 'A lua' --temperature 0.8 --stop .",
        "cat prompts.txt | gpt-pt generate artifacts --json > answers.jsonl",
        "gpt-pt generate --config v100 'O rio Amazonas'",
    )
    generate = add_command(
        commands, "generate", "continue prompts with a trained model", run, examples
    )
    generate.add_argument(
        "model", nargs="?", metavar="MODEL", help=f"{MODEL}; left out with --config or --set"
    )
    generate.add_argument(
        "prompt",
        nargs="*",
        metavar="PROMPT",
        help="text to continue (default: each line of standard input is a prompt)",
    )
    _add_output(generate)
    _add_sampling(generate)
    add_device(generate)


def _add_output(generate: argparse.ArgumentParser) -> None:
    generate.add_argument(
        "--json",
        action="store_true",
        help='print one JSON object per line and prompt: {"prompt": ..., "text": ..., "tokens": '
        '..., "finish": "length" or "stop"}; "text" is the continuation alone',
    )
    generate.add_argument(
        "--next-word", action="store_true", help="print only the most likely next word"
    )
    generate.add_argument(
        "--window",
        action="store_true",
        help="cut the beginning of a prompt that is too long instead of rejecting it",
    )


def _add_sampling(generate: argparse.ArgumentParser) -> None:
    defaults = Sampling()
    generate.add_argument(
        "--max-new-tokens",
        type=int,
        default=defaults.max_new_tokens,
        metavar="N",
        help="longest continuation, in tokens (default: %(default)s)",
    )
    generate.add_argument(
        "--top-k",
        type=int,
        default=defaults.top_k,
        metavar="N",
        help="draw each token from the N most likely ones; 0: from all (default: %(default)s)",
    )
    generate.add_argument(
        "--top-p",
        type=float,
        default=defaults.top_p,
        metavar="P",
        help="draw only from the most likely tokens that together have probability P "
        "(default: %(default)s, all)",
    )
    generate.add_argument(
        "--temperature",
        type=float,
        default=defaults.temperature,
        metavar="T",
        help="below 1: more predictable, above 1: more varied, 0: always the most likely token "
        "(default: %(default)s)",
    )
    generate.add_argument(
        "--repetition-penalty",
        type=float,
        default=defaults.repetition_penalty,
        metavar="X",
        help="above 1: tokens that are already in the text become less likely "
        "(default: %(default)s, off)",
    )
    generate.add_argument(
        "--seed",
        type=int,
        default=defaults.seed,
        metavar="N",
        help="the same seed gives the same text; another one, another text (default: %(default)s)",
    )
    generate.add_argument(
        "--stop",
        action="append",
        default=[],
        metavar="TEXT",
        help="end a continuation before TEXT; may be repeated (default: only at the end of the "
        "document)",
    )


def run(args: argparse.Namespace) -> None:
    """Prints the continuations. Everything that can be checked is checked before the model is loaded."""
    if args.model is not None and (args.config is not None or args.set):
        # the config selects the model, so all positional arguments are prompts
        args.model, args.prompt = None, [args.model, *args.prompt]
    sampling = Sampling(
        max_new_tokens=args.max_new_tokens,
        top_k=args.top_k,
        top_p=args.top_p,
        temperature=args.temperature,
        repetition_penalty=args.repetition_penalty,
        seed=args.seed,
        stop=tuple(args.stop),
    )
    models = [prompt for prompt in args.prompt if _is_model(prompt)]
    if models and args.model is not None:
        raise GenerateError(
            f"expected one model, got {', '.join([args.model, *models])}; pass only one"
        )
    folder = model_folder(args)
    prompts = args.prompt or _prompts_of_stdin()
    _check(prompts)
    with busy("loading PyTorch"):
        from gportuguese.generation import Writer

        writer = Writer.load(folder, init_world(RuntimeConfig(device=args.device)).device)
    if args.next_word:
        for prompt in prompts:
            word = writer.next_word(prompt, args.window)
            line = {"prompt": prompt, "text": word}
            show(json.dumps(line, ensure_ascii=False) if args.json else word)
        return
    start = time.monotonic()
    number = _show_all(writer, prompts, sampling, args)
    note(f"{number} tokens, {number / (time.monotonic() - start):.1f} per second")


def _show_all(
    writer: Writer, prompts: list[str], sampling: Sampling, args: argparse.Namespace
) -> int:
    """Prints every prompt with its continuation; returns the number of tokens drawn."""
    if len(prompts) == 1 and not args.json:
        row = writer.begin(prompts[0], sampling, args.window)
        _show_prompt(prompts[0])
        for piece in writer.run(row):
            show(piece, end="")
        show()
        return row.num_tokens
    number = 0
    rows = writer.write_all(prompts, sampling, args.window)
    for index, (prompt, row) in enumerate(zip(prompts, rows, strict=True)):
        number += row.num_tokens
        if args.json:
            show(_json_line(prompt, row))
            continue
        if index:
            show()  # an empty line between the texts
        _show_prompt(prompt)
        show(row.text)
    return number


def _show_prompt(prompt: str) -> None:
    """Prints a prompt without a line break: bold on a terminal, so that it differs from the new text."""
    if not sys.stdout.isatty():
        show(prompt, end="")
        return
    from rich.console import Console
    from rich.text import Text

    Console().print(Text(prompt, "bold"), end="", soft_wrap=True)


def _json_line(prompt: str, row: Continuation) -> str:
    line = {
        "prompt": prompt,
        "text": row.text,
        "tokens": row.num_tokens,
        "finish": row.finish,
    }
    return json.dumps(line, ensure_ascii=False)


def _prompts_of_stdin() -> list[str]:
    """The lines of standard input, without empty ones."""
    if sys.stdin is None:
        return []
    if sys.stdin.isatty():
        note("type one prompt per line, and Ctrl+D at the end:")
    try:
        return [line.rstrip("\r\n") for line in sys.stdin if line.strip()]
    except UnicodeDecodeError as error:
        raise UserError(f"standard input is not UTF-8 text: {error}") from error


def _check(prompts: list[str]) -> None:
    if not prompts:
        raise GenerateError("no prompt; pass one, or write one per line to standard input")
    for number, prompt in enumerate(prompts, start=1):
        if not prompt.isprintable() and any("\ud800" <= mark <= "\udfff" for mark in prompt):
            raise GenerateError(f"prompt {number} is not UTF-8 text")


def _is_model(text: str) -> bool:
    """Whether a prompt is in fact a model folder, as when a shell pattern matches several."""
    # the file system raises for names longer than 255 bytes
    return "/" in text and len(os.fsencode(text)) < 256 and Path(text, "config.json").is_file()
