"""The loss of a whole step, and stopping before a step that would do harm."""

from __future__ import annotations

import math
from typing import Any

import torch
from fastai.callback.core import Callback

from gportuguese.config import UserError
from gportuguese.world import World


class TrainingStopped(UserError):
    """The next step would do harm; the weights are still those of the step before."""

    epoch = 0
    """Epochs of the phase before the one it happened in."""
    step: int | None = None
    """Steps of that epoch before the one at fault; None where it was no step."""


class StepLoss(Callback):
    """The mean loss of a step, over its passes and all processes; it stays on the device.

    After `Accumulation` (6), which ends all passes but a step's last.
    """

    order = 7
    run_valid = False

    def __init__(self, passes_per_step: int, world: World) -> None:
        self.passes_per_step, self.world = passes_per_step, world

    @property
    def step(self) -> int:
        """Steps of the epoch before this one."""
        return int(self.learn.iter) // self.passes_per_step

    def before_train(self) -> None:
        self.total: Any = 0

    def after_loss(self) -> None:
        self.total = self.total + self.learn.loss.detach()

    def before_step(self) -> None:
        self.value = self.total / self.passes_per_step
        self.world.total(self.value)
        self.value /= self.world.num_ranks
        self.total = 0


class Guard(Callback):
    """Stops the run before a step whose loss or gradients are not finite, or whose loss jumped up.

    Also clips gradients. With fp16 it sees unscaled ones, and steps that overflowed were left out
    before it.

    A look at the verdict makes the host wait for a GPU in every step. With `is_late` the optimizer's
    own kernel leaves the weights alone (`found_inf`, which fused AdamW heeds), and the host reads
    the verdict one step later, when it has long been known.
    """

    order = 12
    run_valid = False
    _SETTLING_STEPS = 20
    _MEAN_STEPS = 50

    def __init__(self, max_norm: float | None, max_loss_rise: float | None, is_late: bool) -> None:
        self.max_norm, self.max_loss_rise, self.is_late = max_norm, max_loss_rise, is_late

        self.begun: dict[str, Any] = {"num_steps": 0, "mean": None}
        """What an interrupted fit had come to."""
        self.running_loss = math.nan
        """Mean loss of recent steps as last read from the device; nan before the first."""

    def before_fit(self) -> None:
        mean = self.begun["mean"]
        self.num_steps: int = self.begun["num_steps"]
        self.mean = None if mean is None else torch.tensor(mean, device=self.learn.dls.device)
        """Running mean of the loss of earlier steps."""
        self.begun = {"num_steps": 0, "mean": None}
        self.pending: tuple[torch.Tensor, Any, int, int] | None = None

    def before_step(self) -> None:
        self.judge()
        parameters = [p for p in self.learn.model.parameters() if p.grad is not None]
        norm = torch.nn.utils.get_total_norm([p.grad for p in parameters])
        loss = self.learn.step_loss.value
        mean = loss if self.mean is None else self.mean
        is_bad = ~(torch.isfinite(norm) & torch.isfinite(loss))
        if self.max_loss_rise is not None and self.num_steps >= self._SETTLING_STEPS:
            is_bad |= loss > mean + self.max_loss_rise
        self._note(torch.stack([is_bad.float(), loss, mean, norm.float()]))
        if self.is_late:
            self.learn.opt.opt.found_inf = is_bad.float()
        else:
            self.judge()
        if self.max_norm is not None:
            torch.nn.utils.clip_grads_with_norm_(parameters, self.max_norm, norm)
        self.num_steps += 1
        weight = 1 / min(self.num_steps, self._MEAN_STEPS)
        self.mean = torch.where(is_bad, mean, torch.lerp(mean, loss, weight))

    def so_far(self) -> dict[str, Any]:
        """What this fit has come to."""
        mean = None if self.mean is None else self.mean.item()
        return {"num_steps": self.num_steps, "mean": mean}

    def after_train(self) -> None:
        self.judge()

    def _note(self, verdict_4: torch.Tensor) -> None:
        done = None
        if self.is_late and verdict_4.is_cuda:
            host_4 = torch.empty(4, pin_memory=True)
            host_4.copy_(verdict_4, non_blocking=True)
            done = torch.cuda.Event()  # type: ignore[no-untyped-call]
            done.record(torch.cuda.current_stream(self.learn.dls.device))
            verdict_4 = host_4
        self.pending = (verdict_4, done, self.learn.epoch, self.learn.step_loss.step)

    def judge(self) -> None:
        """Raises `TrainingStopped` if the last step noted was bad."""
        if self.pending is None:
            return
        (verdict_4, done, epoch, step), self.pending = self.pending, None
        if done is not None:
            done.synchronize()
        is_bad, loss, mean, norm = verdict_4.tolist()
        self.running_loss = mean
        if is_bad:
            self.stop(epoch, step, loss, mean, norm)

    def stop(self, epoch: int, step: int, loss: float, mean: float, norm: float) -> None:
        """Raises the `TrainingStopped` of a run that must not take its next step."""
        error = TrainingStopped(
            f"epoch {epoch + 1} of this phase, step {step + 1}: the loss is {loss:.4g} (mean before: "
            f"{mean:.4g}) and the norm of the gradients {norm:.4g}; stopped before the weights "
            "changed. Lower lr_max, set train.grad_clip, train in bf16 or fp32, or raise "
            "train.max_loss_rise"
        )
        error.epoch, error.step = epoch, step
        raise error
