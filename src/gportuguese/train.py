"""The recipe: one one-cycle fit per phase on a fastai `Learner`, resumable between phases."""

from __future__ import annotations

import json
import logging
import os
import shutil
import time
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from fastai.callback.core import Callback, TrainEvalCallback
from fastai.callback.schedule import valley  # importing it also gives Learner its fit_one_cycle
from fastai.callback.training import GradientClip
from fastai.learner import Learner, Recorder
from fastai.optimizer import OptimWrapper

from gportuguese import artifacts, metrics, tokenizer
from gportuguese import model as models
from gportuguese.artifacts import Artifact
from gportuguese.callbacks import (
    Accumulation,
    EpochOrder,
    EpochTable,
    FiniteLoss,
    LogitsOnly,
    Meter,
    Precision,
    TensorBoardLog,
    TrainableGroups,
)
from gportuguese.callbacks.epoch_table import EpochRow, EpochTime
from gportuguese.callbacks.precision import autocast
from gportuguese.config import Config, PhaseConfig, TrainConfig
from gportuguese.progress import track
from gportuguese.tokens import BlockLoader, load_ids
from gportuguese.world import (
    World,
    check_precision,
    keep_freed_memory,
    peak_memory_bytes,
    seed_everything,
)

if TYPE_CHECKING:
    from transformers import PreTrainedModel

log = logging.getLogger("gportuguese")


@dataclass
class Loaders:
    """What fastai asks of its `DataLoaders`."""

    train: BlockLoader
    valid: BlockLoader
    device: torch.device
    n_inp: int = 1

    def __getitem__(self, index: int) -> BlockLoader:
        return (self.train, self.valid)[index]


def build(config: Config, inputs: dict[str, Artifact], out: Path, world: World) -> dict[str, Any]:
    """Writes `epochs.csv`, `phases/<n>-<name>/` with the weights after each, and `model/`.

    Goes on after the last finished phase found in `out`. Raises `TrainingStopped` on a loss that
    is not finite.
    """
    section = config.train
    check_precision(world.device, section.precision)
    keep_freed_memory()
    start = time.monotonic()
    loaders = make_loaders(config, inputs["tokens"], world)
    token_bytes = load_token_bytes(inputs["tokens"], world.device)
    done = _finished_phases(out, section)
    source = out / "phases" / done[-1] if done else inputs["align"].folder
    model = models.load(source)
    model.config.use_cache = False
    model.to(world.device)
    learn = make_learner(model, loaders, config, world)
    groups = models.parameter_groups(model)
    table = EpochTable(out, token_bytes, *_saved_rows(source if done else None), on_row=_log_row)
    if done:
        log.info("going on after phase %s", done[-1])
        state = torch.load(source / "optimizer.pt", map_location=world.device, weights_only=True)
        learn.opt.opt.load_state_dict(state)
    else:
        context = partial(autocast, world.device, section.precision)
        measures = metrics.measure(model, loaders.valid, token_bytes, context)
        table.add_row("before", float("nan"), measures, 0.0, time.monotonic() - start)
    num_epochs = sum(phase.epochs for phase in section.phases)
    epoch_blocks = loaders.train.epoch_blocks
    trained = table.rows[-1].epoch
    with track(
        "train", (num_epochs - trained) * epoch_blocks * config.tokens.block_size
    ) as advance:
        for index, phase in list(enumerate(section.phases))[len(done) :]:
            seed_everything(section.seed, index)
            table.phase = phase.name
            cbs: list[Callback] = [
                TrainableGroups(groups, phase.trainable_groups),
                EpochOrder(table.rows[-1].epoch),
                table,
                Meter(advance),
            ]
            if section.tensorboard:
                cbs.append(TensorBoardLog(out / "logs", table.rows[-1].epoch * len(loaders.train)))
            fit_phase(learn, phase, section, cbs)
            _save_phase(out, _phase_folder(index, phase), learn, table)
    facts = _finish(config, inputs, out, world, table, groups)
    num_tokens = num_epochs * epoch_blocks * config.tokens.block_size
    return {**facts, "tokens": num_tokens, "seconds": round(time.monotonic() - start, 1)}


def fit_phase(
    learn: Learner, phase: PhaseConfig, section: TrainConfig, cbs: list[Callback]
) -> None:
    """One one-cycle fit with discriminative rates."""
    learn.fit_one_cycle(
        phase.epochs,
        lr_max=learning_rates(phase),
        div=section.div,
        div_final=section.div_final,
        pct_start=section.pct_start,
        moms=section.momentums,
        cbs=cbs,
    )


def learning_rates(phase: PhaseConfig) -> list[float]:
    """Peak rates of the optimizer's eight groups: geometric over the four parameter groups.

    Each parameter group stands twice, its decaying and its other parameters.
    """
    rates = np.geomspace(phase.lr_max / phase.lr_ratio, phase.lr_max, models.NUM_GROUPS)
    return [float(rate) for rate in rates for _ in range(2)]


def make_loaders(config: Config, tokens: Artifact, world: World) -> Loaders:
    """Training and validation batches of the micro-batch size."""
    section, block_size = config.train, config.tokens.block_size

    def blocks(num_tokens: int | None) -> int | None:
        return None if num_tokens is None else num_tokens // block_size

    common: dict[str, Any] = {
        "block_size": block_size,
        "batch_size": config.runtime.micro_batch_size,
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


def load_token_bytes(tokens: Artifact, device: str) -> torch.Tensor:
    """UTF-8 bytes of each token id on the device, `[V]`; 0 for specials."""
    return torch.from_numpy(np.load(tokens.folder / "token_bytes.npy")).to(device)


def make_learner(model: PreTrainedModel, loaders: Loaders, config: Config, world: World) -> Learner:
    """The fastai `Learner` of a run with the callbacks that act in every fit."""
    section = config.train
    passes = section.global_batch_size // config.runtime.micro_batch_size
    cbs: list[Any] = [
        TrainEvalCallback(),
        Recorder(),
        LogitsOnly(),
        FiniteLoss(),
        Accumulation(passes, section.global_batch_size),
        Precision(world.device, section.precision),
    ]
    if section.grad_clip is not None:
        cbs.append(GradientClip(section.grad_clip))
    learn = Learner(
        loaders,
        model,
        loss_func=metrics.TokenLoss(),
        opt_func=OptimWrapper(opt=make_optimizer(model, section)),
        cbs=cbs,
        default_cbs=False,
        wd_bn_bias=True,  # weight decay is set per group by make_optimizer
        train_bn=False,  # a frozen group is frozen, its norms too
    )
    learn.logger = lambda *_: None
    learn.create_opt()
    return learn


def make_optimizer(model: PreTrainedModel, section: TrainConfig) -> torch.optim.AdamW:
    """Fused AdamW over eight groups: each parameter group with and without weight decay."""
    decays = models.decay_flags(model)
    groups = [
        {
            "params": [p for p in group if decays[id(p)] == decay],
            "weight_decay": section.weight_decay if decay else 0.0,
        }
        for group in models.parameter_groups(model)
        for decay in (True, False)
    ]
    betas = (section.momentums[0], section.beta2)
    return torch.optim.AdamW(groups, lr=1e-3, betas=betas, eps=section.eps, fused=True)


def find_rate(config: Config, inputs: dict[str, Artifact], picture: Path, world: World) -> float:
    """The rate that fastai's `lr_find` suggests for the first phase; draws the curve."""
    from matplotlib.figure import Figure

    keep_freed_memory()
    seed_everything(config.train.seed, 0)
    model = models.load(inputs["align"].folder).to(world.device)
    learn = make_learner(model, make_loaders(config, inputs["tokens"], world), config, world)
    learn.path = picture.parent
    groups = models.parameter_groups(model)
    phase = config.train.phases[0]
    learn.add_cb(TrainableGroups(groups, phase.trainable_groups))
    suggestion = learn.lr_find(suggest_funcs=(valley,), show_plot=False)
    axes = (figure := Figure(figsize=(7, 4))).subplots()
    axes.plot(learn.recorder.lrs, [float(loss) for loss in learn.recorder.losses])
    axes.axvline(suggestion.valley, color="tab:red", label=f"suggested: {suggestion.valley:.1e}")
    axes.set(xscale="log", xlabel="learning rate", ylabel="training loss (nats per token)")
    axes.legend()
    figure.savefig(picture, dpi=120, bbox_inches="tight")
    return float(suggestion.valley)


def _phase_folder(index: int, phase: PhaseConfig) -> str:
    return f"{index + 1}-{phase.name}"


def _finished_phases(out: Path, section: TrainConfig) -> list[str]:
    """Names of the whole phase folders, up to the first gap."""
    names = [_phase_folder(index, phase) for index, phase in enumerate(section.phases)]
    missing = (n for n, name in enumerate(names) if not (out / "phases" / name).is_dir())
    return names[: next(missing, len(names))]


def _saved_rows(folder: Path | None) -> tuple[list[EpochRow], list[EpochTime]]:
    if folder is None:
        return [], []
    saved = json.loads((folder / "epochs.json").read_text(encoding="utf-8"))
    return [EpochRow(**row) for row in saved["rows"]], [EpochTime(**t) for t in saved["times"]]


def _save_phase(out: Path, name: str, learn: Learner, table: EpochTable) -> None:
    """Publishes a finished phase: written under another name, then renamed."""
    scratch = out / "phases" / f"{name}.tmp"
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir(parents=True)
    learn.model.config.use_cache = True
    learn.model.save_pretrained(scratch)
    learn.model.config.use_cache = False
    torch.save(_plain_state(learn.opt.opt), scratch / "optimizer.pt")
    rows = {"rows": [asdict(r) for r in table.rows], "times": [asdict(t) for t in table.times]}
    artifacts.write_json(scratch / "epochs.json", rows)
    scratch.rename(out / "phases" / name)


def _plain_state(optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """The optimizer's state without the NumPy scalars that fastai's schedules leave in it.

    `torch.load(weights_only=True)` refuses those.
    """
    state = optimizer.state_dict()
    for group in state["param_groups"]:
        group["lr"] = float(group["lr"])
        group["betas"] = tuple(float(beta) for beta in group["betas"])
    return state


def _finish(
    config: Config,
    inputs: dict[str, Artifact],
    out: Path,
    world: World,
    table: EpochTable,
    groups: list[list[torch.nn.Parameter]],
) -> dict[str, Any]:
    phases = out / "phases"
    last = _phase_folder(len(config.train.phases) - 1, config.train.phases[-1])
    shutil.rmtree(out / "model", ignore_errors=True)
    shutil.copytree(
        phases / last,
        out / "model",
        copy_function=os.link,
        ignore=shutil.ignore_patterns("optimizer.pt", "epochs.json"),
    )
    tokenizer.save(tokenizer.load(inputs["align"].folder), out / "model")
    for optimizer in phases.glob("*/optimizer.pt"):
        optimizer.unlink()
    for scratch in phases.glob("*.tmp"):
        shutil.rmtree(scratch)
    sizes = [models.count_parameters(group) for group in groups]
    is_cpu = world.device == "cpu"
    return {
        "measures": asdict(table.rows[-1]),
        "times": [asdict(t) for t in table.times],
        "train_seconds": round(sum(t.train_seconds for t in table.times), 1),
        "peak_memory_bytes": peak_memory_bytes()
        if is_cpu
        else torch.cuda.max_memory_allocated(world.device),
        "trainable_parameters": {
            phase.name: sum(sizes[-phase.trainable_groups :]) for phase in config.train.phases
        },
        "device": f"cpu, {torch.get_num_threads()} threads"
        if is_cpu
        else torch.cuda.get_device_name(world.device),
    }


def _log_row(row: EpochRow, took: EpochTime) -> None:
    log.info(
        "epoch %d (%s): loss %.4f, accuracy %.2f %%, perplexity %.2f, bits per byte %.4f, %.0f s",
        row.epoch,
        row.phase,
        row.loss,
        100 * row.accuracy,
        row.perplexity,
        row.bits_per_byte,
        took.train_seconds + took.valid_seconds,
    )
