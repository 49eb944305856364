"""Autocast, and checks that this device and PyTorch support the config; loads no fastai."""

from __future__ import annotations

import logging
import time
from contextlib import AbstractContextManager, nullcontext

import torch

from gportuguese.config import Config, TrainConfig
from gportuguese.world import WorldError

log = logging.getLogger("gportuguese")

DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
_COMPILES = "2.7"
_SLOW = 2  # warn if a product takes more than this many times as long as in float32


def check_machine(device: str, config: Config) -> None:
    """Raises `WorldError` for a config that this PyTorch or this GPU cannot run."""
    if config.runtime.compile and not hasattr(torch.compiler, "is_exporting"):
        raise WorldError(
            f"runtime.compile needs PyTorch {_COMPILES} or later, because transformers uses "
            f"torch.compiler.is_exporting, but this is {torch.__version__}; upgrade torch or set "
            "runtime.compile=false"
        )
    check_precision(device, config.train)


def check_precision(device: str, section: TrainConfig) -> None:
    """Raises `WorldError` if the GPU lacks the precision; warns if the CPU is slow at it."""
    checks = [(f"train.precision={section.precision}", section.precision, "train.precision=fp32")]
    if section.optimizer == "muon":
        checks.append(("train.optimizer=muon computes in bf16", "bf16", "train.optimizer=adamw"))
    for setting, precision, instead in checks:
        if precision == "fp32":
            continue
        if device.startswith("cuda"):
            if precision == "bf16" and torch.cuda.get_device_capability(device)[0] < 8:
                name = torch.cuda.get_device_name(device)
                raise WorldError(f"{setting}: {name} has no bf16; set {instead}")
            continue
        ratio = product_flops(DTYPES["fp32"]) / product_flops(DTYPES[precision])
        if ratio > _SLOW:
            log.warning(
                "%s: on this CPU, matrix products take %.0f times as long as in fp32; set %s",
                setting,
                ratio,
                instead,
            )


def product_flops(dtype: torch.dtype, size: int = 256) -> float:
    """FLOP/s of a product of square matrices on the CPU: the fastest of three after a warm-up."""
    square = torch.ones(size, size, dtype=dtype)
    times = []
    for _ in range(4):
        start = time.perf_counter()
        square @ square
        times.append(time.perf_counter() - start)
    return 2 * size**3 / min(times[1:])


def autocast(device: str, precision: str) -> AbstractContextManager[object]:
    """A context that runs a forward pass in `precision`."""
    if precision == "fp32":
        return nullcontext()
    return torch.autocast(torch.device(device).type, DTYPES[precision])
