"""Transfer against from-scratch on the same tokens, over seeds; prints a Markdown table.

    python scripts/compare_scratch.py --config configs/pilot.yaml --set dump.source=PATH

Ways with the same tokenizer, split, order of blocks, batch and number of tokens: `transfer` is the
config as it stands; `random` starts from random weights but freezes as the recipe does; `scratch`
starts from random weights and trains everything from the first step in one cycle, with the optimizer
settings that the packaged base was trained with (english-nano.yaml); `onecycle` does the same from the
transferred weights, which tells apart what the weights give and what the schedule costs.
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from gportuguese import Pipeline, load_config


def one_cycle(config_path: Path, overrides: list[str]) -> list[str]:
    """The overrides that train all groups in one cycle as long as the config's phases."""
    phases = load_config(config_path, tuple(overrides)).train.phases
    cycle = {
        "name": "all",
        "epochs": sum(phase.epochs for phase in phases),
        "trainable_groups": 4,
        "lr_max": 3e-3,
        "lr_ratio": 1,
    }
    optimizer = {"weight_decay": 0.1, "beta2": 0.98, "eps": 1e-8, "grad_clip": 1.0}
    return [
        f"train.phases=[{json.dumps(cycle)}]",
        *(f"train.{key}={value}" for key, value in optimizer.items()),
    ]


def gpt_pt(command: str, config_path: Path, overrides: list[str], **environment: str) -> None:
    """Runs one command of the program."""
    sets = [word for override in overrides for word in ("--set", override)]
    words = [sys.executable, "-m", "gportuguese", command, "--config", str(config_path), *sets]
    subprocess.run(words, check=True, env={**os.environ, **environment}, stdout=subprocess.DEVNULL)


def run(config_path: Path, overrides: list[str], threads: int) -> dict:
    """The report of one run, built if it is not there."""
    gpt_pt("evaluate", config_path, overrides, OMP_NUM_THREADS=str(threads))
    folder = Pipeline(load_config(config_path, tuple(overrides))).open("evaluate").folder
    return json.loads((folder / "report.json").read_text(encoding="utf-8"))


def main() -> None:
    """Runs what is missing and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--config", type=Path, required=True)
    parser.add_argument("--set", action="append", default=[])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--jobs", type=int, default=1, help="runs at a time, cores shared evenly")
    parser.add_argument("--ways", default="transfer,scratch,random", help="which of the four")
    args = parser.parse_args()
    ways = {
        "transfer": [],
        "onecycle": one_cycle(args.config, args.set),
        "scratch": ["align.method=random", *one_cycle(args.config, args.set)],
        "random": ["align.method=random"],
    }
    ways = {way: ways[way] for way in args.ways.split(",")}
    threads = (os.cpu_count() or 1) // args.jobs
    plans = [
        (way, [*args.set, *settings, f"train.seed={seed}", f"align.seed={seed}"])
        for seed in range(args.seeds)
        for way, settings in ways.items()
    ]
    # the stages that runs share are built before runs go side by side
    for _, overrides in plans:
        for stage in ("tokens", "align"):
            gpt_pt(stage, args.config, overrides)
    with ThreadPoolExecutor(args.jobs) as pool:
        reports = list(pool.map(lambda plan: run(args.config, plan[1], threads), plans))
    by_way = {
        way: [r for (w, _), r in zip(plans, reports, strict=True) if w == way] for way in ways
    }
    epochs = range(len(reports[0]["epochs"]))
    head = [f"epoch {epoch}" for epoch in epochs]
    print("| bits per byte after | " + " | ".join([*head, "valid, full", "test"]) + " |")
    print("| --- " * (len(head) + 3) + "|")
    for way, results in by_way.items():
        columns = [[r["epochs"][epoch]["bits_per_byte"] for r in results] for epoch in epochs]
        columns += [
            [r["measures"][split]["bits_per_byte"] for r in results] for split in ("valid", "test")
        ]
        cells = [spread(values) for values in columns]
        print(f"| {way} | " + " | ".join(cells) + " |")
    training = reports[0]["training"]
    versions = reports[0]["versions"]
    print(
        f"\nMean ± standard deviation over {args.seeds} seeds; {training['tokens']:,} training "
        f"tokens a run; {args.jobs} run(s) at a time; commit {versions['commit']}, torch "
        f"{versions['torch']}, transformers {versions['transformers']}, fastai "
        f"{versions['fastai']}, {platform.machine()}, {training['device']}; seconds of training: "
        + ", ".join(
            f"{way} {statistics.mean(r['training']['train_seconds'] for r in results):.0f}"
            for way, results in by_way.items()
        )
        + f"; peak memory {max(r['training']['peak_memory_bytes'] for r in reports) / 1e9:.2f} GB."
    )


def spread(values: list[float]) -> str:
    """Mean and standard deviation."""
    deviation = statistics.stdev(values) if len(values) > 1 else 0.0
    return f"{statistics.mean(values):.4f} ± {deviation:.4f}"


if __name__ == "__main__":
    main()
