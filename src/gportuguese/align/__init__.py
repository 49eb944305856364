"""The align stage: gives the base model an embedding row for every token of the new vocabulary."""

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

from gportuguese import causal_lm, metrics, tokenizer, tokens, tying
from gportuguese.align import bridge, focus, pieces, rows, wechsel
from gportuguese.align.calibration import calibrate
from gportuguese.align.learning import learn_rows
from gportuguese.align.report import draw_map, examples_markdown
from gportuguese.align.resources import Resources
from gportuguese.align.rows import Filler, Vocabularies
from gportuguese.align.vectors import TooLittleError
from gportuguese.align_files import SOURCES, AlignError, candidates
from gportuguese.artifacts import Artifact
from gportuguese.base import ModelError
from gportuguese.config import METHODS, Architecture, Config
from gportuguese.world import World, seed_everything

if TYPE_CHECKING:
    from transformers import PreTrainedModel

__all__ = ["AlignError", "build", "candidates"]

log = logging.getLogger("gportuguese")

_TRIAL_TOKENS = 8_192  # training tokens on which `auto` compares the methods


def build(config: Config, inputs: dict[str, Artifact], out: Path, world: World) -> dict[str, Any]:
    """Writes the aligned model, the new tokenizer, and where each embedding row comes from.

    `sources.parquet` has one line per row. Unless all rows are random, `examples.md` shows 20 tokens
    of each kind with their nearest source tokens, and `map.png` plots the rows of both languages.
    """
    target = tokenizer.load(inputs["tokenizer"].folder)
    base, section = config.align.base, config.align
    divergences: list[float] = []
    learnt: dict[str, list[float]] = {}
    seed_everything(section.seed)
    if isinstance(base, Architecture):
        was_tied = True
        model = causal_lm.fresh_gpt2(base, len(target), is_tied=section.tie == "keep")
        method, reason, kinds = "random", "the base is an architecture", None
    else:
        model, source = causal_lm.load_with_tokenizer(base)
        tokenizer.check_byte_level(source, base)
        _check_fits(model, source, base, config.tokens.block_size)
        was_tied = tying.is_tied(model)
        if section.tie == "untie":  # before calibration, which then updates the head alone
            tying.untie(model, base)
        if section.head_tokens:
            tying.check_untied(model.config, base)
        method, reason = section.method, "set by align.method"
        if method == "random":
            model = causal_lm.fresh_like(model, len(target), int(target.eos_token_id))
            kinds = None
        else:
            vocabularies = Vocabularies(source, target, config.tokenizer.method == "extend")
            block_size = config.tokens.block_size
            resources = Resources(section, inputs["tokens"], vocabularies, block_size)
            source_VD = model.get_input_embeddings().weight.detach().numpy().copy()
            source_rows = make_room(model, vocabularies)
            if method == "auto":
                method, reason, chosen = choose(model, source_rows, resources)
            else:
                chosen = fillers(method, resources)
            log.info("align: %s, %s", method, reason)
            kinds = put_rows(model, source_rows, chosen)
            divergences = _calibrate(model, resources)
            learnt = learn_rows(
                model, source_rows[0], kinds == "copied", resources, out, config, world
            )
            if vocabularies.is_extension:
                keep_rows(model, source_rows, vocabularies.source_ids)
            target_VD = model.get_input_embeddings().weight.detach().numpy()
            (out / "examples.md").write_text(
                examples_markdown(vocabularies, kinds, source_VD, target_VD, section.seed),
                encoding="utf-8",
            )
            title = f"Rows of the embedding matrix after align.method={method}"
            draw_map(vocabularies, kinds, source_VD, target_VD, title, out / "map.png")
    causal_lm.set_end_of_text(model, int(target.eos_token_id))
    target.model_max_length = causal_lm.num_positions(model)
    causal_lm.save(model, out)
    tokenizer.save(target, out)
    if kinds is None:
        kinds = np.full(len(target), "random")
        source_ids = np.full(len(target), -1)
    else:
        source_ids = vocabularies.source_ids
    _write_sources(out / SOURCES, target, kinds, source_ids)
    names, counts = np.unique(kinds, return_counts=True)
    return {
        "method": method,
        "reason": reason,
        "calibration": [round(nats, 4) for nats in divergences],
        **learnt,
        "rows": {str(name): int(count) for name, count in zip(names, counts, strict=True)},
        "parameters": causal_lm.count_parameters(model.parameters()),
        "untied_parameters": _untied_parameters(model, was_tied, section.tie),
    }


def _untied_parameters(model: PreTrainedModel, was_tied: bool, tie: str) -> int:
    """The number of parameters that untying the output head added; logs it."""
    if tie == "keep":
        return 0
    if not was_tied:
        log.info("align: the base's output head is untied already; calibration moves all its rows")
        return 0
    number = int(model.get_output_embeddings().weight.numel())
    log.info("align: the output head is untied and has %s parameters of its own", f"{number:,}")
    return number


def _check_fits(model: PreTrainedModel, source: Any, base: str, block_size: int) -> None:
    """Raises `ModelError` if the base lacks rows for its tokenizer or positions for our blocks."""
    causal_lm.check_block_size(block_size, model.config, base)
    num_rows = len(model.get_input_embeddings().weight)
    num_ids = tokenizer.num_ids(source)
    if num_ids > num_rows:
        raise ModelError(
            f"the tokenizer of {base} has {num_ids} entries, but its model has only {num_rows} "
            "rows; resize the model's embeddings and save it again"
        )


def choose(
    model: PreTrainedModel, source_rows: list[torch.Tensor], resources: Resources
) -> tuple[str, str, list[Filler]]:
    """The method with the lowest loss before training, the reason in words, and its fillers.

    The best method depends on the base (docs/results/alignment.md). Changes the model's rows. Skips
    methods whose text or dictionary is too small.
    """
    blocks = resources.blocks(_TRIAL_TOKENS)
    token_bytes = tokens.load_token_bytes(resources.tokens.folder, "cpu")
    losses, found = {}, {}
    for method in candidates(resources.section):
        try:
            found[method] = fillers(method, resources)
        except TooLittleError as error:
            log.info("align: skipping %s: %s", method, error)
            continue
        put_rows(model, source_rows, found[method])
        _calibrate(model, resources)
        sums = metrics.TokenSums(token_bytes)
        losses[method] = metrics.measure(model, blocks, sums, nullcontext).loss
    best = min(losses, key=lambda method: losses[method])
    others = ", ".join(f"{method} {loss:.3f}" for method, loss in losses.items() if method != best)
    reason = f"lowest loss on training text: {losses[best]:.3f} nats per token ({others})"
    return best, reason, found[best]


def _calibrate(model: PreTrainedModel, resources: Resources) -> list[float]:
    """Calibrates the model if `calibration_tokens` is not 0.

    Literals keep their copied rows, except in the head that `tie: untie` asks for: there the frequency
    of a comma can be learnt without changing its embedding. In an extension, all old tokens keep theirs.
    """
    num_tokens = resources.section.calibration_tokens
    if not num_tokens:
        return []
    vocabularies = resources.vocabularies
    is_fixed_V = (vocabularies.literal_ids >= 0) & (resources.section.tie == "keep")
    if vocabularies.is_extension:
        is_fixed_V = vocabularies.source_ids >= 0
    return calibrate(model, resources.blocks(num_tokens), resources.target_counts, is_fixed_V)


def fillers(method: str, resources: Resources) -> list[Filler]:
    """The fillers of a method, in order; each fills rows that the earlier ones left empty.

    In an extension, the rows of all old tokens are filled first, by copying them.
    """
    first = ("shared",) if resources.vocabularies.is_extension else ()
    return [FILLERS[kind](resources) for kind in (*first, *METHODS[method].fills)]


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
"""For each kind of row in `METHODS`, the function that makes its filler."""


def make_room(model: PreTrainedModel, vocabularies: Vocabularies) -> list[torch.Tensor]:
    """Resizes the model to the target vocabulary; returns the source rows of each parameter."""
    num_target, num_source = vocabularies.shape
    source_rows = [p[:num_source].detach().clone() for p in causal_lm.row_parameters(model)]
    model.resize_token_embeddings(num_target, mean_resizing=False)
    return source_rows


@torch.no_grad()
def put_rows(
    model: PreTrainedModel, source_rows: list[torch.Tensor], fillers: list[Filler]
) -> np.ndarray:
    """Fills the rows of a model that `make_room` resized; returns the kind of each row."""
    for parameter, source in zip(causal_lm.row_parameters(model), source_rows, strict=True):
        parameter.copy_(rows.fill(source, fillers))
    return np.asarray(np.array([filler.kind for filler in fillers])[rows.assign(fillers)])


@torch.no_grad()
def keep_rows(
    model: PreTrainedModel, source_rows: list[torch.Tensor], source_ids: np.ndarray
) -> None:
    """Copies the rows of old tokens again, because adding 0 to a row turns -0.0 into 0.0."""
    ids = torch.from_numpy(np.flatnonzero(source_ids >= 0))
    for parameter, source in zip(causal_lm.row_parameters(model), source_rows, strict=True):
        parameter[ids] = source[source_ids[ids]]


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
