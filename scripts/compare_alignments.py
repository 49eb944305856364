"""Compares methods of making rows for a new vocabulary: bits per byte by tokens seen.

    python scripts/compare_alignments.py --config configs/pilot.yaml --set dump.source=DUMP \
        --set align.source_documents=ENGLISH.jsonl.gz --set align.dictionary=WORDS.tsv \
        --methods mean,pieces,focus:sharpness=1,auto,scratch --rates 3e-3 --seeds 0,1,2 --tokens 4e6

Only `auto` is calibrated by default. `NAME:key=value` changes a setting of the section align:
`focus:sharpness=1` is FOCUS as published, `focus:calibration_tokens=8192` calibrates it.

All runs have the same tokenizer, split, order of blocks, batch and steps. A bare PyTorch loop trains the
aligned model with AdamW in train.precision; after a short warm-up the rate falls linearly to a tenth. Runs
are measured on the config's validation text and, separately, on `--sentences`, a file with one sentence per
line. Each finished run adds a line with its inputs to `--results`, so an interrupted comparison resumes.
`--rows NAME=FILE.npy` adds a matrix from elsewhere, such as from a public package
(`scripts/package_rows.py`; tied embeddings only). The seed sets the order of blocks, a method's draws and
vectors, and the weights of `scratch`. With several rates, the table shows each method at its best rate.
`--embeddings-only N` trains only the rows, those of an untied head too, for the first N tokens.
"""

import argparse
import json
import math
import os
import statistics
import subprocess
import sys
import time
from itertools import pairwise
from pathlib import Path

import numpy as np
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
from torch.nn import functional

from gportuguese import Pipeline, causal_lm, init_world, load_config, tokenizer
from gportuguese.config import AlignConfig
from gportuguese.hashes import hash_file
from gportuguese.optimizer import decay_flags
from gportuguese.precision import autocast, check_precision
from gportuguese.tokens import BlockLoader, load_ids, load_token_bytes

MARKS = (0, 100_000, 250_000, 500_000, 1_000_000, 2_000_000)
WARM_UP_STEPS = 50


def marks_of(tokens: int) -> list[int]:
    """Numbers of tokens after which a run is measured; the last is measured after the last step."""
    return [*(mark for mark in MARKS if mark < tokens), tokens]


def bits_per_byte(model, batches, token_bytes_V, precision: str) -> float:
    """Bits per byte of the targets of `batches`; special tokens count nats but no bytes."""
    model.eval()
    nats = num_bytes = 0.0
    with torch.no_grad(), autocast("cpu", precision):
        for inputs_BT, targets_BT in batches:
            logits_BTV = model(inputs_BT).logits.float()
            nats += functional.cross_entropy(
                logits_BTV.flatten(0, 1), targets_BT.flatten(), reduction="sum"
            ).item()
            num_bytes += token_bytes_V[targets_BT].sum().item()
    model.train()
    return nats / math.log(2) / num_bytes


def optimizer_of(model, rate: float) -> torch.optim.Optimizer:
    """AdamW with the settings of a small GPT-2, without weight decay of biases and norms."""
    decays = decay_flags(model)
    groups = [
        {"params": [p for p in model.parameters() if decays[id(p)] == flag], "weight_decay": decay}
        for flag, decay in ((True, 0.1), (False, 0.0))
    ]
    return torch.optim.AdamW(groups, lr=rate, betas=(0.9, 0.98), eps=1e-8, fused=True)


def identity_of(plan: dict, args: argparse.Namespace) -> dict:
    """Everything that determines a run's result, as written in its line of the results."""
    config = load_config(args.config, tuple(overrides_of(plan, args)))
    pipeline = Pipeline(config)
    files = {"rows": plan["rows"], "sentences": args.sentences}
    return {
        "method": plan["method"],
        "rate": plan["rate"],
        "seed": plan["seed"],
        "tokens": args.tokens,
        "embeddings_only": args.embeddings_only,
        "valid_blocks": args.valid_blocks,
        "precision": config.train.precision,
        "batch": config.train.global_batch_size,
        "align": pipeline.folder("align").name,
        "text": pipeline.folder("tokens").name,
        **{name: hash_file(Path(path)) if path else None for name, path in files.items()},
    }


def overrides_of(plan: dict, args: argparse.Namespace) -> list[str]:
    """The settings of a run. A matrix from elsewhere and random weights replace those of `mean`."""
    method, *settings = plan["method"].split(":")
    if plan["rows"] or method == "scratch":
        method = "mean"
    calibration_tokens = AlignConfig.calibration_tokens if method == "auto" else 0
    settings.insert(0, f"calibration_tokens={calibration_tokens}")
    sets = [f"align.{each}" for each in (f"method={method}", f"seed={plan['seed']}", *settings)]
    return [*args.set, *sets]


def train(args: argparse.Namespace) -> dict:
    """Trains one run and returns its line of the results."""
    config = load_config(args.config, tuple(overrides_of(args.one, args)))
    pipeline = Pipeline(config)
    stored = pipeline.open("tokens")
    torch.manual_seed(args.seed)
    model = causal_lm.load(pipeline.open("align").folder)
    if args.method == "scratch":
        end_of_text = stored.facts["end_of_text"]
        model = causal_lm.fresh_like(model, model.config.vocab_size, end_of_text)
    if args.rows is not None:
        matrix_VD, embeddings = torch.from_numpy(np.load(args.rows)), model.get_input_embeddings()
        wanted, found = tuple(embeddings.weight.shape), tuple(matrix_VD.shape)
        if found != wanted:
            sys.exit(f"{args.rows} is {found}, but the model has rows {wanted}")
        if not model.config.tie_word_embeddings:
            sys.exit("--rows sets the embeddings, and this model's output head is another matrix")
        with torch.no_grad():
            embeddings.weight.copy_(matrix_VD)
    model.config.use_cache = False
    both = (model.get_input_embeddings(), model.get_output_embeddings())
    rows = {id(p) for module in both for p in module.parameters()}
    body = [p for p in model.parameters() if id(p) not in rows]
    block, batch = config.tokens.block_size, config.train.global_batch_size
    dtype, token_bytes_V = stored.facts["dtype"], load_token_bytes(stored.folder, "cpu")
    sets = {
        "valid": BlockLoader(
            load_ids(stored.folder, "valid", dtype), block, 16, num_blocks=args.valid_blocks
        )
    }
    if args.sentences is not None:
        bpe = tokenizer.load(pipeline.open("tokenizer").folder)
        lines = args.sentences.read_text(encoding="utf-8").splitlines()
        ids = [id for line in lines for id in (*bpe.encode(line), bpe.eos_token_id)]
        sets["sentences"] = BlockLoader(np.array([bpe.eos_token_id, *ids]), block, 16)
    blocks = BlockLoader(
        load_ids(stored.folder, "train", dtype),
        block,
        batch,
        seed=args.seed,
        num_blocks=args.tokens // block,
        multiple=batch,
    )
    optimizer, num_steps = optimizer_of(model, args.rate), len(blocks)
    precision = config.train.precision
    check_precision("cpu", config.train)
    found: dict[str, dict[str, float]] = {name: {} for name in sets}
    start = time.monotonic()

    def measure(mark: int) -> None:
        for name, batches in sets.items():
            found[name][str(mark)] = bits_per_byte(model, batches, token_bytes_V, precision)

    measure(0)
    step_tokens = block * batch
    for step, (inputs_BT, targets_BT) in enumerate(blocks):
        for parameter in body:
            parameter.requires_grad_(step * step_tokens >= args.embeddings_only)
        warm = min(1.0, (step + 1) / max(1, min(WARM_UP_STEPS, num_steps // 10)))
        for group in optimizer.param_groups:
            group["lr"] = args.rate * warm * (1 - 0.9 * step / num_steps)
        with autocast("cpu", precision):
            logits_BTV = model(inputs_BT).logits
        loss = functional.cross_entropy(logits_BTV.float().flatten(0, 1), targets_BT.flatten())
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        seen = (step + 1) * step_tokens
        for mark in marks_of(args.tokens)[1:-1]:
            if seen - step_tokens < mark <= seen or (step == num_steps - 1 and seen < mark):
                measure(mark)
    measure(args.tokens)
    return {
        **identity_of(args.one, args),
        "bits_per_byte": found,
        "seconds": round(time.monotonic() - start),
        "commit": pipeline.open("align").manifest["versions"]["commit"],
    }


def plans_of(args: argparse.Namespace) -> list[dict]:
    """All runs, each with method, rate, seed and perhaps a matrix; builds their `align` stages."""
    rows = dict(each.split("=", 1) for each in args.rows)
    plans = [
        {
            "method": method,
            "rate": rate,
            "seed": seed,
            "rows": rows[method].replace("{seed}", str(seed)) if method in rows else None,
        }
        for seed in map(int, args.seeds.split(","))
        for rate in map(float, args.rates.split(","))
        for method in [*args.methods.split(","), *rows]
    ]
    for plan in plans:  # before runs go in parallel
        config = load_config(args.config, tuple(overrides_of(plan, args)))
        Pipeline(config).build("align", init_world(config.runtime))
    return plans


def run(plan: dict, args: argparse.Namespace) -> None:
    """Starts a run in its own process, with its share of the cores."""
    words = [sys.executable, __file__, "--config", str(args.config), "--tokens", str(args.tokens)]
    words += ["--results", str(args.results), "--one", json.dumps(plan)]
    for option in ("embeddings_only", "valid_blocks"):
        words += [f"--{option.replace('_', '-')}", str(getattr(args, option))]
    words += words_of(args.set)
    if args.sentences:
        words += ["--sentences", str(args.sentences)]
    subprocess.run(words, check=True, env=environment(args.jobs))


def reached(values: list[float], marks: list[int], goal: float) -> str:
    """Tokens after which `values` at `marks` pass `goal`, interpolated over the logarithm of tokens."""
    if values[0] <= goal:
        return "0"
    if values[1] <= goal:
        return f"< {marks[1]:,}"
    for (before, start), (after, end) in pairwise(zip(values[1:], marks[1:], strict=True)):
        if after <= goal < before:
            share = (before - goal) / (before - after)
            return f"{math.exp(math.log(start) * (1 - share) + math.log(end) * share):,.0f}"
    return "-"


def report(results: list[dict], tokens: int) -> str:
    """A table per text: each method at its best rate, mean ± deviation over seeds.

    The last column is the number of tokens after which a method reaches the final value of `mean`.
    """
    tables, marks = [], marks_of(tokens)
    for name in results[0]["bits_per_byte"]:
        best = {}
        for method in dict.fromkeys(result["method"] for result in results):
            by_rate: dict[float, list[list[float]]] = {}
            for result in results:
                if result["method"] == method:
                    values = [result["bits_per_byte"][name][str(mark)] for mark in marks]
                    by_rate.setdefault(result["rate"], []).append(values)
            rate = min(by_rate, key=lambda rate: statistics.mean(v[-1] for v in by_rate[rate]))
            best[method] = rate, list(zip(*by_rate[rate], strict=True))
        ends = {method: statistics.mean(columns[-1]) for method, (_, columns) in best.items()}
        head = [name, "rate", "seeds", *(f"{mark:,}" for mark in marks), "as `mean` at its end"]
        rows = []
        for method in sorted(best, key=lambda method: -ends[method]):
            rate, columns = best[method]
            means = [statistics.mean(column) for column in columns]
            where = reached(means, marks, ends["mean"]) if "mean" in ends else "-"
            rows.append([method, f"{rate:g}", str(len(columns[0])), *map(spread, columns), where])
        tables.append(table(head, rows) + "\n")
    return "\n".join(tables)


def main() -> None:
    """Runs the missing runs and prints the tables."""
    parser = make_parser(__doc__)
    parser.add_argument(
        "--methods",
        default="mean,gaussian,pieces,focus:sharpness=1,focus,wechsel,bridge,auto,scratch",
    )
    parser.add_argument("--rows", action="append", default=[], help="NAME=FILE.npy; {seed} in FILE")
    parser.add_argument("--rates", default="3e-3", help="peak rates for each method")
    parser.add_argument("--seeds", default="0,1,2", help="seeds for each rate")
    parser.add_argument("--tokens", type=lambda text: int(float(text)), default=4_000_000)
    parser.add_argument("--embeddings-only", type=int, default=0, metavar="TOKENS")
    parser.add_argument("--valid-blocks", type=int, default=480)
    parser.add_argument("--sentences", type=Path)
    parser.add_argument("--results", type=Path, default=Path("alignments.jsonl"))
    parser.add_argument("--one", type=json.loads, help=argparse.SUPPRESS)
    args = parser.parse_args()
    # older lines lack precision and batch
    finished = Results(args.results, precision="bf16", batch=8)
    if args.one:
        vars(args).update(args.one)
        torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
        finished.add(train(args))
        return
    if load_config(args.config, tuple(args.set)).train.precision == "fp16":
        sys.exit("train.precision=fp16 needs loss scaling, which this loop lacks; use bf16 or fp32")
    plans = plans_of(args)
    wanted = [identity_of(plan, args) for plan in plans]
    todo = [plans[number] for number in finished.missing(wanted)]
    run_all(lambda plan: run(plan, args), todo, args.jobs)
    results = finished.of(wanted)
    print(report(results, args.tokens))
    seconds = statistics.mean(result["seconds"] for result in results)
    facts = f"{args.tokens:,} training tokens a run, {seconds:.0f} s each"
    print(setting(len(args.seeds.split(",")), args.jobs, facts))


if __name__ == "__main__":
    main()
