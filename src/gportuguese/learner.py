"""The fastai `Learner` of a run: loaders, optimizer, callbacks, one fit, and the rate finder."""

from __future__ import annotations

import tempfile
import warnings
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gportuguese.callbacks import (
    Accumulation,
    DataParallel,
    Guard,
    LossInput,
    Precision,
    StepLoss,
    TrainableGroups,
)

# isort: split
# imported after the callbacks, which silence fastai's import warnings
import torch
from fastai.callback.core import (
    Callback,
    CancelEpochException,
    CancelFitException,
    TrainEvalCallback,
)
from fastai.callback.schedule import valley  # importing it also gives Learner its fit_one_cycle
from fastai.learner import Learner, Recorder
from fastai.optimizer import OptimWrapper

from gportuguese import causal_lm
from gportuguese.artifacts import Artifact
from gportuguese.callbacks.resume import Position
from gportuguese.causal_lm import prepare_model
from gportuguese.config import Config, PhaseConfig, TrainConfig
from gportuguese.loss import HeadLoss
from gportuguese.optimizer import learning_rates, make_optimizer
from gportuguese.precision import check_machine
from gportuguese.progress import Advance, track
from gportuguese.tokens import BlockLoader, load_ids
from gportuguese.world import World, WorldError, keep_freed_memory, seed_everything

if TYPE_CHECKING:
    from transformers import PreTrainedModel


_FINDER_STEPS = 100


@dataclass
class Loaders:
    """The part of fastai's `DataLoaders` that its `Learner` uses."""

    train: BlockLoader
    valid: BlockLoader
    device: torch.device
    n_inp: int = 1

    def __getitem__(self, index: int) -> BlockLoader:
        return (self.train, self.valid)[index]


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
        for number, batch in enumerate(self.dl, self.dl.first_batch):
            self.one_batch(number, batch)

    def _set_device(self, batch: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
        return tuple(part.to(self.dls.device, non_blocking=True) for part in batch)


def make_loaders(config: Config, tokens: Artifact, world: World) -> Loaders:
    """This process's share of the training and validation batches, each one micro-batch."""
    section, block_size = config.train, config.tokens.block_size

    def blocks(num_tokens: int | None) -> int | None:
        return None if num_tokens is None else num_tokens // block_size

    common: dict[str, Any] = {
        "block_size": block_size,
        "batch_size": config.runtime.micro_batch_size,
        "rank": world.rank,
        "num_ranks": world.num_ranks,
        "pin_memory": world.device != "cpu",
    }
    dtype = tokens.facts["dtype"]
    return Loaders(
        train=BlockLoader(
            load_ids(tokens.folder, "train", dtype),
            seed=section.seed,
            num_blocks=blocks(section.epoch_tokens),
            multiple=section.global_batch_size,
            **common,
        ),
        valid=BlockLoader(
            load_ids(tokens.folder, "valid", dtype),
            num_blocks=blocks(section.valid_tokens),
            **common,
        ),
        device=torch.device(world.device),
    )


def make_learner(
    model: PreTrainedModel,
    loaders: Loaders,
    config: Config,
    world: World,
    guard_type: type[Guard] = Guard,
) -> PhaseLearner:
    """The `Learner` of a run with the callbacks that every fit needs.

    Its loss computes the logits, so the model's forward pass now ends before the head.

    Raises `WorldError` if the processes cannot share the global batch evenly.
    """
    section, runtime = config.train, config.runtime
    prepare_model(model, config, world)
    passes, rest = divmod(section.global_batch_size, runtime.micro_batch_size * world.num_ranks)
    if rest:
        raise WorldError(
            f"train.global_batch_size={section.global_batch_size} does not divide among "
            f"{world.num_ranks} processes with runtime.micro_batch_size="
            f"{runtime.micro_batch_size} each; lower the micro-batch or start fewer processes"
        )
    loss = HeadLoss(
        model,
        chunk_rows=runtime.loss_rows,
        vocab_multiple=runtime.vocab_multiple,
        compile=runtime.compile,
    )
    step_loss = StepLoss(passes, world)
    guard = guard_type(
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
    learn = PhaseLearner(
        loaders,
        model,
        loss_func=loss,
        opt_func=OptimWrapper(
            opt=make_optimizer(model, causal_lm.parameter_groups(model), section)
        ),
        cbs=cbs,
        default_cbs=False,
        wd_bn_bias=True,  # weight decay is set per group by make_optimizer
        train_bn=False,  # norms of a frozen group are frozen too
    )
    learn.logger = lambda *_: None
    learn.create_opt()
    if runtime.compile:
        causal_lm.compile_blocks(model)
    return learn


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
        learn.precision.leave()
        if learn.data_parallel is not None:
            learn.data_parallel.unwrap()


class _FinderMeter(Callback):
    """Reports each step of the search."""

    order = 80

    def __init__(self, advance: Advance, guard: Guard) -> None:
        self.advance, self.guard = advance, guard

    def after_step(self) -> None:
        self.advance(1, f"loss {self.guard.running_loss:.3f}, lr {self.opt.hypers[-1]['lr']:.1e}")


class _FinderGuard(Guard):
    """Clips gradients as in training; ends the search when loss or gradients are not finite."""

    name = "guard"

    def stop(self, *_: float) -> None:
        raise CancelFitException


def find_rate(config: Config, inputs: dict[str, Artifact], picture: Path, world: World) -> float:
    """The learning rate that fastai's `lr_find` suggests for the first phase; draws the curve."""
    from matplotlib.figure import Figure

    check_machine(world.device, config)
    keep_freed_memory()
    seed_everything(config.train.seed, 0)
    # the search must reach rates at which the loss jumps
    config = replace(config, train=replace(config.train, max_loss_rise=None))
    model = causal_lm.load(inputs["align"].folder)
    loaders = make_loaders(config, inputs["tokens"], world)
    learn = make_learner(model, loaders, config, world, _FinderGuard)
    groups = causal_lm.parameter_groups(model)
    phase = config.train.phases[0]
    learn.add_cbs([Recorder(), TrainableGroups(groups, phase.trainable_groups)])
    with tempfile.TemporaryDirectory() as scratch, track("lr-find", _FINDER_STEPS) as advance:
        learn.add_cb(_FinderMeter(advance, learn.guard))
        learn.path = Path(scratch)  # fastai saves the weights there during the search
        suggestion = learn.lr_find(
            num_it=_FINDER_STEPS * learn.step_loss.passes_per_step,
            suggest_funcs=(valley,),
            show_plot=False,
        )
    axes = (figure := Figure(figsize=(7, 4))).subplots()
    axes.plot(learn.recorder.lrs, [float(loss) for loss in learn.recorder.losses])
    axes.axvline(suggestion.valley, color="tab:red", label=f"suggested: {suggestion.valley:.1e}")
    axes.set(xscale="log", xlabel="learning rate", ylabel="training loss (nats per token)")
    axes.legend()
    figure.savefig(picture, dpi=120, bbox_inches="tight")
    return float(suggestion.valley)
