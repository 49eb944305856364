"""Compares adding tokens to a base's vocabulary with replacing it: bytes per token and bits per byte.

    python scripts/compare_vocabularies.py --config configs/pilot.yaml --set dump.source=DUMP \
        --set align.base=MODEL.gguf --set align.method=pieces --other ENGLISH.jsonl.gz \
        --ways retrain:50257,extend:59152,extend:59152:rows --tokens 100_000 --seeds 0,1,2

A way is METHOD:VOCAB_SIZE, as in `tokenizer.method` and `tokenizer.vocab_size` (for `extend` with the old
tokens). It trains all weights in one cycle. With `:rows` at the end, the first `--parts`th of the tokens
trains only the rows that alignment did not copy. All runs train on `--tokens` tokens of the config's corpus
with its batch, rate of its last phase, and precision.

Each run is measured before and after training on the same two texts: validation documents of the corpus's
first source, spread evenly over them, and documents of `--other`, a file in the base's language; about
`--chars` characters of each. `base` is the base itself with its own tokenizer. A block of
`tokens.block_size` tokens is longer in bytes if its tokens are; at most the last block of a text is left
out.

Each finished run adds a line with its inputs to `--results`, so an interrupted comparison resumes.
"""

import argparse
import json
import subprocess
import sys
import time
from contextlib import nullcontext
from dataclasses import asdict, replace
from pathlib import Path

import torch
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

from gportuguese import Pipeline, base, causal_lm, corpus, init_world, load_config, tokenizer
from gportuguese.config import Config, CorpusConfig, sources_of
from gportuguese.corpus import Document
from gportuguese.corpus.documents import read_own
from gportuguese.hashes import digest_of
from gportuguese.metrics import TokenSums, measure
from gportuguese.tokens import BlockLoader, bytes_per_token, joined_ids

BASE = "base"


def overrides_of(way: str, seed: int, args: argparse.Namespace) -> list[str]:
    """The settings of a run."""
    method, vocab_size, *rows = way.split(":")
    if method not in ("retrain", "extend") or rows not in ([], ["rows"]):
        raise SystemExit(f"--ways {way}: write METHOD:VOCAB_SIZE or METHOD:VOCAB_SIZE:rows")
    last = load_config(args.config, tuple(args.set)).train.phases[-1]
    everything = replace(last, name="all", trainable_groups=4, trainable="groups", lr_ratio=1.0)
    phases = [replace(everything, epochs=args.parts - len(rows))]
    if rows:
        only_rows = {"name": "rows", "epochs": 1, "trainable": "new_rows", "trainable_groups": 1}
        phases.insert(0, replace(everything, **only_rows))
    return [
        *args.set,
        f"tokenizer.method={method}",
        f"tokenizer.vocab_size={vocab_size}",
        f"align.seed={seed}",
        f"train.seed={seed}",
        f"train.epoch_tokens={args.tokens // args.parts}",
        f"train.phases={json.dumps([asdict(phase) for phase in phases])}",
    ]


def evenly(texts: list[str], num_chars: int) -> list[str]:
    """Whole texts spread evenly over a list, until they have `num_chars` characters."""
    count = len(texts)
    while count > 1 and sum(len(texts[i * len(texts) // count]) for i in range(count)) > num_chars:
        count = count * 9 // 10
    return [texts[i * len(texts) // count] for i in range(count)]


def texts_of(config: Config, args: argparse.Namespace) -> dict[str, list[str]]:
    """The two texts on which all runs are measured."""
    built = Pipeline(config).build("corpus", init_world(config.runtime))
    name = sources_of(config.corpus)[0].name
    target = [text for batch in corpus.load(built, "valid", source=name) for text in batch]
    section = CorpusConfig(documents=str(args.other), min_chars=1)
    other = [each.text for each in read_own(section) if isinstance(each, Document)]
    return {"target": evenly(target, args.chars), "other": evenly(other, args.chars)}


def measured(model, bpe, texts: dict[str, list[str]], config: Config) -> dict[str, dict]:
    """Bytes per token and bits per byte of each text."""
    token_bytes_V, found = torch.from_numpy(bytes_per_token(bpe)), {}
    for name, documents in texts.items():
        ids, _ = joined_ids(bpe, documents)
        blocks = BlockLoader(ids, config.tokens.block_size, config.runtime.micro_batch_size)
        measures = measure(model, blocks, TokenSums(token_bytes_V), nullcontext)
        num_bytes = sum(len(text.encode()) for text in documents)
        found[name] = {
            "bytes_per_token": round(num_bytes / (len(ids) - len(documents)), 4),
            "bits_per_byte": round(measures.bits_per_byte, 5),
        }
    return found


def run(way: str, seed: int, texts: dict[str, list[str]], args: argparse.Namespace) -> dict:
    """Trains one way and returns what its line of the results says besides its identity."""
    if way == BASE:
        config = load_config(args.config, tuple(args.set))
        model, bpe = causal_lm.load_with_tokenizer(config.align.base)
        return {"entries": len(bpe), "before": measured(model, bpe, texts, config)}
    start, sets = time.monotonic(), overrides_of(way, seed, args)
    words = [sys.executable, "-m", "gportuguese", "train", "--config", str(args.config)]
    subprocess.run(
        [*words, *words_of(sets)],
        check=True,
        stdout=subprocess.DEVNULL,
        env=environment(args.jobs),
    )
    config = load_config(args.config, tuple(sets))
    pipeline = Pipeline(config)
    trained = pipeline.open("train")
    found, bpe = {}, tokenizer.load(trained.folder / "model")
    for when, folder in (
        ("before", pipeline.open("align").folder),
        ("after", trained.folder / "model"),
    ):
        found[when] = measured(causal_lm.load(folder), bpe, texts, config)
    tokens = pipeline.open("tokens").facts
    return {
        "entries": len(bpe),
        **found,
        "rows": pipeline.open("align").facts["rows"],
        "trained_tokens": trained.facts["tokens"],
        "train_bytes_per_token": round(tokens["bytes"]["train"] / tokens["tokens"]["train"], 4),
        "seconds": round(time.monotonic() - start),
        "commit": trained.manifest["versions"]["commit"],
    }


def identity_of(way: str, seed: int, texts: dict[str, list[str]], args: argparse.Namespace) -> dict:
    """Everything that determines a run's result, as written in its line of the results."""
    sets = args.set if way == BASE else overrides_of(way, seed, args)
    config = load_config(args.config, tuple(sets))
    return {
        "way": way,
        "seed": seed,
        "tokens": args.tokens,
        "texts": digest_of(texts),
        "block": config.tokens.block_size,
        "base": base.identity_of(config.align.base, download=True),
        "train": None if way == BASE else Pipeline(config).folder("train").name,
    }


def report(results: list[dict], tokens: int) -> str:
    """A table with a line for each way, mean and deviation over seeds."""
    head = ["way", "entries", "seeds", "bytes/token", "other", "bits/byte before", "other"]
    rows = []
    for way in dict.fromkeys(result["way"] for result in results):
        same = [result for result in results if result["way"] == way]
        cells = [way, f"{same[0]['entries']:,}", str(len(same))]
        for when, number in (
            ("before", "bytes_per_token"),
            ("before", "bits_per_byte"),
            ("after", "bits_per_byte"),
        ):
            for text in ("target", "other"):
                known = when in same[0]
                cells.append(spread(r[when][text][number] for r in same) if known else "-")
        rows.append(cells)
    return table([*head, f"after {tokens:,} tokens", "other"], rows)


def main() -> None:
    """Runs the missing runs and prints the table."""
    parser = make_parser(__doc__)
    parser.add_argument(
        "--ways", type=lambda text: text.split(","), required=True, help="METHOD:VOCAB_SIZE[:rows]"
    )
    parser.add_argument("--other", type=Path, required=True, help="text in the base's language")
    parser.add_argument("--tokens", type=lambda text: int(float(text)), default=100_000)
    parser.add_argument("--parts", type=int, default=4, help="epochs that the tokens are cut into")
    parser.add_argument("--chars", type=lambda text: int(float(text)), default=400_000)
    parser.add_argument(
        "--seeds", type=lambda text: [int(seed) for seed in text.split(",")], default=[0, 1, 2]
    )
    parser.add_argument("--results", type=Path, default=Path("vocabularies.jsonl"))
    args = parser.parse_args()
    if args.parts < 2:
        parser.error("--parts: needs at least two, one for the new rows and one for everything")
    texts = texts_of(load_config(args.config, tuple(args.set)), args)
    runs = [(BASE, 0), *((way, seed) for seed in args.seeds for way in args.ways)]
    for way, seed in runs[1:]:  # build the stages that runs share before runs go in parallel
        config = load_config(args.config, tuple(overrides_of(way, seed, args)))
        Pipeline(config).build("align", init_world(config.runtime))
    wanted = [identity_of(way, seed, texts, args) for way, seed in runs]
    finished = Results(args.results)

    def add(number: int) -> None:
        finished.add({**wanted[number], **run(*runs[number], texts, args)})

    run_all(add, finished.missing(wanted), args.jobs)
    results = finished.of(wanted)
    results.sort(key=lambda result: [BASE, *args.ways].index(result["way"]))
    # whole batches, so often fewer than --tokens
    trained = max(result.get("trained_tokens", 0) for result in results)
    print(report(results, trained))
    print(setting(len(args.seeds), args.jobs, f"{args.chars:,} characters of each text"))


if __name__ == "__main__":
    main()
