"""Checkpoints: a killed run resumes from them and produces the same bytes."""

from __future__ import annotations

import logging
import random
import shutil
import signal
import threading
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from fastai.callback.core import Callback

from gportuguese import artifacts, atomic, causal_lm
from gportuguese.callbacks.epoch_table import EpochTable
from gportuguese.callbacks.guard import Guard
from gportuguese.callbacks.loss_curve import LossCurve
from gportuguese.epochs import EpochRow, EpochTime
from gportuguese.world import World

if TYPE_CHECKING:
    from fastai.learner import Learner
    from transformers import PreTrainedModel

log = logging.getLogger("gportuguese")

_KEPT = 2
_STATE = "state.pt"
_SIGNALS = (signal.SIGINT, signal.SIGTERM)


@dataclass(frozen=True)
class Position:
    """The progress of a run: finished phases, epochs and steps."""

    phase: int = 0
    """Phases finished."""
    epoch: int = 0
    """Epochs of this phase finished."""
    step: int = 0
    """Optimizer steps of this epoch finished."""

    def in_words(self, phase: str) -> str:
        """The position as text for messages; `phase` is the current phase's name."""
        return f"phase {phase}, epoch {self.epoch + 1}, after {self.step} steps"


class Checkpoints(Callback):
    """Saves a checkpoint every `minutes`, and on SIGINT or SIGTERM; keeps the last two.

    A signal ends the run after the current step or validation batch; a second one ends it at once.
    All processes save and stop together. A checkpoint holds everything that later steps depend on:
    weights, optimizer, guard, loss scale, random states, position, loss curve, and the epoch table
    with the sums of the unfinished epoch. Weights are safetensors; `torch.load(weights_only=True)` reads the
    rest. Set `position` to where each fit starts.
    """

    order = 65
    remove_on_fetch = True  # `get_preds` inside a fit is no validation

    def __init__(
        self,
        folder: Path,
        model: PreTrainedModel,
        *,
        table: EpochTable,
        curve: LossCurve,
        guard: Guard,
        scaler: torch.amp.GradScaler,
        passes_per_step: int,
        minutes: float,
        world: World,
    ) -> None:
        self.folder, self.model, self.table, self.curve = folder, model, table, curve
        self.guard, self.scaler = guard, scaler
        self.passes_per_step, self.seconds, self.world = passes_per_step, 60 * minutes, world
        self.position = Position()
        self.signal = 0
        self.handlers: dict[int, Any] = {}

    def before_fit(self) -> None:
        self.due = time.monotonic() + self.seconds
        if threading.current_thread() is threading.main_thread():
            self.handlers = {number: signal.signal(number, self._stop_soon) for number in _SIGNALS}

    def leave(self) -> None:
        """Restores the signal handlers; call it after every fit, even if the fit raised."""
        for number, handler in self.handlers.items():
            signal.signal(number, handler)
        self.handlers = {}

    def _stop_soon(self, number: int, _: Any) -> None:
        self.signal = number
        self.leave()  # the next signal ends the process at once
        log.info("stopping after this step; a second signal stops at once")

    def before_epoch(self) -> None:
        if self.learn.epoch != self.position.epoch:
            self.position = replace(self.position, epoch=self.learn.epoch, step=0)

    def after_batch(self) -> None:
        if self.training:
            steps, remainder = divmod(self.learn.iter + 1, self.passes_per_step)
            if remainder:
                return  # the step is not complete
            self.position = replace(self.position, step=steps)
        elif self.world.num_ranks > 1:
            return  # validation shares differ, so processes cannot stop together here
        is_late = self.world.is_main and time.monotonic() >= self.due
        stop, is_due = self.world.largest(self.signal, int(is_late))
        if stop or is_due:
            self.guard.judge()  # on a GPU this step's result has not been read yet
            self.save(self.learn, self.position)
            self.due = time.monotonic() + self.seconds
        if stop:
            name, where = signal.Signals(stop).name, self.position.in_words(self.table.phase)
            log.info("stopped by %s in %s; the same command resumes from there", name, where)
            raise KeyboardInterrupt if stop == signal.SIGINT else SystemExit(128 + stop)

    def save(self, learn: Learner, position: Position) -> None:
        """Writes a checkpoint atomically: an interrupted save leaves none."""
        random_states = self.world.gather(_random_states(learn.dls.device))
        if not self.world.is_main:
            return
        state = {
            "position": asdict(position),
            "rows": [asdict(row) for row in self.table.rows],
            "times": [asdict(times) for times in self.table.times],
            "curve": self.curve.state_dict(),
            "open_row": self.table.state_dict() if position.step else {},
            "optimizer": _plain_state(learn.opt.opt),
            "guard": self.guard.state_dict(),
            "scaler": self.scaler.state_dict(),
            "random": random_states,
        }
        numbers = [int(path.name) for path in _folders(self.folder)]
        name = f"{max(numbers, default=0) + 1:06d}"
        scratch = self.folder / f"{name}.tmp"
        shutil.rmtree(scratch, ignore_errors=True)
        scratch.mkdir(parents=True)
        causal_lm.save(self.model, scratch)
        torch.save(state, scratch / _STATE)
        artifacts.seal(scratch)
        atomic.rename_whole(scratch, self.folder / name)
        for old in _folders(self.folder)[:-_KEPT]:
            shutil.rmtree(old)

    def restore(self, learn: Learner, checkpoint: Checkpoint) -> None:
        """Loads everything but weights and rows; those are loaded when the run is set up."""
        state, position = checkpoint.state, checkpoint.position
        learn.opt.opt.load_state_dict(state["optimizer"])
        self.scaler.load_state_dict(state["scaler"])
        if "curve" in state:  # checkpoints of older versions have none
            self.curve.load_state_dict(state["curve"])
        if position.step or position.epoch:  # in the middle of a fit
            self.guard.load_state_dict(state["guard"])
        if position.step:
            self.table.load_state_dict(state["open_row"])
            if self.world.rank < len(state["random"]):
                _set_random_states(state["random"][self.world.rank], learn.dls.device)


@dataclass
class Checkpoint:
    """A checkpoint that was loaded and found undamaged."""

    folder: Path
    state: dict[str, Any]

    @property
    def position(self) -> Position:
        """The position of the run when it was saved."""
        return Position(**self.state["position"])

    @property
    def rows(self) -> tuple[list[EpochRow], list[EpochTime]]:
        """Rows and times of the epoch table at the checkpoint."""
        rows = [EpochRow(**row) for row in self.state["rows"]]
        return rows, [EpochTime(**times) for times in self.state["times"]]


def newest(folder: Path) -> Checkpoint | None:
    """The newest undamaged checkpoint in a folder; warns about each damaged one it skips."""
    for path in reversed(_folders(folder)):
        if not (fault := artifacts.broken_seal(path)):
            state = torch.load(path / _STATE, map_location="cpu", weights_only=True)
            return Checkpoint(path, state)
        log.warning("%s: skipped, falling back to the previous checkpoint", fault)
    return None


def _folders(folder: Path) -> list[Path]:
    return sorted(path for path in folder.glob("[0-9]*") if path.name.isdigit())


def _plain_state(optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """The optimizer's state with plain floats instead of NumPy scalars from fastai's schedules.

    `torch.load(weights_only=True)` rejects NumPy scalars.
    """
    state = optimizer.state_dict()
    for group in state["param_groups"]:
        group["lr"] = float(group["lr"])
        group["betas"] = tuple(float(beta) for beta in group["betas"])
    return state


def _random_states(device: torch.device) -> dict[str, Any]:
    """Random states as plain numbers: processes can exchange them, and they need no pickle."""
    kind, keys, *rest = np.random.get_state()
    on_cuda = device.type == "cuda"
    return {
        "python": random.getstate(),
        "numpy": [kind, np.asarray(keys).tolist(), *rest],
        "torch": torch.get_rng_state().tolist(),
        "cuda": torch.cuda.get_rng_state(device).tolist() if on_cuda else None,
    }


def _set_random_states(states: dict[str, Any], device: torch.device) -> None:
    kind, keys, *rest = states["numpy"]
    random.setstate(states["python"])
    np.random.set_state((kind, np.array(keys, np.uint32), *rest))
    torch.set_rng_state(torch.tensor(states["torch"], dtype=torch.uint8))
    if device.type == "cuda" and states["cuda"] is not None:
        torch.cuda.set_rng_state(torch.tensor(states["cuda"], dtype=torch.uint8), device)
