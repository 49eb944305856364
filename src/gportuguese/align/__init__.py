"""The base model with embeddings for the new vocabulary, and where every row came from."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch import nn

from gportuguese import model as models
from gportuguese import tokenizer
from gportuguese.align.copying import mean_rows, shared_rows
from gportuguese.artifacts import Artifact
from gportuguese.config import Architecture, Config
from gportuguese.world import World, seed_everything

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


def build(config: Config, inputs: dict[str, Artifact], out: Path, world: World) -> dict[str, Any]:
    """Writes the aligned model, the new tokenizer beside it, and `sources.parquet`."""
    target = tokenizer.load(inputs["tokenizer"].folder)
    base, method = config.align.base, config.align.method
    seed_everything(config.align.seed)
    if isinstance(base, Architecture):
        model = models.fresh_gpt2(base, len(target))
        source_ids = torch.full((len(target),), -1)
    else:
        model, source = models.load_base(base)
        tokenizer.check_byte_level(source, base)
        if method == "random":
            model = models.fresh_like(model, len(target), int(target.eos_token_id))
            source_ids = torch.full((len(target),), -1)
        else:
            source_ids = align_embeddings(model, source, target)
    if config.tokens.block_size > models.num_positions(model):
        raise models.ModelError(
            f"tokens.block_size={config.tokens.block_size} is above the {models.num_positions(model)} "
            f"positions of {base}; lower it"
        )
    models.set_end_of_text(model, int(target.eos_token_id))
    target.model_max_length = models.num_positions(model)
    model.save_pretrained(out)
    tokenizer.save(target, out)
    _write_sources(out / "sources.parquet", target, source_ids, method)
    kept = int((source_ids >= 0).sum())
    return {
        "method": method,
        "rows": len(target),
        "kept": kept,
        "filled": len(target) - kept,
        "parameters": models.count_parameters(model.parameters()),
    }


def align_embeddings(
    model: PreTrainedModel, source: PreTrainedTokenizerBase, target: PreTrainedTokenizerBase
) -> torch.Tensor:
    """Gives `model` rows for `target`'s tokens, in place; returns `shared_rows`.

    An untied output head (and its bias) is treated as the embeddings are; a tied one stays tied.
    Source rows beyond the tokenizer's entries, such as padding, count for nothing.
    """
    source_tokens = tokenizer.bytes_of_tokens(source)
    source_ids = shared_rows(source_tokens, tokenizer.bytes_of_tokens(target))
    # end of text means the same in both, whatever it is called
    if source.eos_token_id is not None:
        source_ids[target.eos_token_id] = source.eos_token_id
    modules = [model.get_input_embeddings()]
    head = model.get_output_embeddings()
    if head is not None and head.weight is not modules[0].weight:
        modules.append(head)
    new_rows = [
        {
            name: mean_rows(parameter.data[: len(source_tokens)], source_ids)
            for name, parameter in module.named_parameters(recurse=False)
        }
        for module in modules
    ]
    model.resize_token_embeddings(len(target), mean_resizing=False)
    resized = [model.get_input_embeddings(), model.get_output_embeddings()][: len(modules)]
    with torch.no_grad():
        for module, rows in zip(resized, new_rows, strict=True):
            _set_rows(module, rows)
    return source_ids


def _set_rows(module: nn.Module, rows: dict[str, torch.Tensor]) -> None:
    for name, parameter in module.named_parameters(recurse=False):
        parameter.copy_(rows[name])


def _write_sources(
    path: Path, target: PreTrainedTokenizerBase, source_ids: torch.Tensor, method: str
) -> None:
    ids = source_ids.tolist()
    table = pa.table(
        {
            "token_id": list(range(len(ids))),
            "token": target.convert_ids_to_tokens(range(len(ids))),
            "bytes": tokenizer.bytes_of_tokens(target),
            "row": ["copied" if id >= 0 else method for id in ids],
            "source_id": [id if id >= 0 else None for id in ids],
        }
    )
    pq.write_table(table, path)
