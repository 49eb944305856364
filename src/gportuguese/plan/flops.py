"""FLOPs of a dense decoder by formula, two for each product of two numbers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from gportuguese import causal_lm
from gportuguese.config import Config
from gportuguese.optimizer import make_optimizer
from gportuguese.plan.schedule import Step
from gportuguese.plan.shape import head_columns, make_model, trained_parameters


def gpt2_flops(layers: int, width: int, vocab_size: int, block_size: int) -> int:
    """FLOPs per training token of a GPT-2 with everything trainable.

    Six for each weight of a product, and twelve for each layer, column and token of attention.

    >>> gpt2_flops(layers=12, width=768, vocab_size=50257, block_size=1024)
    854438400
    """
    weights = layers * 12 * width**2 + vocab_size * width
    return 6 * weights + 12 * layers * width * block_size


@dataclass(frozen=True)
class StepFlops:
    """The arithmetic of one optimizer step of one process."""

    forward: float
    """Per token, of a pass without gradients."""
    train: float
    """Per token, forward and backward, recomputation included."""
    update: float
    """Per step: the matrix products of Muon."""
    parameters: int
    trainable_parameters: int


def count_flops(config: Config, shape: Any, step: Step) -> StepFlops:
    """FLOPs of a step of any decoder, from the sizes of its matrices.

    A backward pass reaches the embeddings through frozen blocks too, so it computes the gradients of all
    inputs, but the gradients only of weights that train. Attention has two products without weights in
    the forward pass and four in the backward pass.
    """
    with torch.device("meta"):
        model = make_model(shape)
    model.tie_weights()
    groups = causal_lm.parameter_groups(model)
    trainable = trained_parameters(model, step)
    count = causal_lm.count_parameters(trainable)
    if step.new_rows is not None:
        count = count // shape.vocab_size * step.new_rows
    sizes = _matrix_sizes(model)
    padding = head_columns(shape, step.vocab_multiple) - shape.vocab_size
    weights = sum(sizes.values()) + padding * shape.hidden_size
    in_blocks = sum(sizes.get(id(p), 0) for group in groups[:-1] for p in group)
    frozen = sum(sizes.get(id(p), 0) for group in groups[: -step.trainable_groups] for p in group)
    head_size = getattr(shape, "head_dim", None) or shape.hidden_size // shape.num_attention_heads
    scores = 2 * shape.num_attention_heads * head_size * step.block_size  # and as much for values
    attention = 2 * shape.num_hidden_layers * scores
    train = 2 * (3 * weights - frozen) + 3 * attention
    if step.activation_checkpointing:
        train += 2 * in_blocks + attention
    optimizer = make_optimizer(model, groups, config.train)
    by_muon = [p for group in optimizer.param_groups if group.get("muon") for p in group["params"]]
    ids = {id(p) for p in trainable}
    return StepFlops(
        forward=2 * weights + attention,
        train=train,
        update=sum(_muon_flops(*p.shape) for p in by_muon if id(p) in ids),
        parameters=causal_lm.count_parameters(model.parameters()),
        trainable_parameters=count,
    )


def _matrix_sizes(model: nn.Module) -> dict[int, int]:
    """The sizes of the matrices that tokens are multiplied by, by `id`; a tied head is one of them."""
    return {
        id(weight): weight.numel()
        for module in model.modules()
        if not isinstance(module, nn.Embedding)
        for weight in module.parameters(recurse=False)
        if weight.ndim == 2
    }


def _muon_flops(rows: int, columns: int) -> int:
    """Five Newton-Schulz steps on X, wide or transposed: A = XX', then AA and a product with X."""
    short, long = sorted((rows, columns))
    return 5 * (4 * short**2 * long + 2 * short**3)
