"""The loss of a whole step, and a guard that stops the run before a bad step."""

from __future__ import annotations

import math
from typing import Any

import torch
from fastai.callback.core import Callback, CancelFitException

from gportuguese.config import UserError
from gportuguese.world import World


class TrainingStopped(UserError):
    """Training stopped before a bad step; the weights are those of the last good step.

    `step` is the index of the bad step in its epoch; None if the fault was not in a step.
    """

    def __init__(self, message: str, step: int | None = None) -> None:
        super().__init__(message)
        self.message, self.step = message, step

    def __str__(self) -> str:
        return self.message  # fastai changes the `args` of exceptions from callbacks


class StepLoss(Callback):
    """The mean loss of a step over its passes and all processes; it stays on the device.

    It runs after `Accumulation` (6), which cancels `before_step` in all passes but the last.
    """

    order = 7
    run_valid = False

    def __init__(self, passes_per_step: int, world: World) -> None:
        self.passes_per_step, self.world = passes_per_step, world

    @property
    def step(self) -> int:
        """The index of the current step in its epoch."""
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
    """Stops the run before a step whose loss or gradients are not finite, or whose loss jumped.

    It also clips gradients. With fp16 it sees unscaled gradients; steps that overflow are skipped
    before they reach it.

    Reading the result in every step would synchronize with the GPU. With `is_late` the host reads
    it one step later; meanwhile the optimizer's kernel leaves the weights unchanged (`found_inf`,
    which fused AdamW supports).

    fastai's rate finder must reach rates at which the loss jumps: there, a bad step ends the search.
    """

    order = 12
    run_valid = False
    _SETTLING_STEPS = 20
    _MEAN_STEPS = 50

    def __init__(
        self,
        step_loss: StepLoss,
        max_norm: float | None,
        max_loss_rise: float | None,
        is_late: bool,
    ) -> None:
        self.step_loss, self.is_late = step_loss, is_late
        self.max_norm, self.max_loss_rise = max_norm, max_loss_rise
        self.num_steps = 0
        self.mean: torch.Tensor | None = None
        """Running mean of the loss of the fit's earlier steps."""
        self.pending: tuple[torch.Tensor, Any, int, int] | None = None
        self.running_loss = math.nan
        """The mean last read from the device; nan before the first step."""

    def state_dict(self) -> dict[str, Any]:
        """Steps and running mean of the current fit."""
        return {
            "num_steps": self.num_steps,
            "mean": None if self.mean is None else self.mean.item(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Resumes the fit from `state`."""
        mean, self.num_steps = state["mean"], state["num_steps"]
        self.mean = None if mean is None else torch.tensor(mean, device=self.learn.dls.device)

    @property
    def _is_search(self) -> bool:
        return hasattr(self.learn, "lr_finder")

    def before_fit(self) -> None:
        self.pending = None  # of a fit that was interrupted

    def after_fit(self) -> None:
        self.num_steps, self.mean = 0, None

    def before_step(self) -> None:
        self.judge()
        parameters = [p for p in self.learn.model.parameters() if p.grad is not None]
        norm = torch.nn.utils.get_total_norm([p.grad for p in parameters])
        loss = self.step_loss.value
        mean = loss if self.mean is None else self.mean
        is_bad = ~(torch.isfinite(norm) & torch.isfinite(loss))
        rise = None if self._is_search else self.max_loss_rise
        if rise is not None and self.num_steps >= self._SETTLING_STEPS:
            is_bad |= loss > mean + rise
        self._keep(torch.stack([is_bad.float(), loss, mean, norm.float()]))
        if self.is_late:
            self.learn.opt.opt.found_inf = is_bad.float()
        else:
            self.judge()
        if self.max_norm is not None:
            torch.nn.utils.clip_grads_with_norm_(parameters, self.max_norm, norm)
        self.num_steps += 1
        weight = 1 / min(self.num_steps, self._MEAN_STEPS)
        self.mean = torch.where(is_bad, mean, torch.lerp(mean, loss, weight))

    def after_train(self) -> None:
        self.judge()

    def _keep(self, verdict_4: torch.Tensor) -> None:
        done = None
        if self.is_late and verdict_4.is_cuda:
            host_4 = torch.empty(4, pin_memory=True)
            host_4.copy_(verdict_4, non_blocking=True)
            done = torch.cuda.Event()  # type: ignore[no-untyped-call]
            done.record(torch.cuda.current_stream(self.learn.dls.device))
            verdict_4 = host_4
        self.pending = (verdict_4, done, self.learn.epoch, self.step_loss.step)

    def judge(self) -> None:
        """Reads the pending result; raises `TrainingStopped` if it is bad."""
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
        """Raises `TrainingStopped` with the bad step's loss, running mean and gradient norm."""
        if self._is_search:
            raise CancelFitException
        raise TrainingStopped(
            f"epoch {epoch + 1} of this phase, step {step + 1}: the loss is {loss:.4g} (running mean "
            f"{mean:.4g}), the norm of the gradients {norm:.4g}; stopped before the weights "
            "changed. Lower lr_max, set train.grad_clip, train in bf16 or fp32, or raise "
            "train.max_loss_rise",
            step,
        )
