"""A batch of texts that shares one key-value cache, one row per text.

All rows end at the same cache position. Shorter rows are padded on the left, and an attention mask
hides the padding. Rows join and leave between steps.

Shapes: B rows, H heads, T positions, D head width, V vocabulary.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch.nn.functional import pad

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_SCORED_AT_ONCE = 64  # prompt positions per chunk when scoring, to limit the memory of logits


class Batch:
    """The key-value cache of all running rows, in the order they joined."""

    def __init__(self, model: PreTrainedModel) -> None:
        accepted = inspect.signature(model.forward).parameters
        # transformers 5.24 renamed the argument
        self._cache_name = "cache" if "cache" in accepted else "past_key_values"
        self._takes_positions = "position_ids" in accepted
        self._last_only = {"logits_to_keep": 1} if "logits_to_keep" in accepted else {}
        self._model = model
        self._cache: Any = None
        self._lengths: list[int] = []
        """Tokens of each row in the cache, without its padding."""

    def __len__(self) -> int:
        return len(self._lengths)

    @torch.inference_mode()
    def join(
        self, ids: Sequence[int], score: Callable[[int, torch.Tensor], None] | None = None
    ) -> torch.Tensor:
        """Reads a prompt into a new last row and returns the logits of its next token, `[V]`.

        `score` is called with the logits of the prompt in chunks: the index of the first position,
        and `[T, V]`.
        """
        from transformers import DynamicCache

        cache = DynamicCache()
        ids_BT = torch.tensor([list(ids)], device=self._model.device)
        if score is None:
            logits_BTV = self._forward(ids_BT, cache, **self._last_only)
        else:
            for start in range(0, len(ids), _SCORED_AT_ONCE):
                logits_BTV = self._forward(ids_BT[:, start : start + _SCORED_AT_ONCE], cache)
                score(start, logits_BTV[0])
        if self._cache is None:
            self._cache = cache
        else:
            _append(self._cache, cache)
        self._lengths.append(len(ids))
        return logits_BTV[0, -1]

    @torch.inference_mode()
    def step(self, ids_B: Sequence[int]) -> torch.Tensor:
        """Appends one token to every row and returns the logits of the next ones, `[B, V]`."""
        device = self._model.device
        lengths_B = torch.tensor(self._lengths, device=device)
        longest = max(self._lengths) + 1
        from_end_T = torch.arange(longest, 0, -1, device=device)
        logits_BTV = self._forward(
            torch.tensor(ids_B, device=device).unsqueeze(1),
            self._cache,
            attention_mask=(from_end_T <= lengths_B.unsqueeze(1) + 1).long(),
            **({"position_ids": lengths_B.unsqueeze(1)} if self._takes_positions else {}),
        )
        self._lengths = [length + 1 for length in self._lengths]
        return logits_BTV[:, -1]

    @torch.inference_mode()
    def keep(self, rows: Sequence[int]) -> None:
        """Drops all other rows, and the padding that is no longer needed."""
        self._lengths = [self._lengths[row] for row in rows]
        if not rows:
            self._cache = None
            return
        longest = max(self._lengths)
        rows_B = torch.tensor(rows, device=self._model.device)
        for layer in self._cache.layers:
            # copy, to free the memory of dropped rows
            layer.keys = layer.keys[rows_B, :, -longest:].contiguous()
            layer.values = layer.values[rows_B, :, -longest:].contiguous()

    def _forward(self, ids_BT: torch.Tensor, cache: Any, **options: Any) -> torch.Tensor:
        output = self._model(ids_BT, use_cache=True, **{self._cache_name: cache}, **options)
        logits_BTV: torch.Tensor = output.logits
        return logits_BTV


def _append(cache: Any, row: Any) -> None:
    """Appends a one-row cache to `cache`; pads the shorter one on the left."""
    for layer, new in zip(cache.layers, row.layers, strict=True):
        longest = max(layer.keys.shape[-2], new.keys.shape[-2])
        layer.keys = torch.cat([_pad_left(layer.keys, longest), _pad_left(new.keys, longest)])
        layer.values = torch.cat([_pad_left(layer.values, longest), _pad_left(new.values, longest)])


def _pad_left(states_BHTD: torch.Tensor, length: int) -> torch.Tensor:
    return pad(states_BHTD, (0, 0, length - states_BHTD.shape[-2], 0))
