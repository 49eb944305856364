"""Checks that an exported format predicts the same as the PyTorch model."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch

from gportuguese import causal_lm
from gportuguese.config import FORMATS, ExportFormat
from gportuguese.export_formats import ExportError

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

_NEW_TOKENS = 20  # compared after each prompt
# always written, so it is no choice of `export.formats`
_SAFETENSORS = ExportFormat(tolerance=0.0)


def prompts_of(
    prompts: list[str], bpe: PreTrainedTokenizerBase, num_positions: int
) -> list[torch.Tensor]:
    """The prompts of the report as ids `[1, T]`, cut to leave room for new tokens."""
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
    """The largest difference in log-probability on the prompts and their greedy continuations.

    Also returns whether the most likely tokens agree at every position. Raises `ExportError` if the
    difference exceeds the tolerance, or if tokens differ in a format that must agree on them.
    """
    differences, same = [], True
    for prompt_BT in prompts:
        room = causal_lm.num_positions(model) - prompt_BT.shape[1]
        text_BT = _greedy(model, prompt_BT, min(_NEW_TOKENS, room))
        expected, got = model(text_BT).logits, logits_of(text_BT)
        differences.append((got.log_softmax(-1) - expected.log_softmax(-1)).abs().max())
        same = same and torch.equal(got.argmax(-1), expected.argmax(-1))
    largest = torch.stack(differences).max().item()  # nan if any of them is nan
    wanted = FORMATS.get(name, _SAFETENSORS)
    if not largest <= wanted.tolerance or (wanted.same_tokens and not same):
        raise ExportError(
            f"{name}: log-probabilities differ by up to {largest:.2g} from the model's (allowed: "
            f"{wanted.tolerance:g}), and the most likely tokens "
            f"{'agree' if same else 'differ'}; remove {name} from export.formats"
        )
    return {"log_probability": largest, "same_greedy_tokens": same}


def _greedy(model: PreTrainedModel, ids_BT: torch.Tensor, new_tokens: int) -> torch.Tensor:
    """The prompt followed by the model's greedy continuation."""
    for _ in range(new_tokens):
        ids_BT = torch.cat([ids_BT, model(ids_BT).logits[:, -1:].argmax(-1)], 1)
    return ids_BT
