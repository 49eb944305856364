"""Logs of a run for TensorBoard, Weights & Biases or Trackio."""

from __future__ import annotations

import importlib
import math
import os
import uuid
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, Protocol

from fastai.callback.core import Callback

from gportuguese import artifacts
from gportuguese.callbacks.epoch_table import EpochTable
from gportuguese.callbacks.guard import StepLoss
from gportuguese.config import Config, as_tree, without_secrets
from gportuguese.plugins import tracker_error


class Tracker(Protocol):
    """A place for the numbers of a run."""

    def log(self, values: Mapping[str, float], step: int) -> None:
        """Logs values; `step` counts the optimizer steps of the run."""

    def close(self) -> None:
        """Ends the log."""


class TensorBoard:
    """Writes event files to a folder."""

    def __init__(self, folder: Path) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self.writer: Any = SummaryWriter(str(folder))

    def log(self, values: Mapping[str, float], step: int) -> None:
        """Writes one scalar for each value."""
        for name, value in values.items():
            self.writer.add_scalar(name, value, step)

    def close(self) -> None:
        """Closes the file."""
        self.writer.close()


def _public(tree: Any) -> Any:
    """A tree of settings in which no URL has a password or a query."""
    if isinstance(tree, dict):
        return {key: _public(value) for key, value in tree.items()}
    if isinstance(tree, list):
        return [_public(value) for value in tree]
    return without_secrets(tree) if isinstance(tree, str) else tree


class HostedRun:
    """A run of Weights & Biases, or of Trackio, which has the same functions."""

    def __init__(self, package: str, config: Config, out: Path) -> None:
        self.module = importlib.import_module(package)
        options: dict[str, Any] = {
            "project": os.environ.get(f"{package.upper()}_PROJECT", "gportuguese"),
            "name": f"{config.name} {out.name.removesuffix('.partial')}",
            "config": _public(as_tree(config)),
            "resume": "allow",  # a resumed training continues the same run
        }
        if package == "wandb":  # Trackio knows a run by its name
            options["id"] = _run_id(out / artifacts.SCRATCH / "wandb-run")
        errors = (OSError, RuntimeError, ValueError, getattr(self.module, "Error", OSError))
        try:
            self.run = self.module.init(**options)
        except errors as error:
            raise tracker_error(package, error) from error

    def log(self, values: Mapping[str, float], step: int) -> None:
        """Logs the values of a step."""
        self.run.log(dict(values), step=step)

    def close(self) -> None:
        """Finishes the run."""
        self.run.finish()


def _run_id(path: Path) -> str:
    """The id in a file, which is created if it is missing; it lives as long as the training."""
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(uuid.uuid4().hex[:12], encoding="utf-8")
    return path.read_text(encoding="utf-8")


def open_tracker(config: Config, out: Path) -> Tracker | None:
    """Starts the run's `train.tracker`; None for `none`. Raises `PluginError` if it cannot start."""
    match config.train.tracker:
        case "none":
            return None
        case "tensorboard":
            return TensorBoard(out / "logs")
        case package:
            return HostedRun(package, config, out)


class TrackerLog(Callback):
    """Logs training loss and learning rate every `every` steps, and each row of the epoch table."""

    order = 75
    remove_on_fetch = True  # `get_preds` inside a fit is no validation
    every = 10

    def __init__(
        self, tracker: Tracker, table: EpochTable, step_loss: StepLoss, first_step: int
    ) -> None:
        self.tracker, self.table, self.step_loss = tracker, table, step_loss
        self.num_steps = first_step

    def after_step(self) -> None:
        self.num_steps += 1
        if self.num_steps % self.every == 0:
            values = {
                "train/loss": self.step_loss.value.item(),
                "train/lr": float(self.opt.hypers[-1]["lr"]),
            }
            self.tracker.log(values, self.num_steps)

    def after_validate(self) -> None:
        row = asdict(self.table.rows[-1])
        self.tracker.log(
            {
                f"epoch/{name}": value
                for name, value in row.items()
                if isinstance(value, float) and not math.isnan(value)
            },
            self.num_steps,
        )
