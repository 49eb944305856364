"""Settings that must not change the result, and runs that must be reproducible."""

import shutil

import pytest
import torch
from fastai.learner import Recorder
from torch.nn.functional import cross_entropy

from gportuguese import Pipeline, causal_lm, init_world, load_config, training
from gportuguese.epochs import read_epochs
from gportuguese.optimizer import learning_rates, make_optimizer
from tests.test_optimizer import needs_muon

pytestmark = pytest.mark.usefixtures("built_stages")

NO_DROPOUT = "align.base={layers: 3, width: 16, heads: 2, positions: 32, dropout: 0.0}"


def build(overrides, *more):
    config = load_config(None, (*overrides, *more))
    return Pipeline(config).build("train", init_world(config.runtime)).folder


def elsewhere(overrides, folder):
    """The settings with another artifacts folder, which gets the stages before training."""
    built = load_config(None, overrides).runtime.artifacts_dir
    shutil.copytree(built, folder, ignore=shutil.ignore_patterns("train-*"))
    return (*overrides, f"runtime.artifacts_dir={folder}")


def test_same_config_and_seed_give_the_same_bytes(tiny_overrides, tmp_path):
    one, two = (
        build(tiny_overrides, f"runtime.artifacts_dir={tmp_path / name}")  # all stages
        for name in ("one", "two")
    )
    assert one.name == two.name
    assert (one / "epochs.csv").read_bytes() == (two / "epochs.csv").read_bytes()
    for name in ("model/model.safetensors", "phases/1-embeddings/model.safetensors"):
        assert (one / name).read_bytes() == (two / name).read_bytes()


def test_a_different_seed_gives_a_different_run(tiny_overrides):
    one, two = build(tiny_overrides), build(tiny_overrides, "train.seed=1")
    assert (one / "epochs.csv").read_bytes() != (two / "epochs.csv").read_bytes()


def test_one_pass_of_eight_equals_eight_passes_of_one(tiny_overrides, tmp_path):
    folders = [
        build(
            elsewhere(tiny_overrides, tmp_path / str(size)),
            NO_DROPOUT,
            f"runtime.micro_batch_size={size}",
        )
        for size in (8, 1)
    ]
    rows = [read_epochs(folder / "epochs.csv") for folder in folders]
    for whole, split in zip(*rows, strict=True):
        assert split.loss == pytest.approx(whole.loss, abs=1e-5)
        assert split.bits_per_byte == pytest.approx(whole.bits_per_byte, abs=1e-5)
    weights = [causal_lm.load(folder / "model").state_dict() for folder in folders]
    for name, whole in weights[0].items():
        torch.testing.assert_close(weights[1][name], whole, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(
    ("stop", "precision"), [(KeyboardInterrupt("ctrl-c"), "fp32"), (RuntimeError("cut"), "fp16")]
)
def test_a_run_stopped_in_the_second_phase_ends_like_an_uninterrupted_one(
    tiny_overrides, tmp_path, monkeypatch, stop, precision
):
    tiny_overrides = (*tiny_overrides, f"train.precision={precision}")
    straight = build(elsewhere(tiny_overrides, tmp_path / "straight"))
    stopped = elsewhere(tiny_overrides, tmp_path / "stopped")
    real, fits = training.fit_phase, []

    def fit_then_stop(learn, phase, section, cbs):
        if phase.name == "all":
            learn.opt.step()
            raise stop
        fits.append(phase.name)
        real(learn, phase, section, cbs)

    monkeypatch.setattr(training, "fit_phase", fit_then_stop)
    with pytest.raises(type(stop)):
        build(stopped)
    assert fits == ["embeddings"]
    monkeypatch.setattr(training, "fit_phase", real)
    resumed = build(stopped)
    assert (resumed / "epochs.csv").read_bytes() == (straight / "epochs.csv").read_bytes()
    weights = "model/model.safetensors"
    assert (resumed / weights).read_bytes() == (straight / weights).read_bytes()


@pytest.mark.parametrize("name", ["adamw", pytest.param("muon", marks=needs_muon)])
def test_fastai_learner_equals_a_bare_pytorch_loop(tiny_overrides, name):
    from tests.test_learner import prepared

    settings = (NO_DROPOUT, "runtime.micro_batch_size=8", f"train.optimizer={name}")
    learn, _, config = prepared(tiny_overrides, *settings)
    twin, _, _ = prepared(tiny_overrides, *settings)
    phase = config.train.phases[-1]
    learn.add_cb(Recorder())
    training.fit_phase(learn, phase, config.train, [])
    rates, moments = learn.recorder.hps["lr"], learn.recorder.hps["mom"]
    model, loader = twin.model, twin.dls.train
    if name == "adamw":  # Muon rounds to bf16 and amplifies a gradient's last bit
        twin.loss_func.release()
    optimizer = make_optimizer(model, causal_lm.parameter_groups(model), config.train)
    ratios = [rate / phase.lr_max for rate in learning_rates(phase)]
    model.train()
    # without EpochOrder, both read epoch 0 twice
    batches = [batch for _ in range(phase.epochs) for batch in loader]
    for (inputs_BT, targets_BT), rate, moment in zip(batches, rates, moments, strict=True):
        for group, ratio in zip(optimizer.param_groups, ratios, strict=True):
            group["lr"], group["betas"] = rate * ratio, (moment, config.train.beta2)
        logits_BTV = model(inputs_BT).logits
        if name == "adamw":
            loss = cross_entropy(logits_BTV.flatten(0, 1), targets_BT.flatten())
        else:
            loss = twin.loss_func(logits_BTV, targets_BT)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    for ours, bare in zip(learn.model.parameters(), model.parameters(), strict=True):
        torch.testing.assert_close(ours, bare, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("option", ["activation_checkpointing=true", "loss_rows=7"])
def test_memory_options_do_not_change_the_result(tiny_overrides, tmp_path, option):
    folders = [
        build(elsewhere(tiny_overrides, tmp_path / name), *more)
        for name, more in (("plain", ()), ("option", (f"runtime.{option}",)))
    ]
    assert folders[0].name == folders[1].name
    rows = [read_epochs(folder / "epochs.csv") for folder in folders]
    for plain, saving in zip(*rows, strict=True):
        assert saving.loss == pytest.approx(plain.loss, abs=1e-5)  # dropout is the same too
