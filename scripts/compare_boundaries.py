"""Compares ways of cutting text into training blocks (`tokens.boundaries`); prints Markdown tables.

    python scripts/compare_boundaries.py --config configs/pilot.yaml --set dump.source=PATH --seeds 0,1,2

All runs have the same tokenizer, aligned model, documents, number of tokens and evaluation, which always cuts
without regard to documents. The seed sets the order of blocks, dropout and the alignment's draws. Each finished
run adds a line to `--results`, and finished stages stay in the artifacts, so an interrupted comparison
resumes. The intervals of the differences are paired: the same documents are drawn for both ways, with each
document's losses averaged over the seeds. They do not cover the spread between seeds.
"""

import argparse
import json
import statistics
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from comparison import (
    Results,
    environment,
    make_parser,
    run_all,
    setting,
    spread,
    table,
    words_of,
)

from gportuguese import Pipeline, init_world, load_config
from gportuguese.intervals import DocumentSums, interval_of_change, shown

SPLITS = ("valid", "test")


def overrides_of(run: tuple[str, int], args: argparse.Namespace) -> tuple[str, ...]:
    """The settings of one run."""
    boundaries, seed = run
    return (
        *args.set,
        f"tokens.boundaries={boundaries}",
        f"train.seed={seed}",
        f"align.seed={seed}",
    )


def identity_of(run: tuple[str, int], args: argparse.Namespace) -> dict:
    """What determines a run's result, as written in its line of the results."""
    pipeline = Pipeline(load_config(args.config, overrides_of(run, args)))
    stages = {stage: pipeline.folder(stage).name for stage in ("train", "evaluate")}
    return {"boundaries": run[0], "seed": run[1], **stages}


def build(run: tuple[str, int], args: argparse.Namespace) -> dict:
    """Trains and evaluates in a process of its own; returns the line of the results."""
    sets = overrides_of(run, args)
    words = [sys.executable, "-m", "gportuguese", "evaluate", "--config", str(args.config)]
    words += words_of(sets)
    subprocess.run(words, check=True, stdout=subprocess.DEVNULL, env=environment(args.jobs))
    pipeline = Pipeline(load_config(args.config, sets))
    evaluated, training = pipeline.open("evaluate").facts, pipeline.open("train")
    epochs = json.loads((pipeline.open("evaluate").folder / "report.json").read_text("utf-8"))[
        "epochs"
    ]
    return {
        **identity_of(run, args),
        **{name: evaluated[name] for name in ("measures", "before", "changes")},
        "epochs": [row["bits_per_byte"] for row in epochs],
        "packing": training.facts.get("packing"),
        "tokens": training.facts["tokens"],
        "train_seconds": training.facts["train_seconds"],
        "device": training.facts["device"],
        "commit": training.manifest["versions"]["commit"],
    }


def sums_of(boundaries: str, split: str, args: argparse.Namespace) -> DocumentSums:
    """The sums of each document, its nats averaged over the seeds."""
    tables = []
    for seed in args.seeds:
        config = load_config(args.config, overrides_of((boundaries, seed), args))
        sums = pq.read_table(Pipeline(config).built_folder("evaluate") / "documents.parquet")
        tables.append(sums.filter(np.array(sums.column("split").to_pylist()) == split))
    nats = np.mean([sums.column("nats").to_numpy() for sums in tables], axis=0)
    return DocumentSums(nats, tables[0].column("bytes").to_numpy())


def report(results: list[dict], args: argparse.Namespace) -> str:
    """A line for each way: mean ± deviation over seeds, and the difference from the first way."""
    first = args.boundaries[0]
    marks = [f"epoch {epoch}" for epoch in range(len(results[0]["epochs"]))]
    head = ["bits per byte", *marks, *(f"{split}, full" for split in SPLITS)]
    head += [f"{split}: minus `{first}`" for split in SPLITS]
    head += ["blocks that begin at a document", "documents cut", "tokens not read", "training, s"]
    rows = []
    for way in args.boundaries:
        found = [result for result in results if result["boundaries"] == way]
        cells = [f"`{way}`", *map(spread, zip(*(r["epochs"] for r in found), strict=True))]
        cells += [spread([r["measures"][s]["bits_per_byte"] for r in found]) for s in SPLITS]
        for split in SPLITS:
            before, after = sums_of(first, split, args), sums_of(way, split, args)
            change = after.bits_per_byte - before.bits_per_byte
            cells.append(
                "-" if way == first else shown(change, interval_of_change(before, after), sign="+")
            )
        cells += packing_cells(found[0]["packing"])
        cells.append(f"{statistics.mean(r['train_seconds'] for r in found):.0f}")
        rows.append(cells)
    return table(head, rows)


def packing_cells(packing: dict | None) -> list[str]:
    """What packing did; `none` does not count it."""
    if packing is None:
        return ["-", "-", "-"]
    return [
        f"{packing['blocks_at_document_start']:,} of {packing['blocks']:,}",
        f"{packing['documents_cut']:,} of {packing['documents_that_fit']:,} that fit",
        f"{packing['unread_tokens']:,} ({100 * packing['unread_share']:.2g} %)",
    ]


def main() -> None:
    """Runs the missing runs and prints the tables."""
    parser = make_parser(__doc__)
    parser.add_argument(
        "--boundaries", type=lambda text: text.split(","), default=["none", "start"]
    )
    parser.add_argument(
        "--seeds", type=lambda text: [int(seed) for seed in text.split(",")], default=[0, 1, 2]
    )
    parser.add_argument("--results", type=Path, default=Path("boundaries.jsonl"))
    args = parser.parse_args()
    runs = [(way, seed) for seed in args.seeds for way in args.boundaries]
    for run in runs:  # build the stages that runs share before runs go in parallel
        config = load_config(args.config, overrides_of(run, args))
        Pipeline(config).build("align", init_world(config.runtime))
    wanted = [identity_of(run, args) for run in runs]
    finished = Results(args.results)
    todo = [runs[number] for number in finished.missing(wanted)]
    run_all(lambda run: finished.add(build(run, args)), todo, args.jobs)
    results = finished.of(wanted)
    print(report(results, args))
    facts = (
        "[...]: 95 % intervals, paired bootstrap over documents",
        f"{results[0]['tokens']:,} training tokens a run on {results[0]['device']}",
        f"commit {results[0]['commit']}",
    )
    print(setting(len(args.seeds), args.jobs, *facts))


if __name__ == "__main__":
    main()
