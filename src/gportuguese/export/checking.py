"""Whether a written format says what the PyTorch model says, on prompts."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch

from gportuguese import causal_lm
from gportuguese.config import UserError

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

_NEW_TOKENS = 20  # that are compared after each prompt
_LARGEST = {
    "safetensors": 0.0,
    "bin": 0.0,
    "onnx": 1e-4,
    "gguf-f32": 1e-4,
    "gguf-f16": 1e-2,
    "gguf-q8_0": 0.5,
}
"""Largest difference allowed: of log-probabilities in nats."""
_SAME_TOKENS = ("safetensors", "bin", "onnx", "gguf-f32")  # rounding must not change a choice


class ExportError(UserError):
    """A format cannot be written, or says other things than the model."""


def prompts_of(
    prompts: list[str], bpe: PreTrainedTokenizerBase, num_positions: int
) -> list[torch.Tensor]:
    """The prompts of the report, int64 `[1, T]`, with room for what is compared after them."""
    room = max(1, num_positions - _NEW_TOKENS)
    ids = [bpe(prompt)["input_ids"][:room] for prompt in prompts]
    return [torch.tensor([each or [bpe.eos_token_id]]) for each in ids] or [
        torch.tensor([[bpe.eos_token_id]])
    ]


@torch.no_grad()
def check(
    name: str,
    model: PreTrainedModel,
    prompts: list[torch.Tensor],
    logits_of: Callable[[torch.Tensor], torch.Tensor],
) -> dict[str, Any]:
    """Largest difference in log-probability over the prompts and their greedy continuations.

    Also whether the same tokens are most likely everywhere. Raises `ExportError` beyond the bounds.
    """
    differences, same = [], True
    for prompt_BT in prompts:
        room = causal_lm.num_positions(model) - prompt_BT.shape[1]
        text_BT = _greedy(model, prompt_BT, min(_NEW_TOKENS, room))
        wanted, got = model(text_BT).logits, logits_of(text_BT)
        differences.append((got.log_softmax(-1) - wanted.log_softmax(-1)).abs().max())
        same = same and torch.equal(got.argmax(-1), wanted.argmax(-1))
    largest = torch.stack(differences).max().item()  # nan if any is
    if not largest <= _LARGEST[name] or (name in _SAME_TOKENS and not same):
        raise ExportError(
            f"{name}: log-probabilities differ by up to {largest:.2g} from the model's (at most "
            f"{_LARGEST[name]:g} is allowed), and the most likely tokens are "
            f"{'the same' if same else 'others'}; leave {name} out of export.formats"
        )
    return {"log_probability": largest, "same_greedy_tokens": same}


def _greedy(model: PreTrainedModel, ids_BT: torch.Tensor, new_tokens: int) -> torch.Tensor:
    """The prompt with its most likely continuation, by the model alone."""
    for _ in range(new_tokens):
        ids_BT = torch.cat([ids_BT, model(ids_BT).logits[:, -1:].argmax(-1)], 1)
    return ids_BT
