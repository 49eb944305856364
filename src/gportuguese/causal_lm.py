"""Causal language models: loading a base, saving, and the four parameter groups."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from safetensors import SafetensorError
from torch import nn
from torch.utils.checkpoint import checkpoint

from gportuguese.base import ModelError, locate_base
from gportuguese.config import Architecture, Config
from gportuguese.tokenizer import read_files, why_not_loaded
from gportuguese.world import World

if TYPE_CHECKING:
    from transformers import GPT2Config, PreTrainedModel, PreTrainedTokenizerBase


class ParameterGroups(NamedTuple):
    """The parameters of a decoder, each once; a phase trains the last one to four groups.

    The first three groups hold a third of the blocks each, from the input upwards.
    """

    lower_blocks: list[nn.Parameter]
    middle_blocks: list[nn.Parameter]
    upper_blocks: list[nn.Parameter]
    outside_blocks: list[nn.Parameter]
    """Embeddings, positions, the final norm, and the head unless it is tied."""


NUM_GROUPS = len(ParameterGroups._fields)


@contextmanager
def _without_bars() -> Iterator[None]:
    """Turns off transformers' progress bars, then restores the caller's setting."""
    from transformers.utils import logging

    was_enabled, bar = logging.is_progress_bar_enabled(), None
    logging.disable_progress_bar()
    with suppress(ImportError, AttributeError):  # private names, which transformers may remove
        from transformers import modeling_gguf_pytorch_utils as gguf

        bar = gguf.tqdm
        gguf.tqdm = partial(bar, disable=True)  # this bar ignores the setting
    try:
        yield
    finally:
        if bar is not None:
            gguf.tqdm = bar
        if was_enabled:
            logging.enable_progress_bar()


@_without_bars()
def load_with_tokenizer(base: str) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Model (float32, on the CPU) and tokenizer of a folder, a GGUF file or a Hub model."""
    from transformers import AutoModelForCausalLM

    path = locate_base(base, download=True)
    assert path is not None
    try:
        tokenizer = read_files(path)
        if path.is_dir():
            model, info = AutoModelForCausalLM.from_pretrained(
                path, dtype=torch.float32, output_loading_info=True, trust_remote_code=False
            )
            if info["missing_keys"]:  # transformers would use random weights for them
                raise ValueError(f"its weights lack {', '.join(sorted(info['missing_keys'])[:3])}")
        else:
            model = _load_gguf(path)
    except ImportError as error:
        hint = "" if path.is_dir() else "; for GGUF: pip install 'gportuguese[gguf]'"
        raise ModelError(f"{base}: {error}{hint}") from error
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        reason = why_not_loaded(error)
        raise ModelError(
            f"{base} is not a complete causal LM with a tokenizer: {reason}"
        ) from error
    vars(model.config).pop("auto_map", None)  # names code that is not saved with the model
    return model, tokenizer


def _load_gguf(path: Path) -> PreTrainedModel:
    """The model of a GGUF file as a plain float32 model.

    transformers marks it as quantized and therefore refuses to train or save it.
    """
    import transformers

    options = {}
    if hasattr(transformers, "GgufConfig"):  # since 5.2x weights may stay packed
        options["quantization_config"] = transformers.GgufConfig(dequantize=True)
    model = transformers.AutoModelForCausalLM.from_pretrained(
        path.parent, gguf_file=path.name, dtype=torch.float32, trust_remote_code=False, **options
    )
    tree = model.config.to_dict()
    tree.pop("quantization_config", None)
    config = type(model.config).from_dict(tree)
    plain = transformers.AutoModelForCausalLM.from_config(
        config, dtype=torch.float32, trust_remote_code=False
    )
    plain.load_state_dict(model.state_dict())
    return plain


def fresh_gpt2(
    architecture: Architecture, vocab_size: int, *, is_tied: bool = True
) -> PreTrainedModel:
    """A GPT-2 of the given shape with GPT-2's random initialisation."""
    from transformers import GPT2LMHeadModel

    return GPT2LMHeadModel(gpt2_config(architecture, vocab_size, is_tied=is_tied))


def gpt2_config(architecture: Architecture, vocab_size: int, *, is_tied: bool = True) -> GPT2Config:
    """The Hugging Face config of a GPT-2 of the given shape."""
    from transformers import GPT2Config

    return GPT2Config(
        vocab_size=vocab_size,
        n_positions=architecture.positions,
        n_embd=architecture.width,
        n_layer=architecture.layers,
        n_head=architecture.heads,
        resid_pdrop=architecture.dropout,
        embd_pdrop=architecture.dropout,
        attn_pdrop=architecture.dropout,
        tie_word_embeddings=is_tied,
        bos_token_id=vocab_size - 1,
        eos_token_id=vocab_size - 1,
    )


def fresh_like(model: PreTrainedModel, vocab_size: int, end_of_text: int) -> PreTrainedModel:
    """A model of the same architecture with random weights and another vocabulary."""
    from transformers import AutoModelForCausalLM

    config = type(model.config).from_dict(model.config.to_dict())
    config.vocab_size = vocab_size
    set_special_ids(config, end_of_text)
    return AutoModelForCausalLM.from_config(config, dtype=torch.float32, trust_remote_code=False)


def set_special_ids(config: Any, end_of_text: int) -> None:
    """Sets the special ids of a config to the tokenizer's.

    The padding id is None: models like Llama give the row of a padding id no gradient, so end of
    text would never be learnt.
    """
    config.bos_token_id = config.eos_token_id = end_of_text
    config.pad_token_id = None


def set_end_of_text(model: PreTrainedModel, end_of_text: int) -> None:
    """Sets the special ids of a model; only generation has a padding id, the end of text."""
    for config in (model.config, model.generation_config):
        set_special_ids(config, end_of_text)
    model.generation_config.pad_token_id = end_of_text


@_without_bars()
def load(folder: Path) -> PreTrainedModel:
    """The model of one of our folders, float32, on the CPU."""
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.float32, trust_remote_code=False
    )


@_without_bars()
def save(model: PreTrainedModel, folder: Path) -> None:
    """Writes a model's config and weights as safetensors; the saved model generates with its cache."""
    was, model.config.use_cache = model.config.use_cache, True
    try:
        model.save_pretrained(folder)
    finally:
        model.config.use_cache = was


def set_dropout(model: PreTrainedModel, dropout: float) -> None:
    """Sets every dropout rate of the model to `dropout`, in its modules and its config."""
    for key, value in vars(model.config).items():
        if key.endswith(("pdrop", "dropout")) and isinstance(value, float):
            setattr(model.config, key, dropout)
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = dropout
            continue
        for key, value in list(vars(module).items()):  # OPT's blocks keep their rates as numbers
            if key.endswith(("pdrop", "dropout")) and isinstance(value, float):
                setattr(module, key, dropout)


def prepare_model(model: PreTrainedModel, config: Config, world: World) -> None:
    """Moves a model to the device and applies the config's dropout, speed and memory options."""
    section, runtime = config.train, config.runtime
    model.config.use_cache = False
    if section.dropout is not None:
        set_dropout(model, section.dropout)
    fuse_activations(model)
    skip_packing_search()
    if runtime.activation_checkpointing:
        checkpoint_activations(block_list(model))
    if runtime.tf32:
        torch.set_float32_matmul_precision("high")
    model.to(world.device)


def skip_packing_search() -> None:
    """Turns off transformers' search for packed sequences in this process; we never pack any.

    The search reads the positions in every forward pass, which synchronizes with the GPU. A compiled
    model cannot search and gets an explicit mask, which makes attention slower than a causal one.
    """
    from transformers import masking_utils

    if hasattr(masking_utils, "find_packed_sequence_indices"):
        masking_utils.find_packed_sequence_indices = lambda position_ids: None


def checkpoint_activations(blocks: nn.ModuleList) -> None:
    """Makes every block recompute its activations in the backward pass, with the same dropout."""
    for block in blocks:
        block.forward = partial(checkpoint, block.forward, use_reentrant=False)


def compile_blocks(model: PreTrainedModel) -> None:
    """Compiles every block of the model, in place; equal blocks share one compiled graph.

    A whole model would be recompiled in every phase and for validation. In the fourth phase PyTorch
    would reach its `recompile_limit` of 8 and run the model uncompiled.
    """
    for block in block_list(model):
        block.compile()


def fuse_activations(model: nn.Module) -> None:
    """Replaces GPT-2's GELU, written as seven operations, with PyTorch's equivalent single one."""
    from transformers.activations import NewGELUActivation

    for module in list(model.modules()):
        for name, child in module.named_children():
            if isinstance(child, NewGELUActivation):
                setattr(module, name, nn.GELU(approximate="tanh"))


def check_block_size(block_size: int, config: Any, name: str) -> None:
    """Raises `ModelError` if blocks are longer than the positions of a model's config."""
    positions = getattr(config, "max_position_embeddings", None)
    if positions and block_size > positions:
        raise ModelError(
            f"tokens.block_size={block_size} is above the {positions} positions of {name}; lower it"
        )


def num_positions(model: PreTrainedModel) -> int:
    """The longest sequence a model can read; `sys.maxsize` if nothing limits it (ALiBi)."""
    return int(getattr(model.config, "max_position_embeddings", None) or sys.maxsize)


def parameter_groups(model: nn.Module) -> ParameterGroups:
    """The parameter groups of any decoder; raises `ModelError` if no block list is found."""
    blocks = block_list(model)
    lower, middle, upper = (
        [parameter for index in run for parameter in blocks[int(index)].parameters()]
        for run in np.array_split(np.arange(len(blocks)), 3)
    )
    in_blocks = {id(parameter) for parameter in (*lower, *middle, *upper)}
    outside = [parameter for parameter in model.parameters() if id(parameter) not in in_blocks]
    return ParameterGroups(lower, middle, upper, outside)


def row_parameters(model: PreTrainedModel) -> list[nn.Parameter]:
    """The parameters with a row per token: embeddings and output head; tied weights appear once."""
    embeddings, head = model.get_input_embeddings(), model.get_output_embeddings()
    modules = [embeddings] if head is None else [embeddings, head]
    found = [p for module in modules for p in module.parameters(recurse=False)]
    return list(dict.fromkeys(found))


def block_list(model: nn.Module) -> nn.ModuleList:
    """The blocks of any decoder; raises `ModelError` if there are none, or fewer than three."""
    depth = getattr(getattr(model, "config", None), "num_hidden_layers", None)
    for module in model.modules():
        if isinstance(module, nn.ModuleList) and len(module) == depth:
            if len(module) < NUM_GROUPS - 1:
                raise ModelError(f"the model has {len(module)} blocks; at least 3 are needed")
            return module
    raise ModelError(f"{type(model).__name__}: no list of {depth} blocks found")


def count_parameters(parameters: Any) -> int:
    """Number of scalars in unique parameters."""
    return sum(parameter.numel() for parameter in set(parameters))
