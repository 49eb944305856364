"""The evaluate stage: measures on both held-out sets, the epoch table, curves and samples."""

from __future__ import annotations

import shutil
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from gportuguese import atomic, causal_lm, epochs, metrics
from gportuguese.artifacts import Artifact
from gportuguese.config import Config, sources_of
from gportuguese.corpus import Split, prompts_of
from gportuguese.forgetting import measure_sources, sources_markdown
from gportuguese.generation import Sampling, Writer
from gportuguese.intervals import shown
from gportuguese.precision import autocast
from gportuguese.progress import busy, tracked
from gportuguese.tokens import BlockLoader, load_ids, load_offsets, load_token_bytes
from gportuguese.world import World, keep_freed_memory

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def build(config: Config, inputs: dict[str, Artifact], out: Path, world: World) -> dict[str, Any]:
    """Writes `report.json`, `measures.md`, `epochs.md`, `epochs.csv`, `curves.png` and `samples.md`.

    `documents.parquet` holds the sums of each document, to compare with another model's. All these are of
    the first source; `sources.md` has the others.
    """
    keep_freed_memory()
    training = inputs["train"]
    aligned = causal_lm.load(inputs["align"].folder).to(world.device)
    before = _measure_all(config, inputs["tokens"], aligned, world, "before training, ")
    del aligned
    writer = Writer.load(training.folder / "model", world.device)
    after = _measure_all(config, inputs["tokens"], writer.model, world)
    prompts = prompts_of(config.evaluate, inputs["corpus"])
    facts: dict[str, Any] = {
        "measures": {split: asdict(sums.evaluation()) for split, sums in after.items()},
        "before": {split: asdict(sums.evaluation()) for split, sums in before.items()},
        "changes": {split: metrics.change(before[split], sums) for split, sums in after.items()},
        "prompts": prompts,
    }
    if after:
        (out / "measures.md").write_text(_measures_markdown(facts) + "\n", encoding="utf-8")
        _write_documents(out / "documents.parquet", before, after)
    if len(sources_of(config.corpus)) > 1:
        facts["sources"] = measure_sources(config, inputs["corpus"], writer)
    if facts.get("sources"):
        table = sources_markdown(facts["sources"])
        (out / "sources.md").write_text(table + "\n", encoding="utf-8")
    rows = epochs.read_epochs(training.folder / "epochs.csv")
    (out / "epochs.md").write_text(epochs.epochs_markdown(training) + "\n", encoding="utf-8")
    shutil.copy(training.folder / "epochs.csv", out / "epochs.csv")
    kept = training.folder / "steps.csv"
    steps = epochs.read_steps(kept) if kept.exists() else []  # older runs have none
    title = f"{config.name}: losses, accuracy and bits per byte"
    epochs.draw_curves(rows, steps, title, out / "curves.png")
    with busy("writing samples"):
        text = _samples(config, prompts, writer)
    (out / "samples.md").write_text(text, encoding="utf-8")
    content = {
        **facts,
        "epochs": [asdict(row) for row in rows],
        "training": training.facts,
        "versions": training.manifest["versions"],
    }
    content["epochs"][0]["train_loss"] = None  # before training; JSON has no nan
    atomic.write_json(out / "report.json", content)
    return facts


def _measure_all(
    config: Config, tokens: Artifact, model: PreTrainedModel, world: World, when: str = ""
) -> dict[Split, metrics.SumsByDocument]:
    """The sums over each held-out set that fills a block."""
    held_out: tuple[Split, ...] = ("valid", "test")
    return {
        split: _measure(config, tokens, split, model, world, f"evaluate: {when}{split}")
        for split in held_out
        if tokens.facts["tokens"][split] > config.tokens.block_size
    }


def _measure(
    config: Config,
    tokens: Artifact,
    split: Split,
    model: PreTrainedModel,
    world: World,
    description: str,
) -> metrics.SumsByDocument:
    budget = config.evaluate.tokens
    loader = BlockLoader(
        load_ids(tokens.folder, split, tokens.facts["dtype"]),
        config.tokens.block_size,
        config.runtime.micro_batch_size,
        num_blocks=None if budget is None else budget // config.tokens.block_size,
    )
    token_bytes = load_token_bytes(tokens.folder, world.device)
    context = partial(autocast, world.device, config.train.precision)
    sums = metrics.SumsByDocument(token_bytes, loader, load_offsets(tokens.folder, split))
    with tracked(description, loader, len(loader)) as batches:
        metrics.measure(model, batches, sums, context)
    return sums


def _measures_markdown(facts: dict[str, Any]) -> str:
    """A column for each held-out set; bits per byte with 95 % intervals."""
    rows: dict[str, list[str]] = {}
    for split, values in facts["measures"].items():
        for name, cell in {
            "after training": "validation" if split == "valid" else split,
            "documents": f"{values['documents']:,}",
            "loss (nats per token)": f"{values['loss']:.4f}",
            "accuracy (%)": f"{100 * values['accuracy']:.2f}",
            "perplexity": f"{values['perplexity']:.2f}",
            "bits per byte": _bits(values),
            "before training": _bits(facts["before"][split]),
            "change": _bits(facts["changes"][split], sign="+"),
        }.items():
            rows.setdefault(name, []).append(cell)
    lines = [f"| {' | '.join([name, *cells])} |" for name, cells in rows.items()]
    lines[1:1] = ["| --- " * (1 + len(facts["measures"])) + "|"]
    return "\n".join(lines)


def _bits(values: dict[str, Any], sign: str = "") -> str:
    return shown(values["bits_per_byte"], values["bits_per_byte_interval"], sign=sign)


def _write_documents(
    path: Path,
    before: dict[Split, metrics.SumsByDocument],
    after: dict[Split, metrics.SumsByDocument],
) -> None:
    """Writes bytes, and nats before and after training, of each document that was read.

    `document` is its row in the corpus's file of the split.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    columns = {"split": pa.string(), "document": pa.int64(), "bytes": pa.int64()}
    schema = pa.schema({**columns, "nats_before": pa.float64(), "nats": pa.float64()})
    with pq.ParquetWriter(path, schema) as file:
        for split, sums in after.items():
            old, new = before[split].by_document(), sums.by_document()
            read = np.flatnonzero(new.bytes_D)
            numbers = [read, new.bytes_D[read], old.nats_D[read], new.nats_D[read]]
            file.write_table(pa.table([[split] * len(read), *numbers], schema=schema))


def _samples(config: Config, prompts: list[str], writer: Writer) -> str:
    new_tokens = min(config.evaluate.sample_tokens, causal_lm.num_positions(writer.model) - 1)
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
            text = " ".join("".join(writer.stream(prompt, sampling, window=True)).split())
            lines += [f"- {kind}: **{prompt}** {text}"]
        lines.append("")
    return "\n".join(lines)
