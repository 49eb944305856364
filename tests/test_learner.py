from dataclasses import replace

import pytest
import torch
from fastai.callback.core import Callback
from fastai.learner import Recorder

from gportuguese import Pipeline, causal_lm, init_world, learner, load_config, precision
from gportuguese.callbacks import TrainableGroups
from gportuguese.config import PhaseConfig, TrainConfig
from gportuguese.loaders import make_loaders
from gportuguese.loss import HeadLoss
from gportuguese.lr_find import find_rate
from gportuguese.world import World, WorldError
from tests.test_cli import gpt_pt, sets

pytestmark = pytest.mark.usefixtures("built_stages")


def prepared(overrides, *more):
    """Learner, parameter groups and config of a run that is ready to fit."""
    config = load_config(None, (*overrides, *more))
    world, pipeline = init_world(config.runtime), Pipeline(config)
    tokens, aligned = pipeline.build("tokens", world), pipeline.build("align", world)
    model = causal_lm.load(aligned.folder)
    learn = learner.make_phase_learner(model, make_loaders(config, tokens, world), config, world)
    return learn, causal_lm.parameter_groups(model), config


def test_a_phase_trains_only_the_last_groups(tiny_overrides):
    learn, groups, config = prepared(tiny_overrides, "train.weight_decay=0.1")
    before = [[p.detach().clone() for p in group] for group in groups]
    phase = PhaseConfig(name="a", epochs=1, trainable_groups=2, lr_max=1e-2)
    learner.fit_phase(learn, phase, config.train, [TrainableGroups(groups, 2)])
    moved = [
        any(not torch.equal(p, q) for p, q in zip(group, olds, strict=True))
        for group, olds in zip(groups, before, strict=True)
    ]
    assert moved == [False, False, True, True]
    assert all(p.grad is None for group in groups[:2] for p in group)


def test_one_cycle_has_the_recipes_shape(tiny_overrides):
    learn, groups, config = prepared(tiny_overrides)
    phase = PhaseConfig(name="a", epochs=2, trainable_groups=4, lr_max=1e-2, lr_ratio=1)
    learn.add_cb(Recorder())
    learner.fit_phase(learn, phase, config.train, [TrainableGroups(groups, 4)])
    rates, moments = learn.recorder.hps["lr"], learn.recorder.hps["mom"]
    assert rates[0] == pytest.approx(1e-2 / 25)
    assert max(rates) == pytest.approx(1e-2, rel=0.02)
    assert moments[0] == pytest.approx(0.95)
    assert min(moments) == pytest.approx(0.85, abs=0.002)
    peak = rates.index(max(rates))
    assert peak / len(rates) == pytest.approx(0.25, abs=0.05)


def test_overflowing_fp16_gradients_skip_the_step(tiny_overrides):
    learn, groups, config = prepared(tiny_overrides, "train.precision=fp16")
    before = groups[-1][0].detach().clone()
    learn.precision.scaler = torch.amp.GradScaler("cpu", init_scale=2.0**60, growth_interval=10**6)
    phase = PhaseConfig(name="a", epochs=1, trainable_groups=4, lr_max=1e-2, lr_ratio=1)
    learner.fit_phase(learn, phase, config.train, [TrainableGroups(groups, 4)])
    # 8 steps halve the scale 8 times; it is still far too large, so no weight may change
    assert learn.precision.scaler.get_scale() == 2.0**52
    assert torch.equal(groups[-1][0], before)


class GradientNorm(Callback):
    """Records the norm of the gradients that the optimizer is about to use."""

    order = 12

    def before_step(self):
        grads = [p.grad for p in self.learn.model.parameters() if p.grad is not None]
        self.norm = torch.linalg.vector_norm(torch.stack([g.norm() for g in grads])).item()


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_clipping_sees_unscaled_gradients(tiny_overrides, precision):
    learn, groups, config = prepared(
        tiny_overrides, f"train.precision={precision}", "train.grad_clip=0.01"
    )
    spy = GradientNorm()
    phase = PhaseConfig(name="a", epochs=1, trainable_groups=1, lr_max=1e-2, lr_ratio=1)
    learner.fit_phase(learn, phase, config.train, [TrainableGroups(groups, 1), spy])
    assert spy.norm == pytest.approx(0.01, rel=1e-3)


def test_lr_find_suggests_a_rate_and_draws(tiny_overrides, tmp_path, monkeypatch):
    config = load_config(None, tiny_overrides)
    world, pipeline = init_world(config.runtime), Pipeline(config)
    inputs = {name: pipeline.build(name, world) for name in ("align", "tokens")}
    picture = tmp_path / "lr.png"
    taken = []

    class Counted(torch.optim.AdamW):
        def step(self, *args):
            taken[-1] += 1
            return super().step(*args)

    monkeypatch.setattr(torch.optim, "AdamW", Counted)
    for micro_batch_size in (8, 2):  # four passes a step
        taken.append(0)
        runtime = replace(config.runtime, micro_batch_size=micro_batch_size)
        small = replace(config, runtime=runtime)
        assert 1e-7 < find_rate(small, inputs, picture, world) < 10
        assert picture.read_bytes().startswith(b"\x89PNG")
    assert all(80 < steps <= 100 for steps in taken)  # the search ends when the loss diverges


def test_lr_find_refuses_several_processes(tiny_overrides, capsys, monkeypatch):
    world = World("cpu", num_workers=0, num_ranks=2)
    monkeypatch.setattr("gportuguese.cli.lr_find.init_world", lambda _: world)
    assert gpt_pt("lr-find", *sets(tiny_overrides)) == 2
    assert capsys.readouterr().err == (
        "gpt-pt: lr-find runs in one process; start it without torchrun\n"
    )


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_lr_find_ends_when_the_loss_is_not_finite(tiny_overrides, tmp_path, precision, monkeypatch):
    config = load_config(None, (*tiny_overrides, f"train.precision={precision}"))
    world, pipeline = init_world(config.runtime), Pipeline(config)
    inputs = {name: pipeline.build(name, world) for name in ("align", "tokens")}
    real, seen = HeadLoss.__call__, []

    def loss(*args):
        seen.append(real(*args) * (torch.nan if len(seen) == 120 else 1))
        return seen[-1]

    monkeypatch.setattr(HeadLoss, "__call__", loss)
    assert 1e-7 < find_rate(config, inputs, tmp_path / "lr.png", world) < 10
    assert len(seen) == 122  # two passes a step


def test_a_slow_precision_on_this_cpu_triggers_a_warning(monkeypatch, caplog):
    flops = {torch.float32: 59e9, torch.bfloat16: 1e9, torch.float16: 90e9}
    monkeypatch.setattr(precision, "product_flops", flops.__getitem__)
    with caplog.at_level("WARNING", "gportuguese"):
        precision.check_precision("cpu", TrainConfig(precision="fp32"))
        precision.check_precision("cpu", TrainConfig(precision="fp16"))
        assert not caplog.messages
        precision.check_precision("cpu", TrainConfig(precision="bf16"))
        assert "take 59 times as long as in fp32; set train.precision=fp32" in caplog.text
        precision.check_precision("cpu", TrainConfig(optimizer="muon"))
        assert caplog.messages[-1].endswith("set train.optimizer=adamw")


def test_a_gpu_without_bf16_is_rejected(monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: (7, 0))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: "V100")
    precision.check_precision("cuda:0", TrainConfig(precision="fp16"))
    with pytest.raises(WorldError, match=r"bf16: V100 has no bf16; set train\.precision=fp32"):
        precision.check_precision("cuda:0", TrainConfig(precision="bf16"))
    with pytest.raises(WorldError, match=r"muon computes in bf16: V100 .* train\.optimizer=adamw"):
        precision.check_precision("cuda:0", TrainConfig(precision="fp16", optimizer="muon"))


def test_compile_with_an_old_pytorch_is_rejected_before_anything_is_built(
    tiny_overrides, tmp_path, monkeypatch
):
    monkeypatch.delattr(torch.compiler, "is_exporting", raising=False)
    monkeypatch.setattr(torch, "__version__", "2.6.0")
    new = f"runtime.artifacts_dir={tmp_path / 'new'}"
    config = load_config(None, (*tiny_overrides, new, "runtime.compile=true"))
    pipeline, world = Pipeline(config), init_world(config.runtime)
    with pytest.raises(WorldError, match=r"needs PyTorch 2\.7 or later, .* this is 2\.6\.0"):
        pipeline.build("train", world)
    assert not (tmp_path / "new").exists()
    with pytest.raises(WorldError, match=r"set runtime\.compile=false"):
        find_rate(config, {}, tmp_path / "lr.png", world)
