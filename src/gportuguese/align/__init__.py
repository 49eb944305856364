"""The base model with embeddings for the new vocabulary, and where every row came from."""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from gportuguese import causal_lm, metrics, tokenizer, tokens
from gportuguese.align import bridge, focus, pieces, rows, wechsel
from gportuguese.align.calibration import calibrate
from gportuguese.align.report import draw_map, examples_markdown
from gportuguese.align.resources import Resources
from gportuguese.align.rows import Filler, Vocabularies
from gportuguese.align.vectors import TooLittleError
from gportuguese.align_files import AlignError, candidates
from gportuguese.artifacts import Artifact
from gportuguese.base import ModelError
from gportuguese.config import METHODS, Architecture, Config
from gportuguese.world import World, seed_everything

if TYPE_CHECKING:
    from transformers import PreTrainedModel

__all__ = ["AlignError", "build", "candidates"]

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
        model = causal_lm.fresh_gpt2(base, len(target))
        method, reason, kinds = "random", "the base is an architecture", None
    else:
        model, source = causal_lm.load_with_tokenizer(base)
        tokenizer.check_byte_level(source, base)
        _check_fits(model, source, base, config.tokens.block_size)
        method, reason = section.method, "align.method says so"
        if method == "random":
            model = causal_lm.fresh_like(model, len(target), int(target.eos_token_id))
            kinds = None
        else:
            vocabularies = Vocabularies(source, target)
            block_size = config.tokens.block_size
            resources = Resources(section, inputs["tokens"], vocabularies, block_size)
            source_VD = model.get_input_embeddings().weight.detach().numpy().copy()
            source_rows = make_room(model, vocabularies)
            if method == "auto":
                method, reason, ways = choose(model, source_rows, resources)
            else:
                ways = fillers(method, resources)
            log.info("align: %s, since %s", method, reason)
            kinds = put_rows(model, source_rows, ways)
            divergences = calibrated(model, resources)
            target_VD = model.get_input_embeddings().weight.detach().numpy()
            (out / "examples.md").write_text(
                examples_markdown(vocabularies, kinds, source_VD, target_VD, section.seed),
                encoding="utf-8",
            )
            draw_map(vocabularies, kinds, source_VD, target_VD, out / "map.png")
    causal_lm.set_end_of_text(model, int(target.eos_token_id))
    target.model_max_length = causal_lm.num_positions(model)
    causal_lm.save(model, out)
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
        "parameters": causal_lm.count_parameters(model.parameters()),
    }


def _check_fits(model: PreTrainedModel, source: Any, base: str, block_size: int) -> None:
    """Raises `ModelError` for a base that is too small for its tokenizer or for our blocks."""
    causal_lm.check_block_size(block_size, model.config, base)
    num_rows = len(model.get_input_embeddings().weight)
    if len(source) > num_rows:
        raise ModelError(
            f"the tokenizer of {base} has {len(source)} entries, but its model only {num_rows} rows; "
            "resize the model's embeddings and save it again"
        )


def choose(
    model: PreTrainedModel, source_rows: list[torch.Tensor], resources: Resources
) -> tuple[str, str, list[Filler]]:
    """The method after which training text is the likeliest before any training, why, and its ways.

    Which it is depends on the base (docs/results/alignment.md). Changes the model's rows. A method
    that has too little to learn from is left out.
    """
    blocks = resources.blocks(_TRIAL_TOKENS)
    token_bytes = tokens.load_token_bytes(resources.tokens.folder, "cpu")
    losses, found = {}, {}
    for method in candidates(resources.section):
        try:
            found[method] = fillers(method, resources)
        except TooLittleError as error:
            log.info("align: not %s: %s", method, error)
            continue
        put_rows(model, source_rows, found[method])
        calibrated(model, resources)
        losses[method] = metrics.measure(model, blocks, token_bytes, nullcontext).loss
    best = min(losses, key=lambda method: losses[method])
    others = ", ".join(f"{method} {loss:.3f}" for method, loss in losses.items() if method != best)
    reason = f"training text starts at {losses[best]:.3f} nats per token with it ({others})"
    return best, reason, found[best]


def calibrated(model: PreTrainedModel, resources: Resources) -> list[float]:
    """Calibrates the model if the section says so; literals keep the very rows that were copied."""
    num_tokens = resources.section.calibration_tokens
    if not num_tokens:
        return []
    is_literal_V = resources.vocabularies.literal_ids >= 0
    return calibrate(model, resources.blocks(num_tokens), resources.target_counts, is_literal_V)


def fillers(method: str, resources: Resources) -> list[Filler]:
    """The fillers of a method in turn; each fills the rows that those before it left."""
    return [FILLERS[kind](resources) for kind in METHODS[method].fills]


def _focus(resources: Resources) -> Filler:
    section = resources.section
    return focus.filler(resources.vocabularies, resources.target, section.seed, section.sharpness)


def _wechsel(resources: Resources) -> Filler:
    section, vocabularies = resources.section, resources.vocabularies
    target = wechsel.words_of(
        resources.target, vocabularies.target, section.target_vectors, section.seed
    )
    source = wechsel.words_of(
        resources.source, vocabularies.source, section.source_vectors, section.seed
    )
    return wechsel.filler(vocabularies, target, source, resources.dictionary())


def _bridge(resources: Resources) -> Filler:
    spaces = bridge.make_spaces(
        resources.vocabularies,
        resources.target,
        resources.source,
        resources.dictionary(),
        resources.section.seed,
    )
    return bridge.filler(spaces)


FILLERS: dict[str, Callable[[Resources], Filler]] = {
    "shared": lambda resources: rows.copied(resources.vocabularies.source_ids),
    "literal": lambda resources: rows.copied(resources.vocabularies.literal_ids),
    "mean": lambda resources: rows.mean(resources.vocabularies.shape[0]),
    "gaussian": lambda resources: rows.gaussian(
        resources.vocabularies.shape[0], resources.section.seed
    ),
    "pieces": lambda resources: pieces.filler(resources.vocabularies),
    "focus": _focus,
    "wechsel": _wechsel,
    "bridge": _bridge,
}
"""How each kind of row in `METHODS` is made."""


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
