"""A run that was stopped and resumed produces the same bytes as an uninterrupted one."""

import functools
import random
import shutil
import signal
import subprocess
import sys
import time

import pytest
import torch
from fastai.callback.core import Callback

from gportuguese import Pipeline, artifacts, load_config, training
from gportuguese.callbacks.resume import newest
from gportuguese.training import CHECKPOINTS
from tests.conftest import tiny_settings
from tests.invariants.test_equal_runs import build
from tests.test_cli import gpt_pt, sets
from tests.test_optimizer import needs_muon

pytestmark = pytest.mark.usefixtures("built_stages")

OFTEN = "runtime.checkpoint_minutes=1e-9"  # after every step


class StopAt(Callback):
    """Raises after batch `number` of a phase, counted from 0 over epochs and validations."""

    order = 90

    def __init__(self, number, error):
        self.left, self.error = number, error

    def after_batch(self):
        self.left -= 1
        if self.left < 0:
            raise self.error


def stop_in_last_phase(monkeypatch, number, error):
    real = training.fit_phase

    def fit(learn, phase, section, cbs):
        stop = [StopAt(number, error)] if phase.name == "all" else []
        real(learn, phase, section, [*cbs, *stop])

    monkeypatch.setattr(training, "fit_phase", fit)
    return lambda: monkeypatch.setattr(training, "fit_phase", real)


def partial_train(overrides):
    pipeline = Pipeline(load_config(None, overrides))
    return artifacts.partial_of(pipeline.folder("train"))


def assert_same(one, two):
    weights = ("model/model.safetensors", "phases/1-embeddings/model.safetensors")
    for name in ("epochs.csv", "steps.csv", *weights):
        assert (one / name).read_bytes() == (two / name).read_bytes(), name


@pytest.fixture(scope="module")
def straight(tiny_dump, tiny_stages, tmp_path_factory):
    """Returns the folder of an uninterrupted run with more settings; runs each once."""
    folder = tmp_path_factory.mktemp("straight") / "artifacts"
    shutil.copytree(tiny_stages, folder)
    return functools.cache(lambda *more: build(tiny_settings(tiny_dump, folder), *more))


# two epochs of 16 passes (8 steps) and 4 validation batches each
@pytest.mark.parametrize(
    ("number", "settings"),
    [
        (3, "train.precision=fp32"),
        pytest.param(5, "train.optimizer=muon", marks=needs_muon),
        (14, "train.precision=fp16"),
        (15, "train.precision=fp32"),
        (17, "train.precision=fp32"),
        (21, "train.precision=fp32"),
        (5, "align.tie=untie"),
    ],
)
def test_a_run_stopped_after_any_batch_ends_like_an_uninterrupted_one(
    tiny_overrides, straight, monkeypatch, number, settings
):
    undo = stop_in_last_phase(monkeypatch, number, RuntimeError("cut"))
    with pytest.raises(RuntimeError, match="cut"):
        build(tiny_overrides, settings, OFTEN)
    undo()
    assert_same(build(tiny_overrides, settings), straight(settings))


def test_a_run_resumes_with_another_micro_batch(tiny_overrides, straight, monkeypatch):
    no_dropout = "train.dropout=0.0"
    undo = stop_in_last_phase(monkeypatch, 7, RuntimeError("out of memory"))
    with pytest.raises(RuntimeError, match="out of memory"):
        build(tiny_overrides, OFTEN, no_dropout)
    undo()
    smaller = build(tiny_overrides, no_dropout, "runtime.micro_batch_size=2")
    assert smaller.name == straight(no_dropout).name
    for one, two in zip(
        (smaller / "epochs.csv").read_text().splitlines()[1:],
        (straight(no_dropout) / "epochs.csv").read_text().splitlines()[1:],
        strict=True,
    ):
        cells = [line.split(",")[3:] for line in (one, two)]
        assert [float(x) for x in cells[0]] == pytest.approx([float(x) for x in cells[1]], rel=1e-4)


@pytest.mark.parametrize("damage", ["cut", "flipped", "missing", "no manifest"])
def test_a_damaged_checkpoint_is_skipped(tiny_overrides, straight, monkeypatch, caplog, damage):
    undo = stop_in_last_phase(monkeypatch, 9, RuntimeError("cut"))
    with pytest.raises(RuntimeError, match="cut"):
        build(tiny_overrides, OFTEN)
    undo()
    folder = partial_train(tiny_overrides) / CHECKPOINTS
    older, newer = sorted(folder.iterdir())
    path = newer / ("manifest.json" if damage == "no manifest" else "state.pt")
    content = bytearray(path.read_bytes())
    if damage == "cut":
        path.write_bytes(content[:-100])
    elif damage == "flipped":
        content[len(content) // 2] ^= 1
        path.write_bytes(content)
    else:
        path.unlink()
    assert newest(folder).folder == older
    assert "falling back to the previous checkpoint" in caplog.text
    assert_same(build(tiny_overrides), straight())


def test_checkpoints_load_without_pickle_and_only_two_are_kept(tiny_overrides, monkeypatch):
    stop_in_last_phase(monkeypatch, 12, RuntimeError("cut"))
    with pytest.raises(RuntimeError, match="cut"):
        build(tiny_overrides, OFTEN)
    folders = sorted((partial_train(tiny_overrides) / CHECKPOINTS).iterdir())
    assert len(folders) == 2
    for folder in folders:
        state = torch.load(folder / "state.pt", weights_only=True)
        assert state["position"]["phase"] == 1
        assert len(state["rows"]) == 2
        assert (folder / "model.safetensors").is_file()


def test_a_finished_run_keeps_no_checkpoint(tiny_overrides):
    folder = build(tiny_overrides)
    assert not (folder / CHECKPOINTS).exists()


def start(overrides, **options):
    command = [sys.executable, "-m", "gportuguese", "train", *sets(overrides)]
    # a process started in the background may inherit that Ctrl+C is ignored
    return subprocess.Popen(
        command,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
        **options,
    )


ENDS = {signal.SIGINT: "interrupted", signal.SIGTERM: "terminated"}
LONG = ("train.epoch_tokens=20480", "runtime.device=cpu")


@pytest.mark.parametrize(
    ("stop", "code"),
    [(signal.SIGINT, 130), pytest.param(signal.SIGTERM, 143, marks=pytest.mark.slow)],
)
def test_a_signal_saves_and_the_same_command_resumes(tiny_overrides, straight, caplog, stop, code):
    settings = ("train.epoch_tokens=8192", "runtime.device=cpu")
    overrides = (*tiny_overrides, *settings)
    process = start(overrides)
    for line in process.stderr:
        if "epoch 2 (all)" in line:
            break
    time.sleep(0.05)  # into the last epoch
    process.send_signal(stop)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == code, errors
    assert f"stopped by {stop.name}" in errors
    assert errors.splitlines()[-1].startswith(
        f"gpt-pt: {ENDS[stop]}; resume with: gpt-pt train --set "
    )
    caplog.clear()
    assert gpt_pt("train", *sets(overrides)) == 0
    assert "resuming from" in caplog.text
    assert "phase all" in caplog.text
    pipeline = Pipeline(load_config(None, overrides))
    assert_same(pipeline.folder("train"), straight(*settings))


@pytest.mark.slow  # starts and kills about twenty processes
@pytest.mark.timeout(900)
def test_a_run_killed_twenty_times_produces_the_bytes_of_an_uninterrupted_one(
    tiny_overrides, straight
):
    overrides = (*tiny_overrides, *LONG, OFTEN)
    draw, kills = random.Random(0), 0
    while True:
        process = start(overrides)
        for line in process.stderr:
            if "train: building" in line:
                break
        if kills < 20:
            time.sleep(draw.uniform(0.3, 3.0))  # a random moment
            process.kill()
            kills += 1
        process.communicate()
        if process.returncode == 0:  # the last one, or one that finished before the kill
            break
        assert process.returncode == -signal.SIGKILL
    assert kills >= 10
    pipeline = Pipeline(load_config(None, overrides))
    assert_same(pipeline.folder("train"), straight(*LONG))
    assert not (pipeline.folder("train") / artifacts.SCRATCH).exists()
