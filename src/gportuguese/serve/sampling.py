"""Drawing one row's next token from its logits, as `transformers` draws it.

Order and ties are those of `generate()`: repetition penalty, temperature, top-k, top-p. With the
same seed a row gets the tokens that `gpt-pt generate` would write. Shapes: V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from gportuguese.generate import Sampling


@torch.inference_mode()
def draw(
    logits_V: torch.Tensor, sampling: Sampling, ids: Sequence[int], generator: torch.Generator
) -> int:
    """The next token of a row whose prompt and text so far are `ids`."""
    logits_V = logits_V.float()
    if sampling.repetition_penalty != 1:
        logits_V = _penalize(logits_V, sampling.repetition_penalty, ids)
    if sampling.top_k == 1:
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
    """The logits with all but the most likely tokens of total probability `top_p` at -inf."""
    ascending, order = logits_V.sort()
    outside = ascending.softmax(-1).cumsum(-1) <= 1 - top_p
    outside[-1] = False  # the most likely token always stays
    return logits_V.masked_fill(outside.scatter(0, order, outside), -torch.inf)


@torch.inference_mode()
def most_likely(logits_V: torch.Tensor, count: int, chosen: int) -> list[tuple[int, float]]:
    """`(id, log probability)` of the chosen token, then of the `count` most likely ones.

    Probabilities are the model's own, before temperature, top-k, top-p and penalty.
    """
    logprobs_V = logits_V.float().log_softmax(-1)
    top = logprobs_V.topk(min(count, len(logprobs_V)))
    pairs = zip(top.indices.tolist(), top.values.tolist(), strict=True)
    return [(chosen, float(logprobs_V[chosen])), *pairs]
