"""Compares `gpt-pt serve` with `transformers serve` on the same folder, under the same load.

    python scripts/bench_serve.py MODEL_DIR --clients 8 --seconds 60

The script starts one server at a time. Every client sends one streamed completion after another,
without a pause; the prompts are the four of the model card, in turn. The script prints a Markdown table:
answers by status, time to first text, tokens per second, and resident memory in the first and the last
third of the load. `transformers serve` needs `pip install 'transformers[serving]'`; if it cannot run,
the table says why.
"""

import argparse
import asyncio
import collections
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import psutil
import torch
import transformers

PROMPTS = (
    "Quem era Jim Henson? Jim Henson era um",
    "Em um achado chocante, o cientista descobriu um",
    "Barack Hussein Obama II, nascido em 4 de agosto de 1961, é",
    "Corrida por vacina contra Covid-19 já tem",
)
START_SECONDS = 120


@dataclass
class Load:
    """The measurements of one server's clients."""

    statuses: collections.Counter[str] = field(default_factory=collections.Counter)
    first_seconds: list[float] = field(default_factory=list)
    """From sending a request to its first piece of text."""
    num_tokens: int = 0
    memory_bytes: list[tuple[float, int]] = field(default_factory=list)
    """Seconds since the start, and resident memory of the server with its children."""
    seconds: float = 0.0


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", type=Path, help="folder of a model, such as train-.../model")
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--only-ours", action="store_true")
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--max-tokens", type=int, default=64)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--port", type=int, default=8077)
    args = parser.parse_args()
    folder = str(args.model.resolve())
    port = ["--port", str(args.port), "--device", args.device]
    ours = [sys.executable, "-m", "gportuguese", "serve", folder, *port]
    theirs = [str(Path(sys.executable).with_name("transformers")), "serve", folder, *port]
    servers = {
        "gpt-pt serve": (ours, None, "/healthz"),
        "transformers serve": (theirs, folder, "/health"),
        "transformers serve --continuous-batching": (
            [*theirs, "--continuous-batching"],
            folder,
            "/health",
        ),
    }
    print(
        "| server | answers | first text, median (ms) | p95 (ms) | tokens/s | RSS first (MB) "
        "| RSS last (MB) |\n| --- | --- | --- | --- | --- | --- | --- |"
    )
    for name, (command, model, health) in list(servers.items())[: 1 if args.only_ours else None]:
        print(row(name, measure(command, model, health, args)), flush=True)
    device = torch.cuda.get_device_name() if args.device.startswith("cuda") else cpu_name()
    print(
        f"\n{args.clients} clients, {args.seconds:g} s, {args.max_tokens} tokens a text, "
        f"temperature 1; {device}, {os.cpu_count()} cores; Python {platform.python_version()}, "
        f"torch {torch.__version__}, transformers {transformers.__version__}"
    )


def measure(command: list[str], model: str | None, health: str, args) -> Load | str:
    """The measurements of a server that it starts, or the reason why the server does not run."""
    if shutil.which(command[0]) is None:
        return f"{command[0]} is not installed"
    url = f"http://127.0.0.1:{args.port}"
    environment = os.environ | {"HF_HUB_OFFLINE": "1"}
    with tempfile.TemporaryFile("w+") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, env=environment)
        try:
            if not answers(url + health, process):
                log.seek(0)
                lines = [line.strip() for line in log if line.strip()]
                return "does not start: " + (lines[-1] if lines else "no output")
            return asyncio.run(clients(url, model, process.pid, args))
        finally:
            process.terminate()
            try:
                process.wait(15)
            except subprocess.TimeoutExpired:
                process.kill()


def answers(url: str, process: subprocess.Popen) -> bool:
    """Whether the server answers within `START_SECONDS`, without ending first."""
    deadline = time.monotonic() + START_SECONDS
    while process.poll() is None and time.monotonic() < deadline:
        try:
            if httpx.get(url).status_code == 200:
                return True
        except httpx.TransportError:
            pass
        time.sleep(0.2)
    return False


async def clients(url: str, model: str | None, pid: int, args) -> Load:
    """Runs all clients at once and records the memory twice a second."""
    load = Load()
    async with httpx.AsyncClient(timeout=120, limits=httpx.Limits(max_connections=None)) as http:
        await complete(http, url, model, 0, args.max_tokens, Load())  # loads and warms up
        start = time.monotonic()

        async def one(number: int) -> None:
            turn = number
            while time.monotonic() < start + args.seconds:
                await complete(http, url, model, turn, args.max_tokens, load)
                turn += 1

        watcher = asyncio.create_task(watch_memory(pid, start, load))
        await asyncio.gather(*map(one, range(args.clients)))
        watcher.cancel()
    load.seconds = time.monotonic() - start
    return load


async def complete(http, url: str, model: str | None, turn: int, max_tokens: int, load: Load):
    """Requests one streamed completion and records it in `load`."""
    body = {
        "prompt": PROMPTS[turn % len(PROMPTS)],
        "max_tokens": max_tokens,
        "temperature": 1.0,
        "seed": turn,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    if model is not None:
        body["model"] = model
    sent, first, finished = time.monotonic(), None, False
    try:
        async with http.stream("POST", f"{url}/v1/completions", json=body) as answer:
            if answer.status_code != 200:
                load.statuses[str(answer.status_code)] += 1
                await asyncio.sleep(0.1)
                return
            async for line in answer.aiter_lines():
                if not line.startswith("data: {"):
                    continue
                chunk = json.loads(line.removeprefix("data: "))
                choices = chunk.get("choices") or []
                if first is None and any(choice.get("text") for choice in choices):
                    first = time.monotonic() - sent
                finished |= any(choice.get("finish_reason") for choice in choices)
                if chunk.get("usage"):
                    load.num_tokens += chunk["usage"]["completion_tokens"]
    except httpx.HTTPError as error:
        load.statuses[type(error).__name__] += 1
        return
    load.statuses["200" if finished else "200, cut off"] += 1
    if first is not None:
        load.first_seconds.append(first)


async def watch_memory(pid: int, start: float, load: Load) -> None:
    """Records the resident memory twice a second until cancelled."""
    server = psutil.Process(pid)
    while True:
        family = [server, *server.children(recursive=True)]
        total = sum(process.memory_info().rss for process in family)
        load.memory_bytes.append((time.monotonic() - start, total))
        await asyncio.sleep(0.5)


def row(name: str, load: Load | str) -> str:
    """One line of the table."""
    if isinstance(load, str):
        return f"| {name} | {load} | - | - | - | - | - |"
    counts = ", ".join(f"{count} x {status}" for status, count in sorted(load.statuses.items()))
    first_ms = [seconds * 1000 for seconds in load.first_seconds] or [float("nan")]
    p95 = statistics.quantiles(first_ms, n=20)[-1] if len(first_ms) > 1 else first_ms[0]
    third = load.seconds / 3
    early = [size for at, size in load.memory_bytes if at <= third]
    late = [size for at, size in load.memory_bytes if at >= load.seconds - third]
    rss = [f"{statistics.mean(sizes) / 1e6:.0f}" if sizes else "-" for sizes in (early, late)]
    return (
        f"| {name} | {counts} | {statistics.median(first_ms):.0f} | {p95:.0f} | "
        f"{load.num_tokens / load.seconds:.0f} | {rss[0]} | {rss[1]} |"
    )


def cpu_name() -> str:
    """The kernel's name of the processor."""
    info = Path("/proc/cpuinfo")
    if info.is_file():
        for line in info.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


if __name__ == "__main__":
    main()
