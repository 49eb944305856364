"""A ledger of a step: every storage that operators make, by what it is for, and their FLOPs."""

from __future__ import annotations

import weakref
from collections import Counter
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry, sdpa_flop_count

PARTS = (
    "weights",
    "optimizer state",
    "gradients",
    "weight copies",
    "activations",
    "logits and loss",
    "work",
)
"""What memory is for. Copies of weights are those of autocast and of padding; work is what an
operator makes for the next one and nothing keeps."""

_aten = torch.ops.aten
_COPIES = (_aten._to_copy, _aten.constant_pad_nd)


class Ledger(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Bytes by part while it is active, those of the moment when they were most, and FLOPs.

    FLOPs are those of PyTorch's formulas, two for each product of two numbers; its own
    `FlopCounterMode` would follow modules too, and keep alive what checkpointing computes again.

    Counts on real and on fake tensors alike, since both are freed when nothing refers to them: the
    peak is that of the program's own tensors, without the scratch memory inside one operator.
    """

    def __init__(self, num_logits: int) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.num_logits = num_logits
        """Columns that make a tensor logits, or what becomes of them."""
        self.bytes = Counter[str]()
        self.peak = Counter[str]()
        self.most = Counter[str]()
        """The most of each part, at whatever moment."""
        self.flops = 0
        self.moment = "forward"
        """Set by whoever runs the step."""
        self.peak_moment = self.moment
        self._live: dict[int, tuple[int, str]] = {}

    def __torch_dispatch__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        result = function(*args, **kwargs)
        packet = getattr(function, "overloadpacket", None)
        if packet in _FLOPS:
            self.flops += _FLOPS[packet](*args, **kwargs, out_val=result)
        if packet is _aten.logsumexp:  # makes a copy of its argument inside
            self._look(args[0].nbytes)
        for tensor in tree_leaves(result):
            if isinstance(tensor, torch.Tensor) and _key(tensor) not in self._live:
                self.enter(tensor, self._part(function, args, tensor))
        return result

    def enter(self, tensor: torch.Tensor, part: str) -> None:
        """Puts a tensor's storage under a part, also where it stood under another."""
        storage, key = tensor.untyped_storage(), _key(tensor)
        if key in self._live:
            size, before = self._live[key]
            self.bytes[before] -= size
        else:
            size = storage.nbytes()
            weakref.finalize(storage, self._drop, key)
        self._live[key] = size, part
        self.bytes[part] += size
        self.most[part] = max(self.most[part], self.bytes[part])
        self._look()

    def _look(self, inside: int = 0) -> None:
        """Notes a new peak, with bytes that only an operator has."""
        if self.bytes.total() + inside > self.peak.total():
            self.peak, self.peak_moment = self.bytes.copy(), self.moment
            self.peak["work"] += inside

    def keep_work(self) -> None:
        """What is still there after a forward pass is kept for the backward pass: activations."""
        for key, (size, part) in self._live.items():
            if part == "work":
                self._live[key] = size, "activations"
                self.bytes["work"] -= size
                self.bytes["activations"] += size

    def _drop(self, key: int) -> None:
        size, part = self._live.pop(key)
        self.bytes[part] -= size

    def _part(self, function: Any, args: Any, tensor: torch.Tensor) -> str:
        packet = getattr(function, "overloadpacket", None)
        if packet in _COPIES or packet is _aten.zeros_like:
            _, source = self._live.get(_key(args[0]), (0, "work"))
            if source == "weights" and packet is _aten.zeros_like:  # the head's, made with its loss
                return "gradients"
            if source in ("weights", "weight copies"):
                return "weight copies"
        if tensor.ndim > 1 and tensor.shape[-1] == self.num_logits:
            return "logits and loss"
        return "work"


def _key(tensor: torch.Tensor) -> int:
    return int(tensor.untyped_storage()._cdata)


def _attention_flops(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, *args: Any, **kwargs: Any
) -> int:
    """Scores and weighted values: two products."""
    return int(sdpa_flop_count(query.shape, key.shape, value.shape))  # type: ignore[no-untyped-call]


def _attention_backward_flops(grad: torch.Tensor, *inputs: Any, **kwargs: Any) -> int:
    """Gradients of values, weights, queries and keys: four products, twice the forward pass.

    PyTorch's formula has a fifth, the scores that a fused kernel computes again.
    """
    return 2 * _attention_flops(*inputs)


_FLOPS = {
    **flop_registry,
    # this pair is missing in PyTorch (2.14): attention without dropout on the CPU would be free
    _aten._scaled_dot_product_flash_attention_for_cpu: _attention_flops,
    _aten._scaled_dot_product_flash_attention_for_cpu_backward: _attention_backward_flops,
    _aten._scaled_dot_product_flash_attention_backward: _attention_backward_flops,
    _aten._scaled_dot_product_efficient_attention_backward: _attention_backward_flops,
}
