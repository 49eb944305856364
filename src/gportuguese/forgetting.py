"""What training made a model forget: bits per byte of the sources besides the first, before and after."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import asdict
from functools import partial
from itertools import chain, islice
from typing import Any

import torch

from gportuguese import causal_lm, corpus, metrics
from gportuguese.artifacts import Artifact
from gportuguese.config import Config, UserError, sources_of
from gportuguese.generation import Writer
from gportuguese.intervals import shown
from gportuguese.precision import autocast
from gportuguese.progress import tracked
from gportuguese.tokens import BlockLoader, bytes_per_token, encoded, joined_ids

log = logging.getLogger("gportuguese")


def measure_sources(config: Config, artifact: Artifact, trained: Writer) -> list[dict[str, Any]]:
    """Measures on the validation documents of each source besides the first.

    `before` is the base model with its own tokenizer; None if there is none, or if its tokenizer has no
    end-of-text token. Both models read the same documents, about `evaluate.tokens` of each source,
    spread over them.
    """
    texts: dict[str, list[str]] = {}
    for source in sources_of(config.corpus)[1:]:
        name = str(source.name)
        if found := _validation_texts(config, artifact, name, trained):
            texts[name] = found
        else:
            log.warning("source %s has no validation document, so it is not measured", name)
    after = _measure(config, texts, trained, "")
    before = _measure_base(config, texts, trained.device) if texts else {}
    return [_facts(name, before.get(name), after[name]) for name in texts]


def _measure_base(
    config: Config, texts: dict[str, list[str]], device: str
) -> dict[str, metrics.SumsByDocument]:
    """Measures the base model; empty if that is not possible."""
    base = config.align.base
    if not isinstance(base, str) or config.align.method == "random":
        return {}
    model, tokenizer = causal_lm.load_with_tokenizer(base)
    if tokenizer.eos_token_id is None:
        log.warning(
            "the tokenizer of %s has no end-of-text token (eos_token), so the base model is not "
            "measured on the other sources",
            base,
        )
        return {}
    return _measure(config, texts, Writer(model.to(device), tokenizer, device), "base model, ")


def _validation_texts(config: Config, artifact: Artifact, name: str, writer: Writer) -> list[str]:
    load, step = partial(corpus.load, artifact, "valid", source=name), 1
    if config.evaluate.tokens is not None:  # counted apart: the texts need not fit into memory
        num_tokens = sum(len(ids) for ids, _ in encoded(writer.tokenizer, load()))
        step = max(1, -(-num_tokens // config.evaluate.tokens))
    return list(islice(chain.from_iterable(load()), 0, None, step))


def _measure(
    config: Config, texts: dict[str, list[str]], writer: Writer, when: str
) -> dict[str, metrics.SumsByDocument]:
    found = {}
    context = partial(autocast, writer.device, config.train.precision)
    for name, documents in texts.items():
        block_size, batch_size = config.tokens.block_size, config.runtime.micro_batch_size
        sums = found[name] = sums_over(writer, documents, block_size, batch_size)
        with tracked(f"evaluate: {when}{name}", sums.loader, len(sums.loader)) as batches:
            metrics.measure(writer.model, batches, sums, context)
    return found


def _facts(
    name: str, before: metrics.SumsByDocument | None, after: metrics.SumsByDocument
) -> dict[str, Any]:
    return {
        "name": name,
        "before": before and asdict(before.evaluation()),
        "after": asdict(after.evaluation()),
        "change": before and metrics.change(before, after),
    }


def sums_over(
    writer: Writer, texts: Iterable[str], block_size: int, batch_size: int
) -> metrics.SumsByDocument:
    """Empty sums over documents, with the loader of their blocks, for `metrics.measure`.

    Blocks are shorter if the text does not fill one. Raises `UserError` if there is nothing to predict.
    """
    ids, offsets = joined_ids(writer.tokenizer, texts)
    token_bytes = bytes_per_token(writer.tokenizer)
    if not token_bytes[ids[1:]].any():  # the first token is only read
        raise UserError("the texts have fewer than two tokens, so there is nothing to predict")
    loader = BlockLoader(ids, max(min(block_size, len(ids) - 1), 1), batch_size)
    on_device = torch.from_numpy(token_bytes).to(writer.device)
    return metrics.SumsByDocument(on_device, loader, offsets)


def sources_markdown(sources: list[dict[str, Any]]) -> str:
    """A column for each source; bits per byte with 95 % intervals."""
    lines = [
        f"| bits per byte | {' | '.join(each['name'] for each in sources)} |",
        "| --- " * (1 + len(sources)) + "|",
    ]
    for title, key, sign in (
        ("base model", "before", ""),
        ("after training", "after", ""),
        ("change", "change", "+"),
    ):
        cells = [
            shown(found["bits_per_byte"], found["bits_per_byte_interval"], sign=sign)
            if (found := each[key])
            else "-"
            for each in sources
        ]
        lines.append(f"| {title} | {' | '.join(cells)} |")
    return "\n".join(lines)
