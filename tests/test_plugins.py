"""Callbacks, metrics and trackers of the train stage."""

import csv
import importlib.util
import shutil
import subprocess
import sys
from dataclasses import replace

import pytest
import torch
from fastai.callback.core import Callback, CancelFitException
from fastai.callback.progress import CSVLogger
from fastai.callback.tracker import EarlyStoppingCallback, SaveModelCallback
from fastai.metrics import Perplexity, accuracy

from gportuguese import Pipeline, artifacts, causal_lm, load_config, plugins, train
from gportuguese.callbacks import trackers
from gportuguese.config import Config, ConfigError, TrainConfig
from gportuguese.epochs import read_epochs, read_steps
from gportuguese.stages import STAGES
from tests.conftest import tiny_settings
from tests.test_cli import sets

FILES = ("epochs.csv", "model/model.safetensors", "phases/1-embeddings/model.safetensors")


@pytest.fixture(scope="module")
def plain(tiny_dump, tiny_stages, tmp_path_factory) -> tuple[Config, artifacts.Artifact]:
    """A config and its run without callbacks."""
    folder = shutil.copytree(tiny_stages, tmp_path_factory.mktemp("plain") / "artifacts")
    config = load_config(None, tiny_settings(tiny_dump, folder))
    return config, train(config)


@pytest.fixture
def fresh(plain, tmp_path) -> Config:
    """The same config in another folder, where everything but training is done."""
    config, run = plain
    shutil.copytree(run.folder.parent, tmp_path / "fresh", ignore=lambda *_: [run.folder.name])
    return replace(config, runtime=replace(config.runtime, artifacts_dir=str(tmp_path / "fresh")))


def metrics_of(run):
    with (run.folder / "metrics.csv").open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


def assert_same_bytes(one, two):
    for name in FILES:
        assert (one.folder / name).read_bytes() == (two.folder / name).read_bytes(), name


def test_observers_and_metrics_change_neither_digest_nor_bytes(plain, fresh):
    run = train(fresh, callbacks=[CSVLogger("log.csv", append=True)], metrics=[accuracy])
    assert run.folder.name == plain[1].folder.name
    assert_same_bytes(run, plain[1])
    rows = read_epochs(run.folder / "epochs.csv")[1:]
    table = metrics_of(run)
    assert [(int(row["epoch"]), row["phase"]) for row in table] == [
        (r.epoch, r.phase) for r in rows
    ]
    for ours, theirs in zip(rows, table, strict=True):
        assert float(theirs["accuracy"]) == pytest.approx(ours.accuracy, abs=1e-6)
    log = (run.folder / "log.csv").read_text(encoding="utf-8").splitlines()
    assert log.count("epoch,train_loss,valid_loss,accuracy,time") == 2  # one fit a phase
    assert float(log[1].split(",")[2]) == pytest.approx(rows[0].loss, abs=1e-6)


def test_a_finished_run_says_that_callbacks_did_not_run(plain, caplog):
    train(plain[0], metrics=[accuracy])
    assert "callbacks and metrics did not run; remove " in caplog.text
    assert not (plain[1].folder / "metrics.csv").exists()


def test_the_best_epoch_is_kept_in_a_folder_of_its_own(fresh, plain):
    pipeline = Pipeline(fresh)
    run = pipeline.build("train", callbacks=[SaveModelCallback(fname="best")])
    assert run.folder.name != plain[1].folder.name
    assert run.manifest["config"]["train"]["callbacks"] == [
        "fastai.callback.tracker:SaveModelCallback"
    ]
    saved = torch.load(run.folder / "models" / "best.pth")
    for name, weight in causal_lm.load(run.folder / "model").state_dict().items():
        assert torch.equal(saved[name], weight)
    report = pipeline.build("evaluate")  # of this run, not of one without callbacks
    assert report.manifest["inputs"]["train"] == run.digest


def test_early_stopping_keeps_the_table_whole(fresh):
    stop = EarlyStoppingCallback(min_delta=100, patience=1)
    run = train(fresh, callbacks=[stop], metrics=[accuracy])
    rows = read_epochs(run.folder / "epochs.csv")
    # each phase may stop after its second epoch, so both phases run to their end
    assert [row.epoch for row in rows] == [0, 1, 2, 3]
    assert len(metrics_of(run)) == 3


class EndAfterOneEpoch(Callback):
    """Ends every fit after its first epoch."""

    order = 61

    def after_epoch(self):
        raise CancelFitException


class EndInTheMiddle(Callback):
    """Ends the first fit after its third batch."""

    fits = 0

    def before_fit(self):
        self.fits, self.losses = self.fits + 1, []

    def after_step(self):
        if self.epoch == 0:
            self.losses.append(self.step_loss.value.item())

    def after_batch(self):
        if self.training and self.fits == 1 and self.iter == 2:
            raise CancelFitException


def test_a_fit_that_a_callback_ends_leaves_true_rows_and_facts(fresh):
    run = train(fresh, callbacks=[EndAfterOneEpoch])
    rows = read_epochs(run.folder / "epochs.csv")
    assert [row.phase for row in rows] == ["before", "embeddings", "all"]
    assert run.facts["tokens"] == 2 * 2048
    middle = EndInTheMiddle()
    folder = train(fresh, callbacks=[middle]).folder
    cut = read_epochs(folder / "epochs.csv")
    assert [row.phase for row in cut] == ["before", "all", "all"]
    assert [row.step for row in read_steps(folder / "steps.csv")] == list(range(1, 17))
    # without the steps of the fit that was cut
    assert cut[1].train_loss == pytest.approx(sum(middle.losses) / len(middle.losses))


class StopOnce(Callback):
    """Raises once, in the second fit's second epoch."""

    fits = 0

    def before_fit(self):
        self.fits += 1

    def after_batch(self):
        if self.training and self.fits == 2 and self.epoch == 1 and self.iter == 3:
            raise RuntimeError("cut")


def test_a_run_with_callbacks_resumes_with_the_same_bytes(plain, fresh):
    often = replace(fresh, runtime=replace(fresh.runtime, checkpoint_minutes=1e-9))
    with pytest.raises(RuntimeError, match="cut"):
        train(often, callbacks=[StopOnce()], metrics=[accuracy])
    resumed = StopOnce()
    resumed.fits = 10
    run = train(often, callbacks=[resumed], metrics=[accuracy, Perplexity()])
    assert_same_bytes(run, plain[1])
    table = metrics_of(run)
    assert [row["epoch"] for row in table] == ["1", "2", "3"]
    assert all(float(row["accuracy"]) >= 0 for row in table)
    assert [row["perplexity"] != "" for row in table] == [False, False, True]


def test_wandb_callback_of_fastai_logs_every_batch(plain, fresh, tmp_path):
    wandb = pytest.importorskip("wandb")
    from fastai.callback.wandb import WandbCallback

    with wandb.init(mode="offline", dir=tmp_path, settings=wandb.Settings(silent=True)) as started:
        run = train(fresh, callbacks=[WandbCallback(log_preds=False)], metrics=[accuracy])
        logged = dict(started.summary)
    assert run.folder.name == plain[1].folder.name
    assert_same_bytes(run, plain[1])
    rows = read_epochs(run.folder / "epochs.csv")
    assert logged["epoch"] == 3
    assert logged["valid_loss"] == pytest.approx(rows[-1].loss, abs=1e-6)
    assert logged["accuracy"] == pytest.approx(rows[-1].accuracy, abs=1e-6)


def with_tracker(config, name):
    return replace(config, train=replace(config.train, tracker=name))


def test_the_tracker_wandb_gets_steps_and_rows(plain, fresh, tmp_path, monkeypatch):
    wandb = pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    started, logged, real = [], [], wandb.init

    def init(**options):
        started.append(
            real(mode="offline", dir=tmp_path, **options)
        )  # it reads variables only once
        return started[-1]

    def log(self, values, step):
        logged.append((step, values))
        return real_log(self, values, step=step)

    real_log = wandb.Run.log
    monkeypatch.setattr(wandb, "init", init)
    monkeypatch.setattr(wandb.Run, "log", log)
    run = train(with_tracker(fresh, "wandb"))
    assert run.folder.name == plain[1].folder.name
    assert_same_bytes(run, plain[1])
    rows = read_epochs(run.folder / "epochs.csv")
    # in optimizer steps: an epoch has 8, and every tenth is logged
    assert [step for step, _ in logged] == [8, 10, 16, 20, 24]
    assert logged[-1][1]["epoch/loss"] == pytest.approx(rows[-1].loss, abs=1e-6)
    assert logged[1][1]["train/loss"] < rows[0].loss
    assert len(started) == 1  # one run, not one for each phase
    assert list(tmp_path.glob("wandb/offline-run-*/*.wandb"))


def test_the_tracker_tensorboard_logs_beside_the_weights(plain, fresh):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    run = train(with_tracker(fresh, "tensorboard"))
    assert run.folder.name == plain[1].folder.name
    events = EventAccumulator(str(run.folder / "logs"))
    events.Reload()
    assert [each.step for each in events.Scalars("train/loss")] == [10, 20]
    losses = [each.value for each in events.Scalars("epoch/loss")]
    assert losses == pytest.approx([r.loss for r in read_epochs(run.folder / "epochs.csv")[1:]])


def test_a_missing_tracker_is_found_before_anything_is_built(plain, tmp_path, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    config = with_tracker(plain[0], "trackio")
    config = replace(config, runtime=replace(config.runtime, artifacts_dir=str(tmp_path / "new")))
    with pytest.raises(plugins.PluginError, match=r"pip install 'gportuguese\[trackio\]'"):
        train(config)
    assert not (tmp_path / "new").exists()


def gpt_pt(folder, *words):
    command = [sys.executable, "-m", "gportuguese", *words]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


MINE = """
from fastai.callback.core import Callback
class Note(Callback):
    file = "note.txt"
    def after_fit(self):
        with (self.path / self.file).open("a") as file:
            print(self.recorder.values[-1][1], file=file)
class Made(Note):
    file = "made.txt"
class Needs(Callback):
    def __init__(self, what): self.what = what
def made(): return Made()
other = 3
"""


@pytest.mark.usefixtures("built_stages")
def test_callbacks_are_named_on_the_command_line(tiny_overrides, plain, tmp_path):
    """A class and a function that creates a callback, in one run."""
    (tmp_path / "mine.py").write_text(MINE, encoding="utf-8")
    words = sets((*tiny_overrides, "train.callbacks=['mine:Note', 'mine:made']"))
    # as an installed command, which does not search the working folder by itself
    code = "import sys; sys.path.remove(''); from gportuguese.cli import main; main()"
    command = [sys.executable, "-c", code, "train", *words]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "Warning" not in done.stderr
    (folder,) = (tmp_path / "artifacts").glob("train-*")
    rows = read_epochs(folder / "epochs.csv")
    for name in ("note.txt", "made.txt"):
        notes = [float(line) for line in (folder / name).read_text().splitlines()]
        assert notes == pytest.approx([rows[1].loss, rows[3].loss], abs=1e-6)
    assert folder.name != plain[1].folder.name  # it might have changed the weights
    assert (folder / "epochs.csv").read_bytes() == (plain[1].folder / "epochs.csv").read_bytes()


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("nowhere:Note", "No module named 'nowhere'; the module must be installed, or lie in "),
        ("mine:Nothing", "module 'mine' has no attribute 'Nothing'"),
        ("mine:Needs", "cannot be created without arguments"),
        ("mine:other", "is no fastai callback"),
        ("collections:OrderedDict", "is no fastai callback"),
        ("mine.Note", "must be package.module:Name"),
    ],
)
def test_a_wrong_name_is_rejected_before_anything_is_built(tmp_path, monkeypatch, name, problem):
    (tmp_path / "mine.py").write_text(MINE, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.delitem(sys.modules, "mine", raising=False)
    with pytest.raises((plugins.PluginError, ConfigError)) as caught:
        Pipeline(load_config(None, (f"train.callbacks=[{name}]",))).build("train")
    assert name in str(caught.value)
    assert problem in str(caught.value)
    assert not (tmp_path / "artifacts").exists()


def test_digests_of_runs_without_callbacks_stay():
    """Folder names of before the keys `tracker` and `callbacks`, taken from that version."""
    section = STAGES["train"].settings(load_config("demo"))
    assert artifacts.digest_of(section) == "18713056ed3f"
    assert artifacts.digest_of(STAGES["train"].settings(load_config("v100"))) == "8daa149e2ee9"
    config = load_config("demo", ("train.tracker=wandb",))
    assert STAGES["train"].settings(config) == section
    seen = replace(config, train=TrainConfig(callbacks=("fastai.callback.progress:CSVLogger",)))
    assert "callbacks" not in STAGES["train"].settings(seen)


def test_trackers_get_no_secrets():
    tree = {"corpus": {"sources": [{"documents": "https://anna:secret@host/d.csv?key=secret"}]}}
    public = {"corpus": {"sources": [{"documents": "https://host/d.csv"}]}}
    assert trackers._public(tree | {"name": "a?b", "seed": 1}) == public | {
        "name": "a?b",
        "seed": 1,
    }


def test_callbacks_for_a_stage_before_training_are_an_error(plain):
    with pytest.raises(plugins.PluginError, match="run in train, which tokens precedes"):
        Pipeline(plain[0]).build("tokens", metrics=[accuracy])
