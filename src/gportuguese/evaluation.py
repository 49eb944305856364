"""The evaluate stage: measures on both held-out sets, the epoch table, curves and samples."""

from __future__ import annotations

import shutil
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from gportuguese import atomic, epochs, metrics
from gportuguese.artifacts import Artifact
from gportuguese.config import Config
from gportuguese.corpus import Split, prompts_of
from gportuguese.generation import Sampling, Writer
from gportuguese.precision import autocast
from gportuguese.progress import tracked
from gportuguese.tokens import BlockLoader, load_ids, load_token_bytes
from gportuguese.world import World, keep_freed_memory


def build(config: Config, inputs: dict[str, Artifact], out: Path, world: World) -> dict[str, Any]:
    """Writes `report.json`, `epochs.md`, `epochs.csv`, `curves.png` and `samples.md`."""
    keep_freed_memory()
    training, tokens = inputs["train"], inputs["tokens"]
    writer = Writer.load(training.folder / "model", world.device)
    prompts = prompts_of(config.evaluate, inputs["corpus"])
    facts: dict[str, Any] = {"measures": {}, "prompts": prompts}
    held_out: tuple[Split, ...] = ("valid", "test")
    for split in held_out:
        if tokens.facts["tokens"][split] > config.tokens.block_size:
            measures = _measure(config, tokens, split, writer, world)
            facts["measures"][split] = asdict(measures)
    rows = epochs.read_epochs(training.folder / "epochs.csv")
    (out / "epochs.md").write_text(epochs.epochs_markdown(training) + "\n", encoding="utf-8")
    shutil.copy(training.folder / "epochs.csv", out / "epochs.csv")
    kept = training.folder / "steps.csv"
    steps = epochs.read_steps(kept) if kept.exists() else []  # older runs have none
    title = f"{config.name}: losses, accuracy and bits per byte"
    epochs.draw_curves(rows, steps, title, out / "curves.png")
    (out / "samples.md").write_text(_samples(config, prompts, writer), encoding="utf-8")
    content = {
        **facts,
        "epochs": [asdict(row) for row in rows],
        "training": training.facts,
        "versions": training.manifest["versions"],
    }
    content["epochs"][0]["train_loss"] = None  # before training; JSON has no nan
    atomic.write_json(out / "report.json", content)
    return facts


def _measure(
    config: Config, tokens: Artifact, split: Split, writer: Writer, world: World
) -> metrics.Measures:
    budget = config.evaluate.tokens
    loader = BlockLoader(
        load_ids(tokens.folder, split, tokens.facts["dtype"]),
        config.tokens.block_size,
        config.runtime.micro_batch_size,
        num_blocks=None if budget is None else budget // config.tokens.block_size,
    )
    token_bytes = load_token_bytes(tokens.folder, world.device)
    context = partial(autocast, world.device, config.train.precision)
    with tracked(f"evaluate: {split}", loader, len(loader)) as batches:
        return metrics.measure(writer.model, batches, token_bytes, context)


def _samples(config: Config, prompts: list[str], writer: Writer) -> str:
    new_tokens = config.evaluate.sample_tokens
    kinds = {
        "greedy": Sampling(max_new_tokens=new_tokens, top_k=1),
        "top-k 40": Sampling(max_new_tokens=new_tokens, top_k=40),
        "top-p 0.95, temperature 0.7, penalty 1.2": Sampling(
            max_new_tokens=new_tokens,
            top_k=50,
            top_p=0.95,
            temperature=0.7,
            repetition_penalty=1.2,
        ),
    }
    lines = ["# Samples", ""]
    for prompt in prompts:
        lines += [f"## {prompt}", ""]
        for kind, sampling in kinds.items():
            text = " ".join(writer.write(prompt, sampling).split())
            lines += [f"- {kind}: **{prompt}** {text}"]
        lines.append("")
    return "\n".join(lines)
