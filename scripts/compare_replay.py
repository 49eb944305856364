"""Compares shares of English in the training text: what the target language pays and what English keeps.

    python scripts/compare_replay.py --config configs/pilot.yaml --set dump.source=PTWIKI.xml.bz2 \
        --english ENGLISH.jsonl.gz --shares 0,0.05,0.2 --seeds 0,1,2

`--english` is any source of documents in the base model's language: a file, a folder, a URL or a Hub id. The
target is the config's dump or `corpus.documents`. All runs have the same corpus, split, tokenizer, number of
tokens and steps; the seed sets the order of blocks, the documents drawn and the method of alignment. Each
finished run adds a line to `--results`, so an interrupted comparison resumes.
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from importlib import metadata
from pathlib import Path
from threading import Lock

from gportuguese import Pipeline, init_world, load_config
from gportuguese.config import DUMP

WRITING = Lock()


def overrides(args: argparse.Namespace, share: float, seed: int) -> list[str]:
    """The settings of one run."""
    corpus = load_config(args.config, tuple(args.set)).corpus
    target = {"documents": corpus.documents or DUMP, "name": "target", "weight": 1 - share}
    english = {
        "documents": args.english,
        "name": "english",
        "language": "en",
        "weight": share,
        "filter": {"min_chars": args.min_chars},
    }
    if args.bytes is not None:
        english["bytes"] = args.bytes
    seeds = [f"{section}.seed={seed}" for section in ("tokens", "align", "train")]
    sources = f"corpus.sources={json.dumps([target, english])}"
    return [*args.set, "corpus.documents=null", sources, *seeds]


def identity_of(args: argparse.Namespace, share: float, seed: int) -> dict:
    """Everything that determines a run's result; builds the stages before training."""
    config = load_config(args.config, tuple(overrides(args, share, seed)))
    pipeline = Pipeline(config)
    for stage in ("tokens", "align"):
        pipeline.build(stage, init_world(config.runtime))
    return {"share": share, "seed": seed, "run": pipeline.folder("evaluate").name}


def run(args: argparse.Namespace, identity: dict) -> None:
    """Trains and measures one run in its own process, and adds its line to the results."""
    sets = overrides(args, identity["share"], identity["seed"])
    words = [sys.executable, "-m", "gportuguese", "evaluate", "--config", str(args.config)]
    threads = str(max(1, (os.cpu_count() or 1) // args.jobs))
    subprocess.run(
        [*words, *(word for each in sets for word in ("--set", each))],
        env={"OMP_NUM_THREADS": threads, **os.environ},
        stdout=subprocess.DEVNULL,
        check=True,
    )
    pipeline = Pipeline(load_config(args.config, tuple(sets)))
    folder = pipeline.open("evaluate").folder
    report = json.loads((folder / "report.json").read_text(encoding="utf-8"))
    parts = {part["name"]: part for part in pipeline.open("tokens").facts["sources"]}
    line = {
        **identity,
        "real_share": parts["english"]["share"],
        "repeats": parts["english"]["repeats"],
        "target": [row["bits_per_byte"] for row in report["epochs"]],
        "valid": report["measures"]["valid"]["bits_per_byte"],
        "test": report["measures"].get("test", {}).get("bits_per_byte"),
        "english": report["sources"][0],
        "tokens": report["training"]["tokens"],
        "seconds": report["training"]["train_seconds"],
        "device": report["training"]["device"],
        "commit": report["versions"]["commit"],
    }
    with WRITING, args.results.open("a", encoding="utf-8") as file:
        file.write(json.dumps(line) + "\n")


def read(path: Path) -> list[dict]:
    """The finished runs."""
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    return [json.loads(line) for line in lines]


def spread(values: list[float]) -> str:
    """Mean and, of several values, the standard deviation."""
    text = f"{statistics.mean(values):.4f}"
    return f"{text} ± {statistics.stdev(values):.4f}" if len(values) > 1 else text


def print_results(results: list[dict]) -> None:
    """Prints a line per share, mean ± deviation over seeds, and the setting."""
    head = ["English, % of tokens", "read, times", "seeds", "target before", "target, valid"]
    head += ["English, base model", "English, after", "forgotten"]
    print("| " + " | ".join(head) + " |")
    print("| --- " * len(head) + "|")
    for share in sorted({result["share"] for result in results}):
        found = [result for result in results if result["share"] == share]
        after = [result["english"]["after"] for result in found]
        before = found[0]["english"]["before"]  # the same in all runs
        cells = [
            f"{100 * statistics.mean(result['real_share'] for result in found):.2f}",
            f"{statistics.mean(result['repeats'] for result in found):.2f}",
            str(len(found)),
            spread([result["target"][0] for result in found]),
            spread([result["valid"] for result in found]),
            "-" if before is None else f"{before:.4f}",
            spread(after),
            "-" if before is None else f"{statistics.mean(after) - before:+.4f}",
        ]
        print("| " + " | ".join(cells) + " |")
    some = results[0]
    print(
        f"\nBits per byte. {some['tokens']:,} training tokens a run, "
        f"{statistics.mean(result['seconds'] for result in results):.0f} s each on {some['device']}; "
        f"commit {some['commit']}, torch {metadata.version('torch')}, {platform.machine()}."
    )


def main() -> None:
    """Runs the missing runs and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--config", type=Path, required=True)
    parser.add_argument("--set", action="append", default=[])
    parser.add_argument("--english", required=True, help="source of text in the base's language")
    parser.add_argument("--min-chars", type=int, default=400, help="shortest document in English")
    parser.add_argument("--bytes", type=int, help="stop after this many bytes of English")
    parser.add_argument("--shares", default="0,0.05,0.2", help="shares of English in the tokens")
    parser.add_argument("--seeds", default="0,1,2", help="seeds for each share")
    parser.add_argument(
        "--jobs", type=int, default=1, help="runs at a time; cores are shared evenly"
    )
    parser.add_argument("--results", type=Path, default=Path("replay.jsonl"))
    args = parser.parse_args()
    wanted = [
        identity_of(args, share, seed)
        for seed in map(int, args.seeds.split(","))
        for share in map(float, args.shares.split(","))
    ]
    keys = tuple(wanted[0])
    found = [{key: result[key] for key in keys} for result in read(args.results)]
    todo = [identity for identity in wanted if identity not in found]
    with ThreadPoolExecutor(args.jobs) as pool:
        list(pool.map(lambda identity: run(args, identity), todo))
    print_results([r for r in read(args.results) if {key: r[key] for key in keys} in wanted])


if __name__ == "__main__":
    main()
