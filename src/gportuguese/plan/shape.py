"""The architecture that a config trains, read without weights and without the network."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from gportuguese import causal_lm, loss, tying
from gportuguese.base import ModelError, locate_base
from gportuguese.config import Architecture, Config
from gportuguese.plan.schedule import Step
from gportuguese.tokenizer import load_extendable, why_not_loaded

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_GPT2 = {  # layers, width, heads of the models on the Hub; all have 1024 positions, dropout 0.1
    "gpt2": (12, 768, 12),
    "gpt2-medium": (24, 1024, 16),
    "gpt2-large": (36, 1280, 20),
    "gpt2-xl": (48, 1600, 25),
    "distilgpt2": (6, 768, 12),
}


def read_shape(config: Config) -> Any:
    """The Hugging Face config of the model that a run trains, with the new vocabulary.

    Reads only `config.json` or the header of a GGUF file. Raises `ModelError` for a base that is
    neither on this machine nor in the GPT-2 family.
    """
    base = config.align.base
    vocab_size = config.tokenizer.vocab_size
    if isinstance(base, Architecture):
        shape = causal_lm.gpt2_config(base, vocab_size)
    else:
        shape = _of_base(base, vocab_size)
    shape.vocab_size = vocab_size
    if config.align.tie == "untie":
        tying.untie_config(shape, str(base))
    if config.align.head_tokens:
        tying.check_untied(shape, str(base))
    causal_lm.set_special_ids(shape, vocab_size - 1)
    shape.use_cache = False
    causal_lm.check_block_size(config.tokens.block_size, shape, str(base))
    return shape


def count_new_rows(config: Config) -> int | None:
    """The rows that alignment does not copy from the base; None if that is not known before it.

    Reads the base's tokenizer for `tokenizer.method: extend`; raises `TokenizerError` if it cannot be
    extended.
    """
    base, section = config.align.base, config.tokenizer
    if isinstance(base, Architecture) or config.align.method == "random":
        return section.vocab_size
    if section.method == "extend" and locate_base(base, download=False) is not None:
        return section.vocab_size - len(load_extendable(config))
    return None


def trained_parameters(model: PreTrainedModel, step: Step) -> list[torch.nn.Parameter]:
    """The parameters of a model that get gradients in a step."""
    if step.new_rows is not None:
        return causal_lm.row_parameters(model)
    groups = causal_lm.parameter_groups(model)
    return [p for group in groups[-step.trainable_groups :] for p in group]


def make_model(shape: Any) -> PreTrainedModel:
    """A model of the shape in float32, with random weights on the default device."""
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_config(shape, dtype=torch.float32, trust_remote_code=False)


def is_head_last(shape: Any) -> bool:
    """Whether nothing acts on the logits after the head (see `loss.HeadLoss`)."""
    with torch.device("meta"):
        model = make_model(shape)
    del causal_lm.block_list(model)[1:]
    model.to_empty(device="cpu")  # the answer does not depend on the weights
    model.tie_weights()
    return loss.is_head_last(model)


def head_columns(shape: Any, multiple: int) -> int:
    """Columns of the logits: the vocabulary size, rounded up to a multiple."""
    return int(-(-shape.vocab_size // multiple) * multiple)


def _of_base(base: str, vocab_size: int) -> Any:
    from huggingface_hub import try_to_load_from_cache

    path = locate_base(base, download=False)
    if path is None:
        cached = try_to_load_from_cache(base, "config.json")
        path = Path(cached).parent if isinstance(cached, str) else None
    if path is not None:
        return _read(path, base)
    name = base.removeprefix("openai-community/").removeprefix("distilbert/")
    if name not in _GPT2:
        raise ModelError(
            f"align.base={base!r} is not on this machine, and `plan` downloads nothing; run "
            f"`hf download {base} config.json` first, or set a folder or an architecture. Known "
            f"without a download: {', '.join(_GPT2)}"
        )
    layers, width, heads = _GPT2[name]
    known = Architecture(layers=layers, width=width, heads=heads, positions=1024)
    return causal_lm.gpt2_config(known, vocab_size)


def _read(path: Path, base: str) -> Any:
    from transformers import AutoConfig

    try:
        if path.is_dir():
            return AutoConfig.from_pretrained(path, trust_remote_code=False)
        return AutoConfig.from_pretrained(path.parent, gguf_file=path.name, trust_remote_code=False)
    except ImportError as error:
        raise ModelError(f"{base}: {error}; pip install 'gportuguese[gguf]'") from error
    except (OSError, ValueError, KeyError) as error:
        reason = why_not_loaded(error)
        raise ModelError(f"{base}: no model config can be read from {path}: {reason}") from error
