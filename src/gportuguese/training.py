"""The train stage: one one-cycle fit per phase on a fastai `Learner`; it resumes at any step."""

from __future__ import annotations

import logging
import os
import shutil
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from gportuguese import artifacts, atomic, causal_lm, corpus, tokenizer
from gportuguese.align_files import new_rows
from gportuguese.artifacts import Artifact
from gportuguese.callbacks import (
    Checkpoints,
    EpochOrder,
    EpochTable,
    Logits,
    LossCurve,
    Meter,
    MetricsTable,
    TrackerLog,
    open_tracker,
)
from gportuguese.callbacks.guard import TrainingStopped
from gportuguese.callbacks.resume import Position, newest
from gportuguese.config import Config, PhaseConfig, TrainConfig
from gportuguese.epochs import EpochRow
from gportuguese.learner import count_trainable, fit_phase, make_phase_learner, trainable_part
from gportuguese.loaders import make_loaders
from gportuguese.metrics import TokenSums, measure
from gportuguese.precision import autocast
from gportuguese.progress import track, tracked
from gportuguese.tokens import BlockLoader, documents_of, load_token_bytes
from gportuguese.world import World, keep_freed_memory, peak_memory_bytes, seed_everything

if TYPE_CHECKING:
    from fastai.callback.core import Callback
    from transformers import PreTrainedModel

log = logging.getLogger("gportuguese")

CHECKPOINTS = f"{artifacts.SCRATCH}/checkpoints"
_SHOWN_DOCUMENTS = 8


def build(
    config: Config,
    inputs: dict[str, Artifact],
    out: Path,
    world: World,
    callbacks: Sequence[Any] = (),
    metrics: Sequence[Any] = (),
) -> dict[str, Any]:
    """Writes `epochs.csv`, `steps.csv`, the weights of each phase (`phases/<n>-<name>/`) and `model/`.

    Resumes from the newest undamaged checkpoint in `out`. Several processes may build together;
    only the main one writes. Raises `TrainingStopped` before a step with a bad loss or gradients.

    fastai `callbacks` and `metrics` run in every phase, with `learn.path` set to `out` and fastai's
    recorder, which copies the loss to the host in each batch. In a run of several processes, each
    has its own callbacks, and metrics are those of the main one's share of the validation set.
    """
    section = config.train
    keep_freed_memory()
    start = time.monotonic()
    loaders = make_loaders(config, inputs["tokens"], world)
    token_bytes = load_token_bytes(inputs["tokens"].folder, world.device)
    if loaders.train.packing is not None:
        log.info("tokens.boundaries=start: %s", loaders.train.packing.in_words())
    checkpoint = newest(out / CHECKPOINTS)
    model = causal_lm.load(checkpoint.folder if checkpoint else inputs["align"].folder)
    learn = make_phase_learner(model, loaders, config, world)
    learn.path = out  # where callbacks write
    groups, is_new_V = causal_lm.parameter_groups(model), new_rows(inputs["align"].folder)
    parts = [trainable_part(phase, model, groups, is_new_V) for phase in section.phases]
    rows = checkpoint.rows if checkpoint else ([], [])
    table = EpochTable(out, token_bytes, learn.step_loss, *rows, on_row=_log_row, world=world)
    epoch_steps = loaders.train.epoch_blocks // section.global_batch_size
    curve = LossCurve(out, learn.step_loss, table, epoch_steps, world)
    checkpoints = Checkpoints(
        out / CHECKPOINTS,
        model,
        table=table,
        curve=curve,
        guard=learn.guard,
        scaler=learn.precision.scaler,
        passes_per_step=learn.step_loss.passes_per_step,
        minutes=config.runtime.checkpoint_minutes,
        world=world,
    )
    if callbacks or metrics:
        learn.metrics = list(metrics)
        from fastai.learner import Recorder  # after the callbacks, which silence its warnings

        learn.add_cbs([Recorder(), Logits(), *callbacks])
        if metrics and world.is_main:
            learn.add_cb(MetricsTable(out, table))
    position = checkpoint.position if checkpoint else Position()
    if checkpoint is None:
        context, sums = partial(autocast, world.device, section.precision), TokenSums(token_bytes)
        valid_start = time.monotonic()
        with tracked("validation", loaders.valid, len(loaders.valid)) as batches:
            measures = measure(
                model, batches, sums, context, loss=learn.loss_func, total=world.total
            )
        table.add_row("before", float("nan"), measures, 0.0, time.monotonic() - valid_start)
    else:
        log.info("resuming from %s: %s", checkpoint.folder, _in_words(position, section))
    num_epochs = sum(phase.epochs for phase in section.phases)
    epoch_blocks = loaders.train.epoch_blocks
    done_blocks = table.rows[-1].epoch * epoch_blocks + position.step * section.global_batch_size
    left_tokens = (num_epochs * epoch_blocks - done_blocks) * config.tokens.block_size
    with ExitStack() as stack:
        advance = stack.enter_context(track("train", left_tokens))
        tracker = open_tracker(config, out) if world.is_main else None
        if tracker is not None:
            stack.callback(tracker.close)
            first_step = done_blocks // section.global_batch_size
            learn.add_cb(TrackerLog(tracker, table, learn.step_loss, first_step))
        meter = Meter(advance, table, learn.guard, num_epochs, world.num_ranks)
        for index, phase in list(enumerate(section.phases))[position.phase :]:
            seed_everything(section.seed, index, *([world.rank] if world.rank else []))
            learn.resume_from = checkpoints.position = position
            if checkpoint is not None:
                checkpoints.restore(learn, checkpoint)
            table.phase = phase.name
            meter.first_epoch = sum(earlier.epochs for earlier in section.phases[:index])
            cbs: list[Callback] = [
                parts[index],
                EpochOrder(meter.first_epoch),
                table,
                curve,
                checkpoints,
            ]
            if world.is_main:
                cbs.append(meter)
            try:
                fit_phase(learn, phase, section, cbs)
            except TrainingStopped as error:
                if error.step is None:
                    raise
                raise _with_documents(error, error.step, loaders.train, inputs) from error
            finally:
                checkpoints.leave()
                meter.leave()
            checkpoint, position = None, Position(index + 1)
            if world.is_main:
                _save_phase(out / "phases" / _phase_folder(index, phase), model)
            checkpoints.save(learn, position)
    facts = _finish(config, inputs, out, world, table)
    facts["trainable_parameters"] = {
        phase.name: count_trainable(phase, model, groups, is_new_V) for phase in section.phases
    }
    num_tokens = table.rows[-1].epoch * epoch_blocks * config.tokens.block_size
    if loaders.train.packing is not None:
        facts["packing"] = loaders.train.packing.facts
    return {**facts, "tokens": num_tokens, "seconds": round(time.monotonic() - start, 1)}


def _phase_folder(index: int, phase: PhaseConfig) -> str:
    return f"{index + 1}-{phase.name}"


def _in_words(position: Position, section: TrainConfig) -> str:
    if position.phase == len(section.phases):
        return "all phases are done"
    return position.in_words(section.phases[position.phase].name)


def _with_documents(
    error: TrainingStopped, step: int, loader: BlockLoader, inputs: dict[str, Artifact]
) -> TrainingStopped:
    """The error with the titles of the documents in the bad batch."""
    blocks = loader.step_blocks(loader.epoch, step)
    folder = inputs["tokens"].folder
    places = documents_of(folder, "train", loader.positions(blocks)[:, 1:])  # what was predicted
    titles = corpus.titles(inputs["corpus"], "train", places[:_SHOWN_DOCUMENTS])
    shown = "; ".join(titles)
    more = f" and {len(places) - len(titles)} more" if len(places) > len(titles) else ""
    return TrainingStopped(f"{error}. The batch held: {shown}{more}")


def _save_phase(folder: Path, model: PreTrainedModel) -> None:
    """Saves the weights of a finished phase: writes a scratch folder, then renames it."""
    scratch = folder.with_name(f"{folder.name}.tmp")
    for leftover in (scratch, folder):  # from a run that was killed before its next checkpoint
        shutil.rmtree(leftover, ignore_errors=True)
    scratch.mkdir(parents=True)
    causal_lm.save(model, scratch)
    atomic.rename_whole(scratch, folder)


def _finish(
    config: Config,
    inputs: dict[str, Artifact],
    out: Path,
    world: World,
    table: EpochTable,
) -> dict[str, Any]:
    last = _phase_folder(len(config.train.phases) - 1, config.train.phases[-1])
    if world.is_main:
        shutil.rmtree(out / "model", ignore_errors=True)
        shutil.copytree(out / "phases" / last, out / "model", copy_function=_link_or_copy)
        tokenizer.save(tokenizer.load(inputs["align"].folder), out / "model")
    is_cpu = world.device == "cpu"
    return {
        "measures": asdict(table.rows[-1]),
        "times": [asdict(t) for t in table.times],
        "train_seconds": round(sum(t.train_seconds for t in table.times), 1),
        "peak_memory_bytes": peak_memory_bytes()
        if is_cpu
        else torch.cuda.max_memory_allocated(world.device),
        "processes": world.num_ranks,
        "device": f"cpu, {torch.get_num_threads()} threads"
        if is_cpu
        else torch.cuda.get_device_name(world.device),
    }


def _link_or_copy(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:  # a file system without hard links
        shutil.copy2(source, target)


def _log_row(rows: list[EpochRow]) -> None:
    *_, before, row = [rows[0], *rows]

    def change(name: str) -> str:
        old, new = getattr(before, name), getattr(row, name)
        return f"{new:.3f}" if row.epoch == 0 else f"{old:.3f} -> {new:.3f}"

    # fits 80 columns with its timestamp
    log.info(
        "epoch %d (%s): loss %s, bits/byte %s",
        row.epoch,
        row.phase,
        change("loss"),
        change("bits_per_byte"),
    )
