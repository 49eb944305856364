"""Data parallel training: each process has one model; gradients are averaged before every step."""

from __future__ import annotations

import inspect
from contextlib import ExitStack

import torch
from fastai.callback.core import Callback
from torch.nn.parallel import DistributedDataParallel


class DataParallel(Callback):
    """Wraps the model for one fit, after `TrainableGroups` (-5) has frozen parameters.

    fastai's version needs CUDA and accelerate. Processes exchange gradients only in the last pass
    of a step.
    """

    order = -3
    run_valid = False

    def __init__(self, passes_per_step: int, device: torch.device) -> None:
        self.passes_per_step = passes_per_step
        self.devices = [device.index] if device.type == "cuda" else None
        self.context = ExitStack()

    def before_fit(self) -> None:
        # buffers never differ; exchanging them fails if validation shares differ in length
        accepted = inspect.signature(DistributedDataParallel).parameters
        sync = "forward_sync_buffers" if "forward_sync_buffers" in accepted else "broadcast_buffers"
        self.learn.model = DistributedDataParallel(
            self.learn.model,
            device_ids=self.devices,
            **{sync: False},  # type: ignore[arg-type]
        )

    def before_batch(self) -> None:
        if (self.learn.iter + 1) % self.passes_per_step:
            self.context.enter_context(self.learn.model.no_sync())

    def after_batch(self) -> None:
        self.context.close()

    def unwrap(self) -> None:
        """Removes the wrapper; call it after every fit, even if the fit raised."""
        self.context.close()
        if isinstance(self.learn.model, DistributedDataParallel):
            self.learn.model = self.learn.model.module
