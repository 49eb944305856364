"""What a device does otherwise than fake tensors of the CPU, as far as memory and FLOPs go.

Fake tensors of CUDA would not do: PyTorch's autograd engine refuses them on a machine that has no GPU.
"""

from __future__ import annotations

from typing import Any

import torch
from torch.nn import functional
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_map

_aten = torch.ops.aten
# of CUDA's autocast list for float32, what a causal LM calls and the CPU's list lacks
# (https://docs.pytorch.org/docs/stable/amp.html); `gelu_new` has the power
_IN_FLOAT32 = {
    torch.pow,
    torch.Tensor.pow,
    torch.Tensor.__pow__,
    torch.rsqrt,
    torch.exp,
    torch.softmax,
    torch.Tensor.softmax,
    torch.Tensor.sum,
    torch.cumsum,
    functional.softmax,
    functional.softplus,
    functional.layer_norm,
}


class Kernels(TorchFunctionMode):
    """Causal attention without a mask; on CUDA as its kernels go.

    transformers looks into the positions for packed sequences, cannot in fake tensors, and makes a
    mask to be safe; our blocks are never packed, so a run has none.

    CUDA: attention without a T x T matrix, masks of dropout in bytes, its list for float32. PyTorch
    takes flash attention for 16 bits on cards since 2020 and the memory-efficient kernel for float32
    and for a V100; both keep query, key, value, output and a number a row.
    """

    def __init__(self, device: str) -> None:
        super().__init__()
        self.is_cuda = device == "cuda"

    def __torch_function__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        kwargs = dict(kwargs or {})
        if function is functional.scaled_dot_product_attention:
            kwargs |= {"attn_mask": None, "is_causal": True}
            return (_fused_attention if self.is_cuda else function)(*args, **kwargs)
        if self.is_cuda and function is functional.dropout:
            return _dropout(*args, **kwargs)
        if self.is_cuda and function in _IN_FLOAT32 and torch.is_autocast_enabled("cpu"):
            args, kwargs = tree_map(_in_float32, (args, kwargs))
        return function(*args, **kwargs)


def _fused_attention(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attn_mask: None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> torch.Tensor:
    if query.dtype in (torch.float16, torch.bfloat16):
        flash = _aten._scaled_dot_product_flash_attention
        found = flash(query, key, value, dropout_p, is_causal, False, scale=scale)
    else:
        times = query.shape[1] // key.shape[1] if enable_gqa else 1
        key, value = (t.repeat_interleave(times, 1) if times > 1 else t for t in (key, value))
        efficient = _aten._scaled_dot_product_efficient_attention
        found = efficient(query, key, value, None, True, dropout_p, is_causal, scale=scale)
    return found[0]  # type: ignore[no-any-return]


def _dropout(
    input: torch.Tensor, p: float = 0.5, training: bool = True, inplace: bool = False
) -> torch.Tensor:
    if not training or p == 0:
        return input
    return torch.native_dropout(input, p, True)[0]


def _in_float32(value: Any) -> Any:
    is_half = isinstance(value, torch.Tensor) and value.dtype in (torch.float16, torch.bfloat16)
    return value.float() if is_half else value
