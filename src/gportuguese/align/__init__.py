"""The base model with embeddings for the new vocabulary, and where every row came from."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from gportuguese import model as models
from gportuguese import tokenizer
from gportuguese.align import bridge, focus, pieces, resources, rows, wechsel
from gportuguese.align.copying import is_literal
from gportuguese.align.report import draw_map, examples_markdown
from gportuguese.align.rows import Filler, Vocabularies
from gportuguese.align.vectors import AlignError
from gportuguese.artifacts import Artifact
from gportuguese.config import AlignConfig, Architecture, Config
from gportuguese.world import World, seed_everything

if TYPE_CHECKING:
    from transformers import PreTrainedModel

__all__ = ["AlignError", "align_embeddings", "build", "choose_method", "resource_files"]

log = logging.getLogger("gportuguese")
resource_files = resources.resource_files


def build(config: Config, inputs: dict[str, Artifact], out: Path, world: World) -> dict[str, Any]:
    """Writes the aligned model, the new tokenizer beside it, and where each row came from.

    That is `sources.parquet`, a line a row; `examples.md`, 20 of each kind with the source tokens
    nearest to them; and `map.png`, the rows of both languages in two dimensions.
    """
    target = tokenizer.load(inputs["tokenizer"].folder)
    base, section = config.align.base, config.align
    seed_everything(section.seed)
    if isinstance(base, Architecture):
        model = models.fresh_gpt2(base, len(target))
        method, reason, kinds = "random", "the base is an architecture", None
    else:
        model, source = models.load_base(base)
        tokenizer.check_byte_level(source, base)
        method, reason = choose_method(section)
        log.info("align: %s, since %s", method, reason)
        if method == "random":
            model = models.fresh_like(model, len(target), int(target.eos_token_id))
            kinds = None
        else:
            vocabularies = Vocabularies(source, target)
            texts = resources.Resources(section, inputs["tokens"], vocabularies)
            source_VD = model.get_input_embeddings().weight.detach().numpy().copy()
            kinds = align_embeddings(model, vocabularies, fillers(method, vocabularies, texts))
            target_VD = model.get_input_embeddings().weight.detach().numpy()
            (out / "examples.md").write_text(
                examples_markdown(vocabularies, kinds, source_VD, target_VD, section.seed),
                encoding="utf-8",
            )
            draw_map(vocabularies, kinds, source_VD, target_VD, out / "map.png")
    if config.tokens.block_size > models.num_positions(model):
        raise models.ModelError(
            f"tokens.block_size={config.tokens.block_size} is above the {models.num_positions(model)} "
            f"positions of {base}; lower it"
        )
    models.set_end_of_text(model, int(target.eos_token_id))
    target.model_max_length = models.num_positions(model)
    model.save_pretrained(out)
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
        "rows": {str(name): int(count) for name, count in zip(names, counts, strict=True)},
        "parameters": models.count_parameters(model.parameters()),
    }


def choose_method(section: AlignConfig) -> tuple[str, str]:
    """The method and why: what is asked for, or the best that what is given allows."""
    if section.method != "auto":
        return section.method, "align.method says so"
    if section.source_documents is not None:
        return "bridge", "text in the source language is given (align.source_documents)"
    return "focus", "no text in the source language is given (align.source_documents)"


def fillers(method: str, vocabularies: Vocabularies, texts: resources.Resources) -> list[Filler]:
    """The ways of a method to a row, each for the rows that those before it do not have."""
    section, seed = texts.section, texts.section.seed
    num_rows, _ = vocabularies.shape
    shared = rows.copied(vocabularies.source_ids)
    mean, drawn = rows.mean(num_rows), rows.gaussian(num_rows, seed)
    if method == "mean":
        return [shared, mean]
    if method == "gaussian":
        return [shared, drawn]
    if method == "focus":
        return [shared, focus.filler(vocabularies, texts.target, seed), drawn]
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
    literal = np.array([is_literal(token) for token in vocabularies.target_tokens])
    literal[vocabularies.target.all_special_ids] = True
    copied = rows.copied(np.where(literal, vocabularies.source_ids, -1))
    return [copied, bridge.filler(spaces), shared, cut, mean]


def align_embeddings(
    model: PreTrainedModel, vocabularies: Vocabularies, fillers: list[Filler]
) -> np.ndarray:
    """Gives `model` rows for the target's tokens, in place; returns the kind of each.

    An untied output head (and its bias) is treated as the embeddings are; a tied one stays tied.
    Source rows beyond the tokenizer's entries, such as padding, count for nothing.
    """
    num_target, num_source = vocabularies.shape
    modules = [model.get_input_embeddings()]
    head = model.get_output_embeddings()
    if head is not None and head.weight is not modules[0].weight:
        modules.append(head)
    new_rows = [
        {
            name: rows.fill(parameter[:num_source], fillers)
            for name, parameter in module.named_parameters(recurse=False)
        }
        for module in modules
    ]
    model.resize_token_embeddings(num_target, mean_resizing=False)
    resized = [model.get_input_embeddings(), model.get_output_embeddings()][: len(modules)]
    with torch.no_grad():
        for module, named_rows in zip(resized, new_rows, strict=True):
            for name, parameter in module.named_parameters(recurse=False):
                parameter.copy_(named_rows[name])
    return np.asarray(np.array([filler.kind for filler in fillers])[rows.assign(fillers)])


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
