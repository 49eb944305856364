"""The callbacks of a run, with their orders.

Trainable groups or rows -5, data order -4, data parallel -3, loss input 0, accumulation 6, step loss 7,
precision 10, guard and clipping 12, logits 20, recorder 50, one-cycle and most of fastai's own 60,
checkpoints 65, epoch table 70, metrics table 71, loss curve 72, tracker 75, meter 80.
"""

from gportuguese.plugins import without_warnings

with without_warnings():
    import fastai.basics  # noqa: F401

from gportuguese.callbacks.accumulation import Accumulation
from gportuguese.callbacks.data_order import EpochOrder, NextEpoch
from gportuguese.callbacks.epoch_table import EpochTable
from gportuguese.callbacks.extra_metrics import Logits, MetricsTable, TokenMetrics
from gportuguese.callbacks.guard import Guard, StepLoss
from gportuguese.callbacks.loss_curve import LossCurve
from gportuguese.callbacks.loss_input import HeadInLoss, LossInput
from gportuguese.callbacks.meter import Meter
from gportuguese.callbacks.parallel import DataParallel
from gportuguese.callbacks.precision import Precision
from gportuguese.callbacks.resume import Checkpoints
from gportuguese.callbacks.trackers import TensorBoard, TrackerLog, open_tracker
from gportuguese.callbacks.unfreezing import TrainableGroups, TrainableRows

__all__ = [
    "Accumulation",
    "Checkpoints",
    "DataParallel",
    "EpochOrder",
    "EpochTable",
    "Guard",
    "HeadInLoss",
    "Logits",
    "LossCurve",
    "LossInput",
    "Meter",
    "MetricsTable",
    "NextEpoch",
    "Precision",
    "StepLoss",
    "TensorBoard",
    "TokenMetrics",
    "TrackerLog",
    "TrainableGroups",
    "TrainableRows",
    "open_tracker",
]
