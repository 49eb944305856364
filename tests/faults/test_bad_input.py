"""Bad input: exit code 2, a message with advice, no traceback, no incomplete results."""

import bz2
import errno
import math
import os
import re
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from fastai.callback.core import Callback

from gportuguese import Pipeline, artifacts, init_world, load_config, training, world
from gportuguese.callbacks import TrainableGroups
from gportuguese.callbacks.epoch_table import EpochTable
from gportuguese.callbacks.guard import TrainingStopped
from gportuguese.callbacks.resume import newest
from gportuguese.learner import fit_phase
from gportuguese.world import WorldError
from tests.conftest import dump_xml, page_xml, sentence
from tests.test_cli import gpt_pt, sets
from tests.test_learner import prepared

PAGES = "".join(page_xml(n, f"P{n}", sentence(n, 60)) for n in range(1, 60))


def whole_folders(overrides):
    root = Path(next(o for o in overrides if "artifacts_dir" in o).partition("=")[2])
    return [path.name for path in root.glob("*") if path.suffix != ".partial"]


def bad_dumps(folder):
    data = bz2.compress(dump_xml(PAGES).encode())
    contents = {
        "cut.xml.bz2": (data[:-30], "ends early"),
        "empty.xml": (b"", "is empty"),
        "none.xml": (dump_xml("").encode(), "holds no pages"),
        "other.xml": (b"<rss></rss>", "not a MediaWiki dump: its root is <rss>"),
        "named.xml.bz2": (b"plain", "is named .bz2 but is not bzip2"),
        "absent.xml": (None, "no dump at"),
    }
    for name, (content, _) in contents.items():
        if content is not None:
            (folder / name).write_bytes(content)
    return {name: message for name, (_, message) in contents.items()}


@pytest.mark.parametrize(
    "name", ["cut.xml.bz2", "empty.xml", "none.xml", "other.xml", "named.xml.bz2", "absent.xml"]
)
def test_bad_dumps(tiny_overrides, tmp_path, capsys, name):
    message = bad_dumps(tmp_path)[name]
    words = sets((*tiny_overrides, f"dump.source={tmp_path / name}"))
    assert gpt_pt("corpus", *words) == 2
    error = capsys.readouterr().err
    assert message in error
    assert name in error
    assert "Traceback" not in error
    assert not [folder for folder in whole_folders(tiny_overrides) if folder.startswith("corpus")]


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("train.sed=1", "did you mean 'seed'"),
        ("train.global_batch_size=6", "is not a multiple of"),
        ("tokens.block_size=64", "is above align.base.positions=32"),
        ("tokenizer.vocab_size=9000", "fills only"),
        ("corpus.min_chars=100000", "no document for train"),
        ("dump.source=.", "no dump at .; set dump.source"),
        ("dump.source=/tmp", "no dump at /tmp; set dump.source"),
        ("align={base: ./nowhere, method: mean}", "no base model at nowhere"),
        ("train.epoch_tokens=10", "train.epoch_tokens=10: must be at least"),
    ],
)
def test_bad_settings(tiny_overrides, capsys, override, message):
    assert gpt_pt("align", *sets((*tiny_overrides, override))) == 2
    error = capsys.readouterr().err
    assert message in error
    assert "Traceback" not in error


def test_blocks_longer_than_the_base_reads_are_rejected_before_anything_is_built(
    tiny_overrides, capsys
):
    base = ("align={base: 'package:english-nano', method: mean}", "tokens.block_size=512")
    counts = ("train.epoch_tokens=null", "train.valid_tokens=null", "evaluate.tokens=null")
    assert gpt_pt("align", *sets((*tiny_overrides, *base, *counts))) == 2
    error = capsys.readouterr().err
    assert "tokens.block_size=512 is above the 256 positions of package:english-nano" in error
    assert not whole_folders(tiny_overrides)


def test_a_missing_gpu_is_reported_before_anything_is_built(tiny_overrides, capsys):
    assert gpt_pt("train", *sets((*tiny_overrides, "runtime.device=cuda:7"))) == 2
    assert "device 'cuda:7': there is no GPU 7, PyTorch" in capsys.readouterr().err
    assert not whole_folders(tiny_overrides)


@pytest.mark.parametrize(
    ("package", "settings", "message"),
    [
        ("onnxscript", ("export.formats=[onnx]",), "onnx needs onnxscript: pip install 'gport"),
        ("gguf", ("export.formats=[bin, gguf-f16]",), "gguf-f16 needs gguf: pip install 'gport"),
        ("gguf", ("align={base: ./b.gguf, method: mean}",), "b.gguf needs gguf: pip install 'gp"),
    ],
)
def test_a_missing_package_is_reported_before_anything_is_built(
    tiny_overrides, capsys, monkeypatch, tmp_path, package, settings, message
):
    (tmp_path / "b.gguf").write_bytes(b"GGUF")
    monkeypatch.chdir(tmp_path)
    for module in ("export_formats", "align_files"):
        monkeypatch.setattr(f"gportuguese.{module}.find_spec", lambda name: name != package)
    assert gpt_pt("export", *sets((*tiny_overrides, *settings))) == 2
    assert message in capsys.readouterr().err
    assert not whole_folders(tiny_overrides)


def test_gguf_of_another_architecture_is_rejected_before_anything_is_built(
    tiny_overrides, capsys, tmp_path
):
    (tmp_path / "config.json").write_text('{"model_type": "llama"}', encoding="utf-8")
    base = f"align={{base: {tmp_path}, method: mean}}"
    words = sets((*tiny_overrides, base, "export.formats=[gguf-f16]"))
    assert gpt_pt("export", *words) == 2
    assert "gguf: supports only GPT-2, not llama" in capsys.readouterr().err
    assert not whole_folders(tiny_overrides)


def test_a_base_that_cannot_be_fetched_is_reported_before_anything_is_built(tiny_overrides, capsys):
    assert gpt_pt("train", *sets((*tiny_overrides, "align={base: some/model, method: mean}"))) == 2
    assert "cannot fetch 'some/model': the Hub is unreachable" in capsys.readouterr().err
    assert not whole_folders(tiny_overrides)


@pytest.mark.parametrize(
    ("device", "rank", "message"),
    [
        ("auto", 2, r"no GPU 2, PyTorch .* sees 2; start fewer processes \(--nproc-per-node\)"),
        ("cuda", 2, "no GPU 2"),
        ("cuda:0", 0, "would put 3 processes on one GPU; use cuda"),
        ("tpu", 0, "must be auto, cpu, cuda or cuda:N"),
    ],
)
def test_more_processes_than_gpus_are_rejected(monkeypatch, device, rank, message):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert world._resolve_device("auto", 1, 2) == world._resolve_device("cuda", 1, 2) == "cuda:1"
    with pytest.raises(WorldError, match=message):
        world._resolve_device(device, rank, 3)


def test_a_base_without_a_byte_level_tokenizer_is_rejected(tiny_overrides, tmp_path, capsys):
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    from tests.test_causal_lm import gpt2

    vocab = {"[UNK]": 0, "a": 1}
    backend = Tokenizer(models.WordPiece(vocab, unk_token="[UNK]"))
    PreTrainedTokenizerFast(tokenizer_object=backend).save_pretrained(tmp_path / "base")
    gpt2().save_pretrained(tmp_path / "base")
    align = f"align={{base: {tmp_path / 'base'}, method: mean}}"
    assert gpt_pt("align", *sets((*tiny_overrides, align))) == 2
    assert "is not byte-level BPE (it is WordPiece)" in capsys.readouterr().err


def test_a_folder_base_is_looked_into_before_anything_is_built(tiny_overrides, tmp_path, capsys):
    from tests.test_causal_lm import gpt2

    gpt2().save_pretrained(tmp_path / "base")
    align = f"align={{base: {tmp_path / 'base'}, method: mean}}"
    assert gpt_pt("align", *sets((*tiny_overrides, align))) == 2
    assert "has no tokenizer files" in capsys.readouterr().err
    assert not whole_folders(tiny_overrides)


def test_a_path_that_may_not_be_read_is_named(monkeypatch, capsys):
    def denied(*_, **__):
        raise PermissionError(errno.EACCES, "Permission denied", "private/mine.yaml")

    monkeypatch.setattr("gportuguese.cli.chosen.load_config", denied)
    assert gpt_pt("status", "--config", "mine.yaml") == 2
    assert capsys.readouterr().err == "gpt-pt: private/mine.yaml: Permission denied\n"


def test_artifacts_of_a_home_folder_are_there(tiny_overrides, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    assert gpt_pt("dump", *sets((*tiny_overrides, "runtime.artifacts_dir=~/runs"))) == 0
    assert list((tmp_path / "runs").glob("dump-*"))
    assert not (tmp_path / "~").exists()


def test_the_error_names_an_edited_artifact(tiny_overrides, capsys):
    config = load_config(None, tiny_overrides)
    folder = Pipeline(config).build("tokenizer", init_world(config.runtime)).folder
    with (folder / "merges.txt").open("a", encoding="utf-8") as file:
        file.write("x y\n")
    assert gpt_pt("tokens", *sets(tiny_overrides)) == 2
    error = capsys.readouterr().err
    assert str(folder / "merges.txt") in error
    assert "its digest does not match" in error


def test_nothing_is_published_on_a_full_disk(tiny_overrides, capsys, monkeypatch):
    def no_space(self, row):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("pyarrow.parquet.ParquetWriter.write_table", no_space)
    assert gpt_pt("corpus", *sets(tiny_overrides)) == 2
    assert "no space left on the disk" in capsys.readouterr().err
    assert not [folder for folder in whole_folders(tiny_overrides) if folder.startswith("corpus")]


class PoisonedLoss(Callback):
    """Multiplies the loss of one step by `times`."""

    order = 1
    run_valid = False

    def __init__(self, times, step=2):
        self.times, self.step = times, step

    def after_loss(self):
        if self.learn.train_iter == self.step:
            self.learn.loss_grad = self.learn.loss_grad * self.times
            self.learn.loss = self.learn.loss * self.times
            self.weights = [p.detach().clone() for p in self.learn.model.parameters()]


@pytest.mark.usefixtures("built_stages")
@pytest.mark.parametrize(
    ("precision", "times", "step"),
    [("fp32", torch.nan, 2), ("fp16", torch.nan, 2), ("fp32", 3.0, 14)],
)
def test_a_bad_loss_stops_before_the_step_and_names_the_documents(
    tiny_overrides, monkeypatch, precision, times, step
):
    config = load_config(
        None,
        (
            *tiny_overrides,
            f"train.precision={precision}",
            "runtime.micro_batch_size=8",
            "train.epoch_tokens=5120",
        ),
    )
    poison = PoisonedLoss(times, step + 10 * (times == 3.0))
    real, held = training.fit_phase, {}

    def poisoned(learn, phase, section, cbs):
        held.update(learn=learn)
        real(learn, phase, section, [*cbs, poison] if phase.name == "all" else cbs)

    monkeypatch.setattr(training, "fit_phase", poisoned)
    pipeline = Pipeline(config)
    with pytest.raises(TrainingStopped, match="stopped before the weights changed") as caught:
        pipeline.build("train", init_world(config.runtime))
    assert f"step {poison.step % 20 + 1}: the loss is" in str(caught.value)
    assert re.search(r"The batch held: Página \d+ \(\d+\); ", str(caught.value))
    assert "Exception occured" not in str(caught.value)
    for kept, now in zip(poison.weights, held["learn"].model.parameters(), strict=True):
        assert torch.equal(kept, now)
    partial = artifacts.partial_of(pipeline.folder("train"))
    assert [path.name for path in (partial / "phases").iterdir()] == ["1-embeddings"]
    assert not pipeline.folder("train").exists()


@pytest.mark.usefixtures("built_stages")
def test_a_late_loss_check_keeps_the_weights_too(tiny_overrides):
    """As on a GPU, where the host reads the result one step later."""
    learn, groups, config = prepared(tiny_overrides, "runtime.micro_batch_size=8")
    learn.guard.is_late = True
    poison = PoisonedLoss(torch.nan)
    with pytest.raises(TrainingStopped, match="epoch 1 of this phase, step 3: the loss is nan"):
        fit_phase(learn, config.train.phases[0], config.train, [TrainableGroups(groups, 4), poison])
    for kept, now in zip(poison.weights, learn.model.parameters(), strict=True):
        assert torch.equal(kept, now)


@pytest.mark.usefixtures("built_stages")
def test_a_late_loss_check_comes_before_the_checkpoint_of_its_step(tiny_overrides, monkeypatch):
    """Otherwise, a resumed run would start after the bad step."""
    often = ("runtime.micro_batch_size=8", "runtime.checkpoint_minutes=1e-9")
    config = load_config(None, (*tiny_overrides, *often))
    real = training.fit_phase

    def poisoned(learn, phase, section, cbs):
        learn.guard.is_late = True
        real(learn, phase, section, [*cbs, PoisonedLoss(torch.nan)])

    monkeypatch.setattr(training, "fit_phase", poisoned)
    pipeline = Pipeline(config)
    with pytest.raises(TrainingStopped, match="step 3: the loss is nan"):
        pipeline.build("train", init_world(config.runtime))
    folder = artifacts.partial_of(pipeline.folder("train")) / training.CHECKPOINTS
    assert newest(folder).position.step == 2


@pytest.mark.usefixtures("built_stages")
def test_a_loss_jump_also_stops_the_resumed_run(tiny_overrides, monkeypatch):
    """The checkpoint holds the mean loss, so the same step is rejected again."""
    settings = (
        "runtime.micro_batch_size=8",
        "runtime.checkpoint_minutes=1e-9",
        "train.epoch_tokens=5120",
        "train.max_loss_rise=3.0",
    )
    config = load_config(None, (*tiny_overrides, *settings))
    real = training.fit_phase

    def poisoned(learn, phase, section, cbs):
        poison = [PoisonedLoss(3.0, 25)] if phase.name == "all" else []
        real(learn, phase, section, [*cbs, *poison])

    monkeypatch.setattr(training, "fit_phase", poisoned)
    for _ in range(2):
        with pytest.raises(TrainingStopped, match=r"epoch 2 of this phase, step 6: the loss is"):
            Pipeline(config).build("train", init_world(config.runtime))


@pytest.mark.usefixtures("built_stages")
@pytest.mark.parametrize(
    ("epoch", "message"),
    [(0, "the base model does not work in this precision"), (1, "this phase is not kept")],
)
def test_the_error_of_a_nan_validation_loss_names_no_documents(
    tiny_overrides, monkeypatch, epoch, message
):
    config = load_config(None, tiny_overrides)
    real = EpochTable.add_row

    def add_row(self, phase, train_loss, measures, *seconds):
        nan = replace(measures, loss=math.nan) if len(self.rows) == epoch else measures
        real(self, phase, train_loss, nan, *seconds)

    monkeypatch.setattr(EpochTable, "add_row", add_row)
    with pytest.raises(TrainingStopped, match=message) as caught:
        Pipeline(config).build("train", init_world(config.runtime))
    assert "The batch held" not in str(caught.value)


@pytest.mark.usefixtures("built_stages")
def test_an_out_of_memory_error_comes_with_advice(tiny_overrides, monkeypatch):
    learn, groups, config = prepared(tiny_overrides)

    def forward(*_):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has")

    monkeypatch.setattr(learn.model, "forward", forward)
    with pytest.raises(WorldError, match=r"cpu is out of memory: lower runtime\.micro_batch_size"):
        fit_phase(learn, config.train.phases[0], config.train, [TrainableGroups(groups, 4)])


class PoisonedGradient(Callback):
    """Makes one gradient infinite in the third step."""

    order = 11.5

    def before_step(self):
        if self.train_iter == 2:
            next(p for p in self.learn.model.parameters() if p.grad is not None).grad[0] = torch.inf


@pytest.mark.usefixtures("built_stages")
def test_infinite_gradients_stop_before_the_step(tiny_overrides):
    learn, groups, config = prepared(tiny_overrides, "runtime.micro_batch_size=8")
    phase = config.train.phases[0]
    taken = []
    learn.opt.opt.register_step_post_hook(lambda *_: taken.append(1))
    with pytest.raises(TrainingStopped, match="norm of the gradients inf"):
        fit_phase(learn, phase, config.train, [TrainableGroups(groups, 4), PoisonedGradient()])
    assert len(taken) == 2
    assert all(torch.isfinite(p).all() for p in learn.model.parameters())


@pytest.mark.usefixtures("built_stages")
def test_a_stopped_run_leaves_autocast(tiny_overrides):
    learn, groups, config = prepared(tiny_overrides, "train.precision=bf16")
    cbs = [TrainableGroups(groups, 4), PoisonedLoss(torch.nan)]
    with pytest.raises(TrainingStopped, match="the loss is nan"):
        fit_phase(learn, config.train.phases[0], config.train, cbs)
    assert not torch.is_autocast_enabled("cpu")


@pytest.mark.slow
@pytest.mark.parametrize(("stop", "code"), [(signal.SIGINT, 130), (signal.SIGKILL, -9)])
def test_a_killed_run_resumes_with_the_same_result(tiny_overrides, tmp_path, stop, code):
    def overrides(name):
        return [
            *tiny_overrides,
            f"runtime.artifacts_dir={tmp_path / name}",
            "train.epoch_tokens=20480",
        ]

    def start(name, **options):
        words = ["train", *sets(overrides(name))]
        return subprocess.Popen([sys.executable, "-m", "gportuguese", *words], **options)

    process = start("stopped", stderr=subprocess.PIPE, text=True)
    for line in process.stderr:
        if "epoch 2 (all)" in line:
            break
    process.send_signal(stop)
    process.communicate(timeout=60)
    assert process.returncode == code
    for name in ("stopped", "straight"):
        assert start(name).wait(timeout=90) == 0
    folders = [next((tmp_path / name).glob("train-*")) for name in ("stopped", "straight")]
    for file in ("epochs.csv", "model/model.safetensors"):
        assert (folders[0] / file).read_bytes() == (folders[1] / file).read_bytes()
