"""Weight tying: whether the output head shares the matrix of the input embeddings, and its undoing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from gportuguese.base import ModelError

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def is_tied(model: PreTrainedModel) -> bool:
    """Whether the output head and the input embeddings are one parameter."""
    head = model.get_output_embeddings()
    return head is not None and head.weight is model.get_input_embeddings().weight


def untie(model: PreTrainedModel, name: str) -> None:
    """Gives the head a copy of the shared matrix, in place; a head with its own matrix stays as it is.

    The model predicts the same as before and has vocabulary size x width parameters more. Raises
    `ModelError`, with the base's `name`, if its architecture always ties the head.

    >>> from transformers import GPT2Config, GPT2LMHeadModel
    >>> model = GPT2LMHeadModel(GPT2Config(vocab_size=300, n_embd=16, n_layer=3, n_head=2))
    >>> untie(model, "gpt2")
    >>> is_tied(model), model.config.tie_word_embeddings
    (False, False)
    """
    untie_config(model.config, name)
    if is_tied(model):
        head = model.get_output_embeddings()
        head.weight = nn.Parameter(head.weight.detach().clone())


def check_untied(config: Any, name: str) -> None:
    """Raises `ModelError`, with the base's `name`, if a Hugging Face config ties the head."""
    if config.tie_word_embeddings:
        raise ModelError(
            f"align.head_tokens: the output head of {name} shares the matrix of the embeddings; set "
            "align.tie to untie, or align.head_tokens to 0"
        )


def untie_config(config: Any, name: str) -> None:
    """Changes a Hugging Face config so that its models have untied heads, also when they are reloaded.

    Builds such a model without weights to see whether its class follows the config. Raises
    `ModelError`, with the base's `name`, if it does not.
    """
    from transformers import AutoModelForCausalLM

    config.tie_word_embeddings = False
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config, trust_remote_code=False)
    model.tie_weights()
    if is_tied(model):
        raise ModelError(
            f"align.tie=untie: {name} is a {type(model).__name__}, which always shares one matrix "
            "between input embeddings and output head; set align.tie=keep"
        )
