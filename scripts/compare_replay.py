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
import statistics
import subprocess
import sys
from pathlib import Path

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
from gportuguese.config import DUMP


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


def run(args: argparse.Namespace, identity: dict) -> dict:
    """Trains and measures one run in a process of its own; returns its line of the results."""
    sets = overrides(args, identity["share"], identity["seed"])
    words = [sys.executable, "-m", "gportuguese", "evaluate", "--config", str(args.config)]
    words += words_of(sets)
    subprocess.run(words, env=environment(args.jobs), stdout=subprocess.DEVNULL, check=True)
    pipeline = Pipeline(load_config(args.config, tuple(sets)))
    evaluated, training = pipeline.open("evaluate").facts, pipeline.open("train")
    _, english = pipeline.open("tokens").facts["sources"]
    return {
        **identity,
        "real_share": english["share"],
        "repeats": english["repeats"],
        **{name: evaluated[name] for name in ("measures", "before", "changes")},
        "english": evaluated["sources"][0],
        "tokens": training.facts["tokens"],
        "train_seconds": training.facts["train_seconds"],
        "device": training.facts["device"],
        "commit": training.manifest["versions"]["commit"],
    }


def report(lines: list[dict]) -> str:
    """A line for each share: bits per byte, mean ± deviation over seeds."""
    head = ["English, % of tokens", "read, times", "seeds", "target before", "target after"]
    head += ["English, base model", "English after", "forgotten"]
    rows = []
    for share in sorted({line["share"] for line in lines}):
        found = [line for line in lines if line["share"] == share]
        base = found[0]["english"]["before"]  # the same in all runs
        rows.append([
            f"{100 * statistics.mean(line['real_share'] for line in found):.2f}",
            f"{statistics.mean(line['repeats'] for line in found):.2f}",
            str(len(found)),
            spread([line["before"]["valid"]["bits_per_byte"] for line in found]),
            spread([line["measures"]["valid"]["bits_per_byte"] for line in found]),
            "-" if base is None else f"{base['bits_per_byte']:.4f}",
            spread([line["english"]["after"]["bits_per_byte"] for line in found]),
            "-"
            if base is None
            else spread([line["english"]["change"]["bits_per_byte"] for line in found]),
        ])  # fmt: skip
    return table(head, rows)


def main() -> None:
    """Runs the missing runs and prints the table."""
    parser = make_parser(__doc__)
    parser.add_argument("--english", required=True, help="source of text in the base's language")
    parser.add_argument("--min-chars", type=int, default=400, help="shortest document in English")
    parser.add_argument("--bytes", type=int, help="stop after this many bytes of English")
    parser.add_argument("--shares", default="0,0.05,0.2", help="shares of English in the tokens")
    parser.add_argument("--seeds", default="0,1,2", help="seeds for each share")
    parser.add_argument("--results", type=Path, default=Path("replay.jsonl"))
    args = parser.parse_args()
    identities = [
        identity_of(args, share, seed)
        for seed in map(int, args.seeds.split(","))
        for share in map(float, args.shares.split(","))
    ]
    results = Results(args.results)
    todo = [identities[number] for number in results.missing(identities)]
    run_all(lambda identity: results.add(run(args, identity)), todo, args.jobs)
    lines = results.of(identities)
    print(report(lines))
    seconds = statistics.mean(line["train_seconds"] for line in lines)
    facts = (
        "bits per byte of the validation sets",
        f"{lines[0]['tokens']:,} training tokens a run on {lines[0]['device']}, {seconds:.0f} s each",
        f"commit {lines[0]['commit']}",
    )
    print(setting(len(args.seeds.split(",")), args.jobs, *facts))


if __name__ == "__main__":
    main()
