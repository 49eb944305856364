"""The fastai `Learner` of a run: optimizer, callbacks, and one fit.

`interactive.py` extends it for notebooks.
"""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

from gportuguese.callbacks import (
    Accumulation,
    DataParallel,
    Guard,
    LossInput,
    Precision,
    StepLoss,
    TrainableGroups,
    TrainableRows,
)

# isort: split
# imported after the callbacks, which silence fastai's import warnings
import fastai.callback.schedule  # noqa: F401 - gives Learner its fit_one_cycle
import numpy as np
import torch
from fastai.callback.core import Callback, CancelEpochException, TrainEvalCallback
from fastai.learner import Learner
from fastai.optimizer import OptimWrapper

from gportuguese import causal_lm
from gportuguese.callbacks.resume import Position
from gportuguese.causal_lm import ParameterGroups, prepare_model
from gportuguese.config import Config, PhaseConfig, TrainConfig, UserError
from gportuguese.loaders import Loaders
from gportuguese.loss import HeadLoss
from gportuguese.optimizer import by_decay, learning_rates, make_optimizer
from gportuguese.world import World, WorldError

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class PhaseError(UserError):
    """A phase has nothing to train."""


class GroupedOptimizer(OptimWrapper):
    """fastai's wrapper for an optimizer with two groups, with and without decay, per parameter group.

    Rates and `freeze_to` count the model's four parameter groups: `slice(1e-5, 1e-3)` spreads over
    four, and `freeze_to(-2)` trains the last two. A weight decay is set only where it applies.
    """

    def __repr__(self) -> str:
        return f"{type(self.opt).__name__} (two groups per parameter group: with and without decay)"

    def set_hyper(self, name: str, value: Any) -> None:
        """Sets a hyper-parameter: one number, a slice, or a list of four or of eight."""
        num_groups = causal_lm.NUM_GROUPS
        if isinstance(value, slice):
            first, last = value.start, value.stop
            value = (
                np.geomspace(first, last, num_groups)
                if first
                else [last / 10] * (num_groups - 1) + [last]
            )
        if name == "wd":
            value = [rate if decays else 0.0 for rate, decays in by_decay([value] * num_groups)]
        elif np.ndim(value) == 1 and len(value) == num_groups:
            value = [each for each, _ in by_decay(value)]
        super().set_hyper(name, value)

    def freeze_to(self, n: int) -> None:
        """Freezes all parameter groups before group `n`."""
        super().freeze_to(2 * n)
        self.frozen_idx = n % causal_lm.NUM_GROUPS


class PhaseLearner(Learner):
    """A fastai `Learner` that can resume in the middle of a fit; copies batches asynchronously.

    fastai stores each callback under its name, so the annotated callbacks exist from the start.
    """

    step_loss: StepLoss
    guard: Guard
    precision: Precision
    data_parallel: DataParallel | None = None

    resume_from = Position()
    """Epoch and step at which the next fit starts."""

    def _do_fit(self) -> None:
        first_batch = self.resume_from.step * self.step_loss.passes_per_step
        self.train_iter = self.resume_from.epoch * len(self.dls.train) + first_batch
        for epoch in range(self.resume_from.epoch, self.n_epoch):
            self.epoch = epoch
            self.dls.train.first_batch = first_batch
            first_batch = 0
            self._with_events(self._do_epoch, "epoch", CancelEpochException)

    def all_batches(self) -> None:
        """Runs the loader's remaining batches, numbered from the start of the epoch."""
        self.n_iter = len(self.dl)
        for number, batch in enumerate(self.dl, getattr(self.dl, "first_batch", 0)):
            self.one_batch(number, batch)

    def leave(self) -> None:
        """Ends autocast and unwraps the model; call it after every fit, even if the fit raised."""
        self.precision.leave()
        if self.data_parallel is not None:
            self.data_parallel.unwrap()

    def gather_args(self) -> dict[str, Any]:
        """What `WandbCallback` puts into the config of its run: nothing.

        fastai 2.8.12 cannot format numbers and None with fastcore 2, and would fail with any learner.
        """
        return {}

    def _set_device(self, batch: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
        return tuple(part.to(self.dls.device, non_blocking=True) for part in batch)


def make_phase_learner(
    model: PreTrainedModel,
    loaders: Loaders,
    config: Config,
    world: World,
    kind: type[PhaseLearner] = PhaseLearner,
    loss_kind: type[HeadLoss] = HeadLoss,
) -> PhaseLearner:
    """The `Learner` of a run with the callbacks that every fit needs.

    Its loss computes the logits, so the model's forward pass now ends before the head.

    Raises `WorldError` if the processes cannot share the global batch evenly.
    """
    section, runtime = config.train, config.runtime
    prepare_model(model, config, world)
    passes = world.passes_of_step(section.global_batch_size, runtime.micro_batch_size)
    loss = loss_kind(
        model,
        chunk_rows=runtime.loss_rows,
        vocab_multiple=runtime.vocab_multiple,
        compile=runtime.compile,
    )
    step_loss = StepLoss(passes, world)
    guard = Guard(
        step_loss,
        section.grad_clip,
        section.max_loss_rise,
        is_late=world.device != "cpu" and section.optimizer == "adamw",  # Muon ignores `found_inf`
    )
    cbs: list[Any] = [
        TrainEvalCallback(),
        LossInput(),
        Accumulation(passes, passes * runtime.micro_batch_size),
        step_loss,
        Precision(world.device, section.precision, step_loss, guard),
        guard,
    ]
    if world.num_ranks > 1:
        cbs.append(DataParallel(passes, torch.device(world.device)))
    learn = kind(
        loaders,
        model,
        loss_func=loss,
        opt_func=GroupedOptimizer(
            opt=make_optimizer(model, causal_lm.parameter_groups(model), section)
        ),
        cbs=cbs,
        default_cbs=False,
        moms=section.momentums,
        wd_bn_bias=True,  # weight decay is set per group by make_optimizer
        train_bn=False,  # norms of a frozen group are frozen too
    )
    learn.logger = lambda *_: None
    learn.create_opt()
    if runtime.compile:
        causal_lm.compile_blocks(model)
    return learn


def trainable_part(
    phase: PhaseConfig, model: PreTrainedModel, groups: ParameterGroups, is_new_V: np.ndarray
) -> TrainableGroups | TrainableRows:
    """The callback that freezes what a phase does not train; `is_new_V` marks the new rows."""
    if phase.trainable == "groups":
        return TrainableGroups(groups, phase.trainable_groups)
    if not is_new_V.any():
        raise PhaseError(
            f"phase {phase.name}: trainable: new_rows has none to train, because alignment copied all "
            "rows from the base; remove the phase"
        )
    rows = causal_lm.row_parameters(model)
    return TrainableRows(groups, rows, torch.from_numpy(is_new_V))


def count_trainable(
    phase: PhaseConfig, model: PreTrainedModel, groups: ParameterGroups, is_new_V: np.ndarray
) -> int:
    """The number of parameters that a phase trains."""
    if phase.trainable == "groups":
        return sum(map(causal_lm.count_parameters, groups[-phase.trainable_groups :]))
    return sum(p[0].numel() for p in causal_lm.row_parameters(model)) * int(is_new_V.sum())


def fit_phase(
    learn: PhaseLearner, phase: PhaseConfig, section: TrainConfig, cbs: list[Callback]
) -> None:
    """Runs a phase: one one-cycle fit with discriminative learning rates."""
    try:
        with warnings.catch_warnings():
            # torch.compile reads `.grad` of a block's input, and PyTorch warns about that
            warnings.filterwarnings("ignore", "The .grad attribute of a Tensor that is not a leaf")
            learn.fit_one_cycle(
                phase.epochs,
                lr_max=learning_rates(phase),
                div=section.div,
                div_final=section.div_final,
                pct_start=section.pct_start,
                moms=section.momentums,
                cbs=cbs,
            )
    except torch.OutOfMemoryError as error:
        raise WorldError(
            f"{learn.dls.device} is out of memory: lower runtime.micro_batch_size (the global batch "
            "stays the same) or runtime.loss_rows, or set runtime.activation_checkpointing; the "
            "same command resumes"
        ) from error
    finally:
        learn.leave()
