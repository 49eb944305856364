"""The base model with embeddings for the new vocabulary, and where every row came from."""

from __future__ import annotations

import logging
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from gportuguese import metrics, tokenizer, tokens
from gportuguese import model as models
from gportuguese.align import bridge, focus, pieces, resources, rows, wechsel
from gportuguese.align.calibration import calibrate
from gportuguese.align.report import draw_map, examples_markdown
from gportuguese.align.rows import Filler, Vocabularies
from gportuguese.align.vectors import TooLittleError
from gportuguese.align_files import AlignError, candidates
from gportuguese.artifacts import Artifact
from gportuguese.base import ModelError
from gportuguese.config import Architecture, Config
from gportuguese.world import World, seed_everything

if TYPE_CHECKING:
    from transformers import PreTrainedModel

__all__ = ["AlignError", "align_embeddings", "build", "candidates"]

log = logging.getLogger("gportuguese")

_TRIAL_TOKENS = 8_192  # of training text, on which `auto` measures where each method starts


def build(config: Config, inputs: dict[str, Artifact], out: Path, world: World) -> dict[str, Any]:
    """Writes the aligned model, the new tokenizer beside it, and where each row came from.

    That is `sources.parquet`, a line a row; `examples.md`, 20 of each kind with the source tokens
    nearest to them; and `map.png`, the rows of both languages in two dimensions.
    """
    target = tokenizer.load(inputs["tokenizer"].folder)
    base, section = config.align.base, config.align
    divergences: list[float] = []
    seed_everything(section.seed)
    if isinstance(base, Architecture):
        model = models.fresh_gpt2(base, len(target))
        method, reason, kinds = "random", "the base is an architecture", None
    else:
        model, source = models.load_base(base)
        tokenizer.check_byte_level(source, base)
        _check_fits(model, source, base, config.tokens.block_size)
        method, reason = section.method, "align.method says so"
        if method == "random":
            model = models.fresh_like(model, len(target), int(target.eos_token_id))
            kinds = None
        else:
            vocabularies = Vocabularies(source, target)
            block_size = config.tokens.block_size
            texts = resources.Resources(section, inputs["tokens"], vocabularies, block_size)
            source_VD = model.get_input_embeddings().weight.detach().numpy().copy()
            source_rows = make_room(model, vocabularies)
            if method == "auto":
                method, reason, ways = choose(model, source_rows, texts)
            else:
                ways = fillers(method, texts)
            log.info("align: %s, since %s", method, reason)
            kinds = put_rows(model, source_rows, ways)
            divergences = calibrated(model, texts)
            target_VD = model.get_input_embeddings().weight.detach().numpy()
            (out / "examples.md").write_text(
                examples_markdown(vocabularies, kinds, source_VD, target_VD, section.seed),
                encoding="utf-8",
            )
            draw_map(vocabularies, kinds, source_VD, target_VD, out / "map.png")
    models.set_end_of_text(model, int(target.eos_token_id))
    target.model_max_length = models.num_positions(model)
    models.save(model, out)
    tokenizer.save(target, out)
    if kinds is None:
        kinds = np.full(len(target), "random")
        source_ids = np.full(len(target), -1)
    else:
        source_ids = vocabularies.source_ids
    _write_sources(out / "sources.parquet", target, kinds, source_ids)
    names, counts = np.unique(kinds, return_counts=True)
    return {
        "method": method,
        "reason": reason,
        "calibration": [round(nats, 4) for nats in divergences],
        "rows": {str(name): int(count) for name, count in zip(names, counts, strict=True)},
        "parameters": models.count_parameters(model.parameters()),
    }


def _check_fits(model: PreTrainedModel, source: Any, base: str, block_size: int) -> None:
    """Raises `ModelError` for a base that is too small for its tokenizer or for our blocks."""
    positions, num_rows = models.num_positions(model), len(model.get_input_embeddings().weight)
    if block_size > positions:
        raise ModelError(
            f"tokens.block_size={block_size} is above the {positions} positions of {base}; lower it"
        )
    if len(source) > num_rows:
        raise ModelError(
            f"the tokenizer of {base} has {len(source)} entries, but its model only {num_rows} rows; "
            "resize the model's embeddings and save it again"
        )


def choose(
    model: PreTrainedModel, source_rows: list[torch.Tensor], texts: resources.Resources
) -> tuple[str, str, list[Filler]]:
    """The method after which training text is the likeliest before any training, why, and its ways.

    Which it is depends on the base (docs/results/alignment.md). Changes the model's rows. A method
    that has too little to learn from is left out.
    """
    blocks = texts.blocks(_TRIAL_TOKENS)
    token_bytes = tokens.load_token_bytes(texts.tokens.folder, "cpu")
    losses, found = {}, {}
    for method in candidates(texts.section):
        try:
            found[method] = fillers(method, texts)
        except TooLittleError as error:
            log.info("align: not %s: %s", method, error)
            continue
        put_rows(model, source_rows, found[method])
        calibrated(model, texts)
        losses[method] = metrics.measure(model, blocks, token_bytes, nullcontext).loss
    best = min(losses, key=lambda method: losses[method])
    others = ", ".join(f"{method} {loss:.3f}" for method, loss in losses.items() if method != best)
    reason = f"training text starts at {losses[best]:.3f} nats per token with it ({others})"
    return best, reason, found[best]


def calibrated(model: PreTrainedModel, texts: resources.Resources) -> list[float]:
    """Calibrates the model if the section says so; literals keep the very rows that were copied."""
    num_tokens = texts.section.calibration_tokens
    if not num_tokens:
        return []
    is_literal_V = texts.vocabularies.literal_ids >= 0
    return calibrate(model, texts.blocks(num_tokens), texts.target_counts, is_literal_V)


def fillers(method: str, texts: resources.Resources) -> list[Filler]:
    """The ways of a method to a row, each for the rows that those before it do not have."""
    section, seed, vocabularies = texts.section, texts.section.seed, texts.vocabularies
    num_rows, _ = vocabularies.shape
    shared = rows.copied(vocabularies.source_ids)
    mean, drawn = rows.mean(num_rows), rows.gaussian(num_rows, seed)
    if method == "mean":
        return [shared, mean]
    if method == "gaussian":
        return [shared, drawn]
    if method == "focus":
        return [shared, focus.filler(vocabularies, texts.target, seed, section.sharpness), drawn]
    if method == "wechsel":
        near = wechsel.filler(
            vocabularies,
            wechsel.words_of(texts.target, vocabularies.target, section.target_vectors, seed),
            wechsel.words_of(texts.source, vocabularies.source, section.source_vectors, seed),
            texts.dictionary(required=True),
        )
        return [shared, near, drawn]
    cut = pieces.filler(vocabularies, section.piece_weights == "length")
    if method == "pieces":
        return [shared, cut, mean]
    spaces = bridge.make_spaces(
        vocabularies, texts.target, texts.source, texts.dictionary(required=False), seed
    )
    return [rows.copied(vocabularies.literal_ids), bridge.filler(spaces), shared, cut, mean]


def align_embeddings(
    model: PreTrainedModel, vocabularies: Vocabularies, fillers: list[Filler]
) -> np.ndarray:
    """Gives `model` rows for the target's tokens, in place; returns the kind of each.

    An untied output head is treated as the embeddings are, and so is any head's bias; a tied head
    stays tied.
    Source rows beyond the tokenizer's entries, such as padding, count for nothing.
    """
    return put_rows(model, make_room(model, vocabularies), fillers)


def make_room(model: PreTrainedModel, vocabularies: Vocabularies) -> list[torch.Tensor]:
    """Resizes the model to the target's tokens; returns the source rows of what has a row a token."""
    num_target, num_source = vocabularies.shape
    source_rows = [p[:num_source].detach().clone() for p in _row_parameters(model)]
    model.resize_token_embeddings(num_target, mean_resizing=False)
    return source_rows


@torch.no_grad()
def put_rows(
    model: PreTrainedModel, source_rows: list[torch.Tensor], fillers: list[Filler]
) -> np.ndarray:
    """Fills the rows of a model that `make_room` resized; returns the kind of each."""
    for parameter, source in zip(_row_parameters(model), source_rows, strict=True):
        parameter.copy_(rows.fill(source, fillers))
    return np.asarray(np.array([filler.kind for filler in fillers])[rows.assign(fillers)])


def _row_parameters(model: PreTrainedModel) -> list[torch.nn.Parameter]:
    """The embeddings, and of the output head what is not the embeddings: each has a row a token."""
    embeddings, head = model.get_input_embeddings(), model.get_output_embeddings()
    modules = [embeddings] if head is None else [embeddings, head]
    found = [p for module in modules for p in module.parameters(recurse=False)]
    return list({id(parameter): parameter for parameter in found}.values())


def _write_sources(path: Path, target: Any, kinds: np.ndarray, source_ids: np.ndarray) -> None:
    ids = range(len(kinds))
    copied = zip(kinds.tolist(), source_ids.tolist(), strict=True)
    table = pa.table(
        {
            "token_id": list(ids),
            "token": target.convert_ids_to_tokens(ids),
            "bytes": tokenizer.bytes_of_tokens(target),
            "row": kinds.tolist(),
            "source_id": [id if kind == "copied" else None for kind, id in copied],
        }
    )
    pq.write_table(table, path)
