"""The recipe: one one-cycle fit per phase on a fastai `Learner`, resumable between phases."""

from __future__ import annotations

import json
import logging
import os
import shutil
import time
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import torch
from fastai.callback.core import Callback
from fastai.learner import Learner

from gportuguese import artifacts, metrics, tokenizer
from gportuguese import model as models
from gportuguese.artifacts import Artifact
from gportuguese.callbacks import (
    EpochOrder,
    EpochTable,
    Meter,
    TensorBoardLog,
    TrainableGroups,
)
from gportuguese.callbacks.epoch_table import EpochRow, EpochTime
from gportuguese.callbacks.precision import autocast
from gportuguese.config import Config, PhaseConfig, TrainConfig
from gportuguese.learner import fit_phase, make_learner, make_loaders
from gportuguese.progress import track
from gportuguese.tokens import load_token_bytes
from gportuguese.world import (
    World,
    check_precision,
    keep_freed_memory,
    peak_memory_bytes,
    seed_everything,
)

log = logging.getLogger("gportuguese")

STATE = "optimizer.pt"


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
    token_bytes = load_token_bytes(inputs["tokens"].folder, world.device)
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
        if len(done) < len(section.phases):  # the last phase's state goes when the stage ends
            _load_state(learn, source / STATE, world)
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
    scaler = learn.precision.scaler.state_dict()
    torch.save({"optimizer": _plain_state(learn.opt.opt), "scaler": scaler}, scratch / STATE)
    rows = {"rows": [asdict(r) for r in table.rows], "times": [asdict(t) for t in table.times]}
    artifacts.write_json(scratch / "epochs.json", rows)
    artifacts.rename_whole(scratch, out / "phases" / name)


def _load_state(learn: Learner, path: Path, world: World) -> None:
    """Optimizer moments and loss scale as they were when a phase ended."""
    state = torch.load(path, map_location=world.device, weights_only=True)
    learn.opt.opt.load_state_dict(state["optimizer"])
    learn.precision.scaler.load_state_dict(state["scaler"])


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
        copy_function=_link_or_copy,
        ignore=shutil.ignore_patterns(STATE, "epochs.json"),
    )
    tokenizer.save(tokenizer.load(inputs["align"].folder), out / "model")
    for state in phases.glob(f"*/{STATE}"):
        state.unlink()
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


def _link_or_copy(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:  # a file system without hard links
        shutil.copy2(source, target)


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
