"""Where a training is, saved so that a killed run goes on with the same bytes."""

from __future__ import annotations

import logging
import random
import shutil
import signal
import threading
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from fastai.callback.core import Callback

from gportuguese import artifacts
from gportuguese import model as models
from gportuguese.callbacks.epoch_table import EpochTable
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
    """How far a run is."""

    phase: int = 0
    """Phases finished."""
    epoch: int = 0
    """Epochs of this phase finished."""
    step: int = 0
    """Optimizer steps of this epoch finished."""

    def in_words(self, phase: str) -> str:
        """The place in the phase of that name, for a person."""
        return f"phase {phase}, epoch {self.epoch + 1}, after {self.step} steps"


class Checkpoints(Callback):
    """Saves every `minutes`, and before the run obeys SIGINT or SIGTERM; keeps the last two.

    A signal is obeyed after the step (or validation batch) under way; a second one at once.
    All processes save and stop together. Everything is there that later steps depend on: weights,
    optimizer, guard, loss scale, random states, position, and the epoch table with its open row.
    Weights are safetensors, the rest is read by `torch.load(weights_only=True)`.
    """

    order = 65

    def __init__(
        self, folder: Path, model: PreTrainedModel, table: EpochTable, minutes: float, world: World
    ) -> None:
        self.folder, self.model, self.table = folder, model, table
        self.seconds, self.world = 60 * minutes, world
        self.phase = 0
        self.signal = 0

    def before_fit(self) -> None:
        self.due = time.monotonic() + self.seconds
        self.position = begin = self.learn.begin
        self.learn.train_iter = begin.epoch * len(self.learn.dls.train) + self.learn.begin_batch
        self.handlers = {}
        if threading.current_thread() is threading.main_thread():
            self.handlers = {number: signal.signal(number, self._note) for number in _SIGNALS}

    def leave(self) -> None:
        """Gives the signals back, also after a fit that raised."""
        for number, handler in getattr(self, "handlers", {}).items():
            signal.signal(number, handler)
        self.handlers = {}

    def _note(self, number: int, _: Any) -> None:
        self.signal = number
        self.leave()  # the next one ends the process at once
        log.info("stopping after this step; again to stop at once")

    def before_epoch(self) -> None:
        if self.learn.epoch != self.position.epoch:
            self.position = Position(self.phase, self.learn.epoch, 0)

    def after_batch(self) -> None:
        if self.training:
            if self.learn.accumulation.count:
                return  # between the passes of one step
            self.position = Position(self.phase, self.learn.epoch, self.learn.step_loss.step + 1)
        elif self.world.num_ranks > 1:
            return  # processes have unequal shares of a validation
        is_late = self.world.is_main and time.monotonic() >= self.due
        stop, is_due = self.world.largest(self.signal, int(is_late))
        if stop or is_due:
            self.learn.guard.judge()  # on a GPU the verdict on this step is still out
            self.save(self.learn, self.position)
            self.due = time.monotonic() + self.seconds
        if stop:
            name, place = signal.Signals(stop).name, self.position.in_words(self.table.phase)
            log.info("stopped by %s in %s; the same command goes on there", name, place)
            raise KeyboardInterrupt if stop == signal.SIGINT else SystemExit(128 + stop)

    def save(self, learn: Learner, position: Position) -> None:
        """Writes a checkpoint: whole, or not there."""
        random_states = self.world.gather(_random_states(learn.dls.device))
        if not self.world.is_main:
            return
        open_row = self.table.so_far() if position.step else {}
        state = {
            "position": asdict(position),
            "rows": [asdict(row) for row in self.table.rows],
            "times": [asdict(times) for times in self.table.times],
            "open_row": open_row,
            "optimizer": _plain_state(learn.opt.opt),
            "guard": learn.guard.so_far(),
            "scaler": learn.precision.scaler.state_dict(),
            "random": random_states,
        }
        numbers = [int(path.name) for path in _folders(self.folder)]
        name = f"{max(numbers, default=0) + 1:06d}"
        scratch = self.folder / f"{name}.tmp"
        shutil.rmtree(scratch, ignore_errors=True)
        scratch.mkdir(parents=True)
        models.save(self.model, scratch)
        torch.save(state, scratch / _STATE)
        artifacts.seal(scratch)
        artifacts.rename_whole(scratch, self.folder / name)
        for old in _folders(self.folder)[:-_KEPT]:
            shutil.rmtree(old)


@dataclass
class Checkpoint:
    """A checkpoint that was read and found whole."""

    folder: Path
    state: dict[str, Any]

    @property
    def position(self) -> Position:
        """Where it was saved."""
        return Position(**self.state["position"])

    @property
    def rows(self) -> tuple[list[EpochRow], list[EpochTime]]:
        """The epoch table so far."""
        rows = [EpochRow(**row) for row in self.state["rows"]]
        return rows, [EpochTime(**times) for times in self.state["times"]]

    def restore(self, learn: Learner, table: EpochTable, world: World) -> None:
        """Everything but weights and rows, which the run was made with."""
        learn.opt.opt.load_state_dict(self.state["optimizer"])
        learn.precision.scaler.load_state_dict(self.state["scaler"])
        if self.position.step or self.position.epoch:  # in the middle of a fit
            learn.guard.begun = self.state["guard"]
        if self.state["open_row"]:
            table.begun = self.state["open_row"]
        if self.position.step and world.rank < len(self.state["random"]):
            _set_random_states(self.state["random"][world.rank], learn.dls.device)


def newest(folder: Path) -> Checkpoint | None:
    """The last whole checkpoint in a folder; damaged ones are told and passed over."""
    for path in reversed(_folders(folder)):
        if not (fault := artifacts.broken_seal(path)):
            state = torch.load(path / _STATE, map_location="cpu", weights_only=True)
            return Checkpoint(path, state)
        log.warning("%s: passed over, going back to the checkpoint before it", fault)
    return None


def _folders(folder: Path) -> list[Path]:
    return sorted(path for path in folder.glob("[0-9]*") if path.name.isdigit())


def _plain_state(optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """The optimizer's state without the NumPy scalars that fastai's schedules leave in it.

    `torch.load(weights_only=True)` refuses those.
    """
    state = optimizer.state_dict()
    for group in state["param_groups"]:
        group["lr"] = float(group["lr"])
        group["betas"] = tuple(float(beta) for beta in group["betas"])
    return state


def _random_states(device: torch.device) -> dict[str, Any]:
    """As plain numbers, which travel between processes and are no pickle's classes."""
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
