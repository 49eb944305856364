"""`gpt-pt serve`: the demo page and the completions API."""

from __future__ import annotations

import argparse
import os

from gportuguese.cli.arguments import MODEL, Commands, add_command, add_device, count
from gportuguese.cli.chosen import model_folder
from gportuguese.config import RuntimeConfig
from gportuguese.progress import busy
from gportuguese.world import init_world


def add_to(commands: Commands[argparse.ArgumentParser]) -> None:
    """Adds the command."""
    text = "serve a web page to try the model, and an OpenAI-compatible completions API"
    examples = (
        "gpt-pt serve artifacts",
        "GPT_PT_TOKEN=secret gpt-pt serve artifacts --host 0.0.0.0 --port 8080",
    )
    serve = add_command(commands, "serve", text, run, examples)
    serve.add_argument(
        "model",
        nargs="?",
        metavar="MODEL",
        help=f"{MODEL} (default: the run of --config and --set)",
    )
    serve.add_argument(
        "--host",
        default="127.0.0.1",
        metavar="ADDRESS",
        help="address to listen on; one that other machines can reach needs a token (default: "
        "%(default)s)",
    )
    serve.add_argument(
        "--port",
        type=_port,
        default=8000,
        metavar="N",
        help="port to listen on; 0: any free one (default: %(default)s)",
    )
    serve.add_argument(
        "--token",
        help="token that clients must send; other users of this machine can read it here, so better "
        "set GPT_PT_TOKEN (default: no token is needed)",
    )
    serve.add_argument(
        "--max-concurrent",
        type=count,
        default=8,
        metavar="N",
        help="continuations written at the same time, of all requests (default: %(default)s)",
    )
    serve.add_argument(
        "--max-queue",
        type=_at_least_0,
        default=32,
        metavar="N",
        help="continuations that may wait for their turn; requests for more get HTTP 429 (default: "
        "%(default)s)",
    )
    serve.add_argument(
        "--time-limit",
        type=_seconds,
        default=60.0,
        metavar="SECONDS",
        help="longest time for a continuation, waiting included (default: %(default)g)",
    )
    add_device(serve)


def _port(text: str) -> int:
    if not (text.isdecimal() and int(text) < 2**16):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 0 to 65535")
    return int(text)


def _at_least_0(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of at least 0")
    return int(text)


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number above 0")
    return seconds


def run(args: argparse.Namespace) -> None:
    """Serves until Ctrl+C."""
    with busy("loading PyTorch"):
        from gportuguese import serve

    token = args.token or os.environ.get("GPT_PT_TOKEN")
    serve.check_access(args.host, token)  # before a model is fetched
    serve.run(
        model_folder(args),
        host=args.host,
        port=args.port,
        device=init_world(RuntimeConfig(device=args.device)).device,
        token=token,
        limits=serve.Limits(
            max_concurrent=args.max_concurrent,
            max_queue=args.max_queue,
            time_limit=args.time_limit,
        ),
    )
