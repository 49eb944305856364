"""Distillation: trains embedding rows until the model reads new tokens as it read the old ones.

After Token Distillation (Dobler et al., 2025). The model reads a text twice, in old tokens and in new
ones. Where an old and a new token end on the same byte, the hidden states after the first third of the
blocks should be equal. Only new rows are trained; everything else in the model stays as it is.

Shapes: B windows, T tokens, P pairs of tokens that end on the same byte, D width, V vocabulary.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn
from torch.nn.utils.rnn import pad_sequence

from gportuguese import causal_lm
from gportuguese.align.rows import Vocabularies
from gportuguese.align.saved_state import SavedState
from gportuguese.progress import track
from gportuguese.tokenizer import plain_backend
from gportuguese.tokens import BlockLoader

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_RATE = 6e-3  # of Adam, at its peak
_WARM_UP = 0.1  # share of the steps


@dataclass(frozen=True)
class Window:
    """A text in old and in new tokens."""

    source_ids: np.ndarray
    target_ids: np.ndarray
    pairs_2P: np.ndarray
    """Positions of the old and of the new token of each pair."""


class Windows:
    """Cuts blocks of new tokens into windows of at most `max_tokens` old tokens."""

    def __init__(self, vocabularies: Vocabularies, end_of_text: int, max_tokens: int) -> None:
        self.vocabularies, self.end_of_text = vocabularies, end_of_text
        self.max_tokens = max_tokens
        self.backend = plain_backend(vocabularies.source)
        self.source_sizes_V = np.array([len(token) for token in vocabularies.source_tokens])
        self.target_sizes_V = np.array([len(token) for token in vocabularies.target_tokens])

    def of_block(self, ids_T: np.ndarray) -> Iterator[Window]:
        """A window for each document in the block, if any of its tokens end together."""
        for part in np.split(ids_T, np.flatnonzero(ids_T == self.end_of_text)):
            part = part[part != self.end_of_text]
            tokens = [self.vocabularies.target_tokens[id] for id in part]
            kept = whole_characters(tokens)
            text, target_ids = b"".join(tokens[kept]).decode("utf-8"), part[kept]
            encoded = self.backend.encode(text, add_special_tokens=False).ids
            source_ids = np.array(encoded[: self.max_tokens], np.int64)
            pairs_2P = common_ends(self.source_sizes_V[source_ids], self.target_sizes_V[target_ids])
            # models give the first token of a text a hidden state unlike any other
            pairs_2P = pairs_2P[:, (pairs_2P > 0).all(0)]
            if pairs_2P.size:
                yield Window(source_ids, target_ids, pairs_2P)


def common_ends(source_sizes: np.ndarray, target_sizes: np.ndarray) -> np.ndarray:
    """The tokens that end on the same byte, from the number of bytes of each; int64 `[2, P]`.

    >>> common_ends(np.array([2, 1, 3]), np.array([3, 1, 2])).tolist()
    [[1, 2], [0, 2]]
    """
    _, *both = np.intersect1d(source_sizes.cumsum(), target_sizes.cumsum(), return_indices=True)
    return np.stack(both)


def whole_characters(tokens: list[bytes]) -> slice:
    """The tokens without a character that the first or the last of them cuts in two.

    >>> whole_characters([bytes([0xA7]), b"a", bytes([0xC3])])
    slice(1, 2, None)
    """
    first, last = 0, len(tokens)
    while first < last and 0x80 <= tokens[first][0] < 0xC0:
        first += 1
    while first < last and not _is_text(b"".join(tokens[first:last])):
        last -= 1
    return slice(first, last)


def _is_text(data: bytes) -> bool:
    try:
        data.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


class _Reached(Exception):
    """Carries hidden states out of a forward pass, so that the later blocks do not run."""

    def __init__(self, hidden_BTD: torch.Tensor) -> None:
        self.hidden_BTD = hidden_BTD


def hidden_after(model: PreTrainedModel, num_blocks: int, ids_BT: torch.Tensor) -> torch.Tensor:
    """The hidden states after the first `num_blocks` blocks, `[B, T, D]`."""

    def stop(module: nn.Module, inputs: Any, output: Any) -> None:
        raise _Reached(output if isinstance(output, torch.Tensor) else output[0])

    hook = causal_lm.block_list(model)[num_blocks - 1].register_forward_hook(stop)
    try:
        model(ids_BT, use_cache=False)
    except _Reached as reached:
        return reached.hidden_BTD
    finally:
        hook.remove()
    raise AssertionError("a forward pass runs every block")


def distill(
    model: PreTrainedModel,
    source_VD: torch.Tensor,
    batches: BlockLoader,
    windows: Windows,
    is_fixed_V: np.ndarray,
    saved: SavedState,
) -> list[float]:
    """Trains the embedding rows that are not fixed, in place; returns the loss of each step.

    `source_VD` are the embedding rows of the old vocabulary. The loss is the squared distance between the
    hidden states, divided by the squared norm of the old one, so rows of zeros have a loss near 1. A step
    of Adam per batch changes only the rows of tokens in the batch; `schedule` gives its rate. The output
    head, if it is tied, gets the new rows too.
    """
    embeddings, device = model.get_input_embeddings(), model.device
    tied = embeddings.weight
    old = nn.Parameter(source_VD.to(device), requires_grad=False)
    new = nn.Parameter(tied.detach().clone())
    is_fixed = torch.from_numpy(is_fixed_V).to(device)
    num_blocks = -(-len(causal_lm.block_list(model)) // 3)
    optimizer = torch.optim.SparseAdam([new], lr=_RATE)
    state = saved.load()
    losses: list[float] = state.get("losses", [])
    if state:
        new.data.copy_(state["rows"])
        optimizer.load_state_dict(state["optimizer"])
        batches.first_batch = state["batch"]

    def hidden(weight: nn.Parameter, ids: list[np.ndarray], positions: list[np.ndarray]) -> Any:
        embeddings.weight = weight
        ids_BT = pad_sequence([torch.from_numpy(each.astype(np.int64)) for each in ids], True)
        hidden_BTD = hidden_after(model, num_blocks, ids_BT.to(device))
        return torch.cat([hidden_BTD[row, places] for row, places in enumerate(positions)])

    model.eval().requires_grad_(False)
    embeddings.sparse = True
    try:
        with track("align: distillation", len(batches)) as advance:
            advance(batches.first_batch, resumed=True)
            for number, (inputs_BT, _) in enumerate(batches, start=batches.first_batch):
                found = [w for ids_T in inputs_BT.numpy() for w in windows.of_block(ids_T)]
                if found:
                    with torch.no_grad():
                        goal_PD = hidden(
                            old, [w.source_ids for w in found], [w.pairs_2P[0] for w in found]
                        )
                    state_PD = hidden(
                        new, [w.target_ids for w in found], [w.pairs_2P[1] for w in found]
                    )
                    distances_P = (state_PD - goal_PD).square().sum(1)
                    loss = (distances_P / goal_PD.square().sum(1)).mean()
                    optimizer.zero_grad()
                    loss.backward()
                    _clear_rows(new, is_fixed)
                    optimizer.param_groups[0]["lr"] = _RATE * schedule(number / len(batches))
                    optimizer.step()  # type: ignore[no-untyped-call]
                    losses.append(loss.item())
                advance(1, f"distance {np.mean(losses[-20:]):.3f}" if losses else "")
                saved.save(
                    {
                        "rows": new.data,
                        "optimizer": optimizer.state_dict(),
                        "batch": number + 1,
                        "losses": losses,
                    },
                    now=number + 1 == len(batches),
                )
    finally:
        embeddings.sparse, embeddings.weight = False, tied
        model.requires_grad_(True)
    with torch.no_grad():
        tied.copy_(new)
    return losses


def schedule(done: float) -> float:
    """The share of the peak rate when a share of the steps is done: a rise, then half a cosine.

    >>> [round(schedule(done), 2) for done in (0.05, 0.1, 0.55, 1.0)]
    [0.5, 1.0, 0.5, 0.0]
    """
    if done < _WARM_UP:
        return done / _WARM_UP
    return (1 + math.cos(math.pi * (done - _WARM_UP) / (1 - _WARM_UP))) / 2


def _clear_rows(weight_VD: nn.Parameter, is_cleared_V: torch.Tensor) -> None:
    """Sets rows of a sparse gradient to zero, so that SparseAdam does not move them."""
    assert weight_VD.grad is not None
    weight_VD.grad = weight_VD.grad.coalesce()
    weight_VD.grad.values()[is_cleared_V[weight_VD.grad.indices()[0]]] = 0
