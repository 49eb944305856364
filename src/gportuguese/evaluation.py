"""The evaluate stage: measures on the held-out sets, the epoch table, curves and samples."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Iterable
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import torch

from gportuguese import atomic, causal_lm, corpus, epochs, metrics
from gportuguese.artifacts import Artifact
from gportuguese.config import Config, UserError, sources_of
from gportuguese.corpus import Split, prompts_of
from gportuguese.generation import Sampling, Writer
from gportuguese.precision import autocast
from gportuguese.progress import tracked
from gportuguese.tokens import (
    BlockLoader,
    bytes_per_token,
    joined_ids,
    load_ids,
    load_token_bytes,
)
from gportuguese.world import World, keep_freed_memory

log = logging.getLogger("gportuguese")


def build(config: Config, inputs: dict[str, Artifact], out: Path, world: World) -> dict[str, Any]:
    """Writes `report.json`, `epochs.md`, `epochs.csv`, `curves.png` and `samples.md`.

    Of several sources, `facts["measures"]` are those of the first, and `facts["sources"]` the bits per
    byte of the others.
    """
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
    if others := [str(source.name) for source in sources_of(config.corpus)[1:]]:
        facts["sources"] = _measure_sources(config, inputs["corpus"], others, writer)
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


def _measure_sources(
    config: Config, stored: Artifact, names: list[str], writer: Writer
) -> list[dict[str, Any]]:
    """Bits per byte on the validation text of sources: of the base model, and after training.

    Each model reads the same documents with its own tokenizer.
    """
    texts = {name: _validation_texts(config, stored, name, writer) for name in names}
    measured = {name: texts[name] for name in names if texts[name]}
    for name in names:
        if name not in measured:
            log.warning("source %s has no validation document, so it is not measured", name)

    def measure(writer: Writer, model_name: str) -> dict[str, float]:
        found = {}
        for name, documents in measured.items():
            loader, token_bytes = load_texts(
                writer, documents, config.tokens.block_size, config.runtime.micro_batch_size
            )
            context = partial(autocast, writer.device, config.train.precision)
            title = f"evaluate: {name}, {model_name}"
            with tracked(title, loader, len(loader)) as batches:
                measures = metrics.measure(writer.model, batches, token_bytes, context)
            found[name] = measures.bits_per_byte
        return found

    after, before = measure(writer, "trained"), {}
    base = config.align.base
    if measured and isinstance(base, str) and config.align.method != "random":
        model, tokenizer = causal_lm.load_with_tokenizer(base)
        before = measure(Writer(model.to(writer.device), tokenizer, writer.device), "base")
    return [{"name": n, "before": before.get(n), "after": after[n]} for n in measured]


def _validation_texts(config: Config, stored: Artifact, name: str, writer: Writer) -> list[str]:
    """The validation documents of a source: all, or about `evaluate.tokens` spread over them."""
    texts = [text for batch in corpus.load(stored, "valid", source=name) for text in batch]
    if not texts or config.evaluate.tokens is None:
        return texts
    num_tokens = len(joined_ids(writer.tokenizer, texts))
    return texts[:: -(-num_tokens // config.evaluate.tokens)]


def load_texts(
    writer: Writer, texts: Iterable[str], block_size: int, batch_size: int
) -> tuple[BlockLoader, torch.Tensor]:
    """Blocks of documents for `metrics.measure`, and the bytes of each token on the device, `[V]`.

    Blocks are shorter if the text does not fill one. Raises `UserError` if there is nothing to predict.
    """
    ids = joined_ids(writer.tokenizer, texts)
    token_bytes = torch.from_numpy(bytes_per_token(writer.tokenizer)).to(writer.device)
    targets = torch.from_numpy(ids[1:]).to(writer.device)  # the first token is only read
    if not token_bytes[targets].any():
        raise UserError("the texts have fewer than two tokens, so there is nothing to predict")
    return BlockLoader(ids, max(min(block_size, len(ids) - 1), 1), batch_size), token_bytes


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
