"""What acts in one run, in order.

Trainable groups -5, data order -4, logits 0, accumulation 6, precision 10, finite loss 11, gradient
norm and clipping 12, fastai's recorder 50 and one-cycle 60, epoch table 70, logs 75, meter 80.
"""

from gportuguese.callbacks.accumulation import Accumulation
from gportuguese.callbacks.epoch_table import EpochTable, Meter, TensorBoardLog
from gportuguese.callbacks.feeding import EpochOrder, LogitsOnly
from gportuguese.callbacks.guard import FiniteLoss, GradientNorm
from gportuguese.callbacks.precision import Precision
from gportuguese.callbacks.unfreezing import TrainableGroups

__all__ = [
    "Accumulation",
    "EpochOrder",
    "EpochTable",
    "FiniteLoss",
    "GradientNorm",
    "LogitsOnly",
    "Meter",
    "Precision",
    "TensorBoardLog",
    "TrainableGroups",
]
