"""Draws the next token from a row's logits, like `generate()` of transformers.

Filters are applied in the same order (repetition penalty, temperature, top-k, top-p), and ties are
handled the same way. Shapes: T positions, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from gportuguese.sampling import Sampling


@torch.inference_mode()
def draw(
    logits_V: torch.Tensor, sampling: Sampling, ids: Sequence[int], generator: torch.Generator
) -> int:
    """Draws the next token of a row; `ids` are its prompt and text."""
    logits_V = logits_V.float()
    if sampling.repetition_penalty != 1:
        logits_V = _penalize(logits_V, sampling.repetition_penalty, ids)
    if sampling.is_greedy:
        return int(logits_V.argmax())
    logits_V = logits_V / sampling.temperature
    if 0 < sampling.top_k < len(logits_V):
        least = logits_V.topk(sampling.top_k).values[-1]
        logits_V = logits_V.masked_fill(logits_V < least, -torch.inf)
    if sampling.top_p < 1:
        logits_V = _nucleus(logits_V, sampling.top_p)
    return int(torch.multinomial(logits_V.softmax(-1), 1, generator=generator))


def _penalize(logits_V: torch.Tensor, penalty: float, ids: Sequence[int]) -> torch.Tensor:
    seen = torch.tensor(ids, device=logits_V.device)
    logits = logits_V[seen]
    return logits_V.scatter(0, seen, torch.where(logits < 0, logits * penalty, logits / penalty))


def _nucleus(logits_V: torch.Tensor, top_p: float) -> torch.Tensor:
    """Sets all logits to -inf except the most likely ones, which together reach `top_p`."""
    ascending, order = logits_V.sort()
    outside = ascending.softmax(-1).cumsum(-1) <= 1 - top_p
    outside[-1] = False  # the most likely token always stays
    return logits_V.masked_fill(outside.scatter(0, order, outside), -torch.inf)


@torch.inference_mode()
def log_probabilities(
    logits_TV: torch.Tensor, tokens_T: Sequence[int], count: int
) -> list[tuple[float, list[tuple[int, float]]]]:
    """The log-probability of each given token, and the ids and values of the `count` most likely ones.

    These are the model's own, before temperature, top-k, top-p and penalty.
    """
    logprobs_TV = logits_TV.float().log_softmax(-1)
    tokens_T1 = torch.tensor(tokens_T, device=logits_TV.device).unsqueeze(-1)
    given_T = logprobs_TV.gather(-1, tokens_T1).squeeze(-1).tolist()
    top = logprobs_TV.topk(min(count, logprobs_TV.shape[-1]))
    return [
        (given, list(zip(ids, values, strict=True)))
        for given, ids, values in zip(
            given_T, top.indices.tolist(), top.values.tolist(), strict=True
        )
    ]
