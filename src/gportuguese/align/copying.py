"""`mean`: rows of shared tokens are copied by byte string, every other row is the mean row.

The method of GPorTuguese-2 (Guillou, 2020), but on bytes instead of the printable stand-ins.
"""

from __future__ import annotations

import torch


def shared_rows(source: list[bytes], target: list[bytes]) -> torch.Tensor:
    """For each target token the source id with the same bytes, else -1; int64 `[V_target]`.

    >>> shared_rows([b"a", b" de", b"the"], [b" de", b"\\xc3\\xa7", b"a"])
    tensor([ 1, -1,  0])
    """
    source_ids = {token: id for id, token in reversed(list(enumerate(source)))}
    return torch.tensor([source_ids.get(token, -1) for token in target])


def mean_rows(source_VD: torch.Tensor, source_ids: torch.Tensor) -> torch.Tensor:
    """The new matrix `[V_target, D]` (or vector `[V_target]` for a bias) of the mean method."""
    mean = source_VD.mean(0, keepdim=True)
    copied = source_VD[source_ids.clamp(min=0)]
    missing = source_ids < 0
    copied[missing] = mean.expand_as(copied[missing])
    return copied
