"""Mixed precision on any device: autocast, and a loss scale for fp16."""

from __future__ import annotations

import logging
import time
from contextlib import AbstractContextManager, ExitStack, nullcontext
from typing import Any

import torch
from fastai.callback.core import Callback, CancelStepException

from gportuguese.config import TrainConfig
from gportuguese.world import WorldError

log = logging.getLogger("gportuguese")

DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
_SLOW = 2  # times what float32 takes


def check_precision(device: str, section: TrainConfig) -> None:
    """Raises `WorldError` for a GPU that cannot compute as asked, warns of a CPU that is slow at it."""
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
                "%s: on this CPU a matrix product takes %.0f times as long in it as in fp32; set %s",
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
    """The context in which a forward pass runs in `precision`."""
    if precision == "fp32":
        return nullcontext()
    return torch.autocast(torch.device(device).type, DTYPES[precision])


class Precision(Callback):
    """Autocast around forward pass and loss; with fp16, a dynamic loss scale.

    A step whose scaled gradients overflow is left out, before clipping and the optimizer.
    The scaler is given this callback in the optimizer's place: it asks for `param_groups`, and
    calls `step` only if the gradients are finite.
    """

    order = 10

    def __init__(self, device: str, precision: str) -> None:
        self.device, self.precision = device, precision
        enabled = precision == "fp16"
        self.scaler = torch.amp.GradScaler(torch.device(device).type, enabled=enabled)
        self.context = ExitStack()

    def before_batch(self) -> None:
        self.context.enter_context(autocast(self.device, self.precision))

    def after_loss(self) -> None:
        self.leave()

    def leave(self) -> None:
        """Ends autocast, also after a forward pass that raised."""
        self.context.close()

    def before_backward(self) -> None:
        self.learn.loss_grad = self.scaler.scale(self.loss_grad)

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        return self.learn.opt.opt.param_groups  # type: ignore[no-any-return]

    def step(self, *_: Any) -> None:
        self.is_finite = True

    def before_step(self) -> None:
        if not self.scaler.is_enabled():
            return
        self.is_finite = False
        self.scaler.unscale_(self)
        self.scaler.step(self)
        if not self.is_finite:
            loss = self.learn.step_loss.value
            if not torch.isfinite(loss):  # no loss scale will mend that
                nan = float("nan")
                learn = self.learn
                learn.guard.stop(learn.epoch, learn.step_loss.step, loss.item(), nan, nan)
            raise CancelStepException("the scaled gradients overflowed")

    def after_step(self) -> None:  # also runs after a cancelled step
        self.scaler.update()
