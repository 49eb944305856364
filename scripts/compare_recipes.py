"""Compares training schedules and starting weights on the same tokens; prints Markdown tables.

    python scripts/compare_recipes.py --config configs/pilot.yaml --set dump.source=PATH --rates 1,2,4

All runs have the same tokenizer, split, order of blocks, batch and number of tokens. Schedules:

    published   the config's phases: gradual unfreezing
    brief       one epoch of the config's first phase, then all layers at the rate of its last phase
    all         all layers from the first step, in one cycle, at the rate of the config's last phase

Each has discriminative rates (`lr_ratio` of 2.6^4, as published) or, as `NAME-flat`, one rate for all
groups. `all-flat-muon` is `all-flat` with train.optimizer=muon. `all-adamw` is `all-flat` with the
optimizer settings of english-nano.yaml (beta2 0.98, eps 1e-8, weight decay 0.1), and `all-fastai` is
`all-flat` with the published ones. `random` and `scratch` start from random weights, with the schedule
of `published` and of `all-adamw`.

`--parts` divides each epoch of the config, for more points and a shorter `brief` phase. `--rates`
multiplies every peak rate: with its first seed, each schedule tries one rate after another until the next
is worse; its other seeds run at the best rate. A run that stops itself counts as infinitely bad. Each
finished run adds a line to `--results`, so an interrupted comparison resumes.
"""

import argparse
import json
import math
import platform
import statistics
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path

from comparison import Results, environment, make_parser, run_all, spread, table, words_of

from gportuguese import Pipeline, init_world, load_config
from gportuguese.config import PhaseConfig

ADAMW = ("weight_decay=0.1", "beta2=0.98", "eps=1e-8", "grad_clip=1.0")
FASTAI = ("weight_decay=0.01", "beta2=0.99", "eps=1e-5", "grad_clip=null")
# schedule, optimizer settings, alignment; () and None keep the config's
WAYS: dict[str, tuple[str, tuple[str, ...], str | None]] = {
    "published": ("published", (), None),
    "published-flat": ("published-flat", (), None),
    "brief": ("brief", (), None),
    "brief-flat": ("brief-flat", (), None),
    "all": ("all", (), None),
    "all-flat": ("all-flat", (), None),
    "all-flat-muon": ("all-flat", ("optimizer=muon",), None),
    "all-adamw": ("all-flat", ADAMW, None),
    "all-fastai": ("all-flat", FASTAI, None),
    "random": ("published", (), "random"),
    "scratch": ("all-flat", ADAMW, "random"),
}
RATIO = 45.6976


def schedule(name: str, phases: tuple[PhaseConfig, ...], rate: float) -> list[PhaseConfig]:
    """The phases of a schedule as long as `phases`, with their peak rates times `rate`."""
    num_epochs = sum(phase.epochs for phase in phases)
    first, last = phases[0], phases[-1]
    ratio = 1.0 if name.endswith("-flat") else RATIO
    everything = replace(last, name="all", epochs=num_epochs, trainable_groups=4, lr_ratio=ratio)
    match name.removesuffix("-flat"):
        case "published":
            found = [p if p is first else replace(p, lr_ratio=ratio) for p in phases]
        case "brief":
            found = [replace(first, epochs=1), replace(everything, epochs=num_epochs - 1)]
        case _:
            found = [everything]
    return [replace(phase, lr_max=phase.lr_max * rate) for phase in found]


def overrides(args: argparse.Namespace, way: str, rate: float, seed: int) -> list[str]:
    """The settings of one run."""
    section = load_config(args.config, tuple(args.set)).train
    kind, optimizer, method = WAYS[way]
    phases = tuple(replace(p, epochs=p.epochs * args.parts) for p in section.phases)
    sets = [*args.set, f"train.seed={seed}", f"align.seed={seed}"]
    sets += [f"train.{setting}" for setting in optimizer]
    if args.parts > 1:
        if section.epoch_tokens is None:
            sys.exit(
                "--parts needs train.epoch_tokens; set it, such as --set train.epoch_tokens=1_000_000"
            )
        sets.append(f"train.epoch_tokens={section.epoch_tokens // args.parts}")
    if method is not None:
        sets.append(f"align.method={method}")
    found = [asdict(phase) for phase in schedule(kind, phases, rate)]
    return [*sets, f"train.phases={json.dumps(found)}"]


def identity_of(args: argparse.Namespace, way: str, rate: float, seed: int) -> dict:
    """Everything that determines a run's result; builds the stages before training."""
    config = load_config(args.config, tuple(overrides(args, way, rate, seed)))
    pipeline = Pipeline(config)
    for stage in ("tokens", "align"):
        pipeline.build(stage, init_world(config.runtime))
    return {"way": way, "rate": rate, "seed": seed, "run": pipeline.folder("evaluate").name}


def run(args: argparse.Namespace, identity: dict) -> dict | None:
    """Trains and measures one run in a process of its own; returns its line of the results.

    None if the run stopped itself, or an error of the user ended it; a repeated comparison tries again.
    """
    sets = overrides(args, identity["way"], identity["rate"], identity["seed"])
    words = [sys.executable, "-m", "gportuguese", "evaluate", "--config", str(args.config)]
    words += words_of(sets)
    done = subprocess.run(words, env=environment(args.jobs), stdout=subprocess.DEVNULL)
    if done.returncode == 2:
        return None
    done.check_returncode()
    folder = Pipeline(load_config(args.config, tuple(sets))).open("evaluate").folder
    report = json.loads((folder / "report.json").read_text(encoding="utf-8"))
    kept = ("epochs", "measures", "training", "versions")
    return {**identity, "report": {name: report[name] for name in kept}}


def evaluate(args: argparse.Namespace, runs: list[tuple[str, float, int]]) -> list[dict | None]:
    """The reports of runs (way, rate, seed), missing ones built; None if the run stopped itself."""
    if not runs:
        return []
    identities = [identity_of(args, *each) for each in runs]
    results = Results(args.results)

    def add(number: int) -> None:
        if (line := run(args, identities[number])) is not None:
            results.add(line)

    run_all(add, results.missing(identities), args.jobs)
    found = {line["run"]: line["report"] for line in results.of(identities)}
    return [found.get(identity["run"]) for identity in identities]


def end_of(report: dict | None) -> float:
    """Bits per byte of the whole validation set after training."""
    return report["measures"]["valid"]["bits_per_byte"] if report else math.inf


def main() -> None:
    """Runs the missing runs and prints the tables."""
    parser = make_parser(__doc__)
    parser.add_argument(
        "--ways", default="published,published-flat,brief,brief-flat,all,all-flat,all-flat-muon"
    )
    parser.add_argument("--rates", default="1", help="factors for every peak rate")
    parser.add_argument("--parts", type=int, default=1, help="parts of each epoch of the config")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--results", type=Path, default=Path("recipes.jsonl"))
    args = parser.parse_args()
    ways, rates = args.ways.split(","), [float(rate) for rate in args.rates.split(",")]
    reports: dict[tuple[str, float, int], dict | None] = {}
    best: dict[str, float] = {}
    last = rates[0]
    for rate in rates:
        sweep = [(way, rate, 0) for way in ways if way not in best or best[way] == last]
        reports |= dict(zip(sweep, evaluate(args, sweep), strict=True))
        for way, _, _ in sweep:
            if way not in best or end_of(reports[way, rate, 0]) < end_of(reports[way, last, 0]):
                best[way] = rate
        last = rate
    more = [(way, best[way], seed) for seed in range(1, args.seeds) for way in ways]
    reports |= dict(zip(more, evaluate(args, more), strict=True))
    if len(rates) > 1:
        print("Bits per byte of the whole validation set at the end, seed 0, peak rates times:\n")
        rows = []
        for way in ways:
            found = [(way, rate, 0) for rate in rates]
            cells = [f"{end_of(reports[run]):.4f}" if run in reports else "-" for run in found]
            rows.append([f"`{way}`", *cells])
        print(table(["way", *(f"{rate:g}" for rate in rates)], rows) + "\n")
    finished = {run: report for run, report in reports.items() if report is not None}
    if not finished:
        sys.exit("every run stopped; lower --rates")
    by_way = {
        way: [
            finished[way, best[way], s]
            for s in range(args.seeds)
            if (way, best[way], s) in finished
        ]
        for way in ways
    }
    print_results({way: found for way, found in by_way.items() if found}, best)
    print_setting(finished, args)


def print_results(by_way: dict[str, list[dict]], best: dict[str, float]) -> None:
    """Prints mean and deviation over seeds by tokens seen: a line per way, the best one last."""
    some = next(iter(by_way.values()))[0]
    num_epochs = len(some["epochs"]) - 1
    marks = [some["training"]["tokens"] * epoch // num_epochs for epoch in range(num_epochs + 1)]
    head = ["bits per byte after", "rates x", *(f"{mark / 1e6:.2f}M" for mark in marks)]
    head += ["valid, full", "test", "training, s"]
    rows = []
    for way in sorted(by_way, key=lambda w: -statistics.mean(map(end_of, by_way[w]))):
        results = by_way[way]
        columns = [[r["epochs"][e]["bits_per_byte"] for r in results] for e in range(len(marks))]
        columns += [[r["measures"][s]["bits_per_byte"] for r in results] for s in ("valid", "test")]
        cells = [f"`{way}`", f"{best[way]:g}", *map(spread, columns)]
        cells.append(f"{statistics.mean(r['training']['train_seconds'] for r in results):.0f}")
        rows.append(cells)
    print(table(head, rows))


def print_setting(reports: dict[tuple[str, float, int], dict], args: argparse.Namespace) -> None:
    """Prints the settings of the measurement."""
    some = next(iter(reports.values()))
    training, versions = some["training"], some["versions"]
    print(
        f"\nMean ± standard deviation over {args.seeds} seeds; {training['tokens']:,} training "
        f"tokens a run; {args.jobs} run(s) at a time; commit {versions['commit']}, torch "
        f"{versions['torch']}, transformers {versions['transformers']}, fastai "
        f"{versions['fastai']}, {platform.machine()}, {training['device']}; peak memory "
        f"{max(r['training']['peak_memory_bytes'] for r in reports.values()) / 1e9:.2f} GB."
    )


if __name__ == "__main__":
    main()
