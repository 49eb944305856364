"""Writes a GPT-2 as GGUF, the file format of llama.cpp, in f32, f16 or q8_0."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from gportuguese import tokenizer as tokenizers
from gportuguese.export_formats import ExportError, gguf_needs_gpt2

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_BLOCK = 32  # values per q8_0 block
_TRANSPOSED = ("c_attn.weight", "c_proj.weight", "c_fc.weight")  # GPT-2 stores [in, out]


def write(model: PreTrainedModel, folder: Path, path: Path, kind: str) -> None:
    """Writes the weights in format `kind`, and the tokenizer of `folder`.

    Like llama.cpp, it keeps norms, biases and positions in float32. Raises `ExportError` if the model
    is not a GPT-2 or the package `gguf` is not installed.
    """
    gguf = _package()
    config = model.config
    if config.model_type != "gpt2":
        raise gguf_needs_gpt2(config.model_type)
    writer = gguf.GGUFWriter(path, "gpt2")
    writer.add_block_count(config.n_layer)
    writer.add_context_length(config.n_positions)
    writer.add_embedding_length(config.n_embd)
    writer.add_feed_forward_length(config.n_inner or 4 * config.n_embd)
    writer.add_head_count(config.n_head)
    writer.add_layer_norm_eps(config.layer_norm_epsilon)
    writer.add_file_type(
        {
            "f32": gguf.LlamaFileType.ALL_F32,
            "f16": gguf.LlamaFileType.MOSTLY_F16,
            "q8_0": gguf.LlamaFileType.MOSTLY_Q8_0,
        }[kind]
    )
    _add_tokenizer(gguf, writer, folder)
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.GPT2, config.n_layer)
    for name, weight in _weights(model).items():
        values = weight.detach().numpy()
        values = values.T if name.endswith(_TRANSPOSED) else values
        stored = _type_of(gguf, name, values, kind)
        writer.add_tensor(
            names.get_name(name, try_suffixes=(".weight", ".bias")),
            gguf.quants.quantize(np.ascontiguousarray(values), stored),
            raw_dtype=stored,
        )
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def read(path: Path, model: PreTrainedModel) -> dict[str, torch.Tensor]:
    """Reads a file made by `write` into float32 weights with the names of `model`."""
    gguf = _package()
    found = {tensor.name: tensor for tensor in gguf.GGUFReader(path).tensors}
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.GPT2, model.config.n_layer)
    weights = {}
    for name in _weights(model):
        tensor = found[names.get_name(name, try_suffixes=(".weight", ".bias"))]
        values = gguf.quants.dequantize(tensor.data, tensor.tensor_type)
        values = values.T if name.endswith(_TRANSPOSED) else values
        weights[name] = torch.from_numpy(np.array(values, np.float32))
    return weights


def _package() -> Any:
    try:
        import gguf
    except ImportError as error:
        raise ExportError(f"gguf: {error}; run: pip install 'gportuguese[export]'") from error
    logging.getLogger("gguf").setLevel(logging.WARNING)
    return gguf


def _weights(model: PreTrainedModel) -> dict[str, torch.Tensor]:
    """The weights to write. A tied head is left out: llama.cpp then uses the embeddings."""
    weights = model.state_dict()
    if model.config.tie_word_embeddings:
        del weights["lm_head.weight"]
    return dict(weights)


def _type_of(gguf: Any, name: str, values: np.ndarray, kind: str) -> Any:
    types = gguf.GGMLQuantizationType
    if values.ndim < 2 or name.endswith("wpe.weight") or kind == "f32":
        return types.F32
    if kind == "q8_0" and values.shape[-1] % _BLOCK == 0:
        return types.Q8_0
    return types.F16


def _add_tokenizer(gguf: Any, writer: Any, folder: Path) -> None:
    bpe = tokenizers.load(folder)
    pre_tokenizer = json.loads(bpe.backend_tokenizer.to_str())["pre_tokenizer"] or {}
    if pre_tokenizer.get("type") != "ByteLevel" or not pre_tokenizer.get("use_regex"):
        raise ExportError(
            "gguf: the tokenizer of the base splits text unlike GPT-2's; to convert the exported "
            "folder, use llama.cpp's convert_hf_to_gguf.py"
        )
    tokens = bpe.convert_ids_to_tokens(range(len(bpe)))
    special = {id for id, token in bpe.added_tokens_decoder.items() if token.special}
    special.update(bpe.all_special_ids)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(tokens)
    writer.add_token_types(
        [
            gguf.TokenType.CONTROL if id in special else gguf.TokenType.NORMAL
            for id in range(len(tokens))
        ]
    )
    gguf.SpecialVocab(folder, load_merges=True, n_vocab=len(tokens)).add_to_gguf(writer, quiet=True)
