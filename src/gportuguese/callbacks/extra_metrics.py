"""Metrics for fastai's recorder: our own, and any that fastai accepts."""

from __future__ import annotations

import csv
import logging
from pathlib import Path
from typing import Any

import torch
from fastai.callback.core import Callback
from fastai.learner import AvgLoss, ValueMetric

from gportuguese import atomic
from gportuguese.callbacks.epoch_table import EpochTable
from gportuguese.metrics import Measures, TokenSums

log = logging.getLogger("gportuguese")


class Logits(Callback):
    """Gives logits `[B, T, V]` to metrics and `get_preds`, and leaves them out if nobody needs them.

    The loss computes logits in chunks and keeps none, so `learn.pred` holds hidden states.
    """

    order = 20

    def after_loss(self) -> None:
        if self._is_needed():
            self.learn.pred = self.learn.loss_func.logits(self.learn.pred.detach())

    def _is_needed(self) -> bool:
        gathering = getattr(self.learn, "gather_preds", None)
        if gathering is not None:
            return bool(gathering.with_preds)
        if self.training and not self.learn.recorder.train_metrics:
            return False
        return any(not isinstance(each, (AvgLoss, ValueMetric)) for each in self.learn.metrics)


class MetricsTable(Callback):
    """Appends the metrics of every validation to `metrics.csv`, across all fits of a run."""

    order = 71  # after the epoch table, whose epochs it takes
    remove_on_fetch = True

    def __init__(self, folder: Path, table: EpochTable) -> None:
        self.path, self.table = folder / "metrics.csv", table
        self.rows: list[dict[str, Any]] = []
        if self.path.exists():  # a resumed run drops the rows of epochs that it repeats
            with self.path.open(encoding="utf-8", newline="") as file:
                rows = list(csv.DictReader(file))
            self.rows = [row for row in rows if int(row["epoch"]) < len(table.rows)]

    def after_validate(self) -> None:
        row = self.table.rows[-1]
        values = {metric.name: f"{float(metric.value):.9g}" for metric in self.learn.metrics}
        self.rows.append({"epoch": row.epoch, "phase": row.phase, **values})
        with (
            atomic.replacing(self.path) as scratch,
            scratch.open("w", encoding="utf-8", newline="") as file,
        ):
            # a resumed run may have other metrics
            columns = list(dict.fromkeys(column for row in self.rows for column in row))
            writer = csv.DictWriter(file, columns, lineterminator="\n")
            writer.writeheader()
            writer.writerows(self.rows)
        if values:
            shown = ", ".join(f"{name} {value}" for name, value in values.items())
            log.info("epoch %d (%s): %s", row.epoch, row.phase, shown)


class TokenMetrics(Callback):
    """Accuracy, perplexity and bits per byte of the validation set, from the sums of the loss."""

    order = 40

    def __init__(self, bytes_per_token: torch.Tensor) -> None:
        self.bytes_per_token = bytes_per_token
        self.sums = TokenSums(bytes_per_token)

    def before_validate(self) -> None:
        self.sums = TokenSums(self.bytes_per_token)

    def after_loss(self) -> None:
        if not self.training and self.learn.yb:
            loss = self.learn.loss_func
            self.sums.add(loss.nats_BT, loss.correct_BT, self.learn.yb[0])

    def metrics(self) -> list[ValueMetric]:
        """The three as fastai metrics."""

        def value(name: str) -> Any:
            measures = self.sums.measures() if self.sums.sums_5[-1] else None
            return getattr(measures, name, None)

        names = [name for name in Measures.__dataclass_fields__ if name != "loss"]
        return [ValueMetric(lambda name=name: value(name), name) for name in names]
