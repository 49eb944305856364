from itertools import groupby

import pytest
import torch

from gportuguese import Pipeline, causal_lm, init_world, load_config, loss, training
from gportuguese.epochs import read_epochs, read_steps
from tests.test_causal_lm import needs_compile

pytestmark = pytest.mark.usefixtures("built_stages")


def run(overrides, *more):
    config = load_config(None, (*overrides, *more))
    return Pipeline(config).build("train", init_world(config.runtime))


def test_epochs_are_counted_across_phases_and_all_weights_are_saved(tiny_overrides):
    artifact = run(tiny_overrides)
    rows = read_epochs(artifact.folder / "epochs.csv")
    assert [(row.epoch, row.phase) for row in rows] == [
        (0, "before"),
        (1, "embeddings"),
        (2, "all"),
        (3, "all"),
    ]
    assert rows[-1].loss < rows[0].loss - 0.5
    assert artifact.facts["trainable_parameters"]["all"] == sum(
        p.numel() for p in causal_lm.load(artifact.folder / "model").parameters()
    )
    found = {
        p.relative_to(artifact.folder).as_posix() for p in artifact.folder.rglob("*.safetensors")
    }
    assert found == {
        "model/model.safetensors",
        "phases/1-embeddings/model.safetensors",
        "phases/2-all/model.safetensors",
    }


@pytest.mark.parametrize(("batch", "stretch"), [(8, 1), (4, 3)])
def test_the_loss_by_step_adds_up_to_the_loss_of_each_epoch(
    tiny_overrides, monkeypatch, batch, stretch
):
    # an epoch has 64 blocks
    monkeypatch.setattr("gportuguese.callbacks.loss_curve._POINTS", 64 // batch // stretch)
    artifact = run(tiny_overrides, f"train.global_batch_size={batch}")
    steps, num_steps = read_steps(artifact.folder / "steps.csv"), 64 // batch
    assert steps[-1].step == 3 * num_steps
    assert [row.epoch for row in steps] == pytest.approx([row.step / num_steps for row in steps])
    by_epoch = groupby(steps, key=lambda row: (row.step - 1) // num_steps)
    for (epoch, found), row in zip(
        by_epoch, read_epochs(artifact.folder / "epochs.csv")[1:], strict=True
    ):
        total, last = 0.0, epoch * num_steps
        for step in found:
            assert 1 <= step.step - last <= -(-num_steps // (num_steps // stretch))
            total += step.train_loss * (step.step - last)
            last = step.step
        assert total / num_steps == pytest.approx(row.train_loss, rel=1e-5)


def test_a_padded_vocabulary_trains_and_saves_the_same_model(tiny_overrides, tmp_path):
    plain = run(tiny_overrides)
    padded = run(
        tiny_overrides, "runtime.vocab_multiple=64", f"runtime.artifacts_dir={tmp_path / 'padded'}"
    )
    assert padded.digest == plain.digest
    wanted = causal_lm.load(plain.folder / "model").state_dict()
    got = causal_lm.load(padded.folder / "model").state_dict()
    assert got["transformer.wte.weight"].shape == (300, 16)
    for name, weight in wanted.items():
        torch.testing.assert_close(got[name], weight, rtol=1e-3, atol=1e-4)


@needs_compile
@pytest.mark.parametrize("more", [(), ("runtime.activation_checkpointing=true",)])
def test_a_compiled_model_trains_the_same(tiny_overrides, tmp_path, monkeypatch, more):
    """Covers unfreezing and validation; uses a back end that needs no C++ compiler."""
    real, compiled = torch.nn.Module.compile, []

    def with_other_back_end(self):
        compiled.append(self)
        real(self, backend="aot_eager")

    monkeypatch.setattr(torch.nn.Module, "compile", with_other_back_end)
    kernel = torch.compile(loss.nats_and_gradients, backend="aot_eager")
    monkeypatch.setattr(loss, "compiled", lambda: kernel)
    other = (f"runtime.artifacts_dir={tmp_path / 'compiled'}", "runtime.compile=true")
    got = read_epochs(run(tiny_overrides, *other, "train.dropout=0.0", *more).folder / "epochs.csv")
    plain = read_epochs(run(tiny_overrides, "train.dropout=0.0").folder / "epochs.csv")
    assert len(compiled) == 3
    for one, two in zip(got, plain, strict=True):
        assert one.loss == pytest.approx(two.loss, rel=1e-4)


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_mixed_precision_follows_fp32(tiny_overrides, precision):
    plain = read_epochs(run(tiny_overrides).folder / "epochs.csv")
    mixed = read_epochs(run(tiny_overrides, f"train.precision={precision}").folder / "epochs.csv")
    assert mixed[-1].loss == pytest.approx(plain[-1].loss, rel=0.02)
    assert mixed[-1].loss != plain[-1].loss


def test_a_run_stopped_while_publishing_does_not_train_again(tiny_overrides, monkeypatch):
    from gportuguese import artifacts

    real = artifacts.publish

    def interrupted(partial, folder, manifest):
        if manifest["stage"] == "train":
            raise KeyboardInterrupt
        return real(partial, folder, manifest)

    monkeypatch.setattr(artifacts, "publish", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run(tiny_overrides)
    monkeypatch.setattr(artifacts, "publish", real)
    monkeypatch.setattr(training, "fit_phase", None)  # nothing is left to fit
    rows = read_epochs(run(tiny_overrides).folder / "epochs.csv")
    assert [row.epoch for row in rows] == [0, 1, 2, 3]


def test_weights_are_copied_if_the_file_system_has_no_hard_links(tiny_overrides, monkeypatch):
    def refuse(source, target):
        raise PermissionError(1, "no links here")

    monkeypatch.setattr(training.os, "link", refuse)
    folder = run(tiny_overrides).folder
    weights = "model.safetensors"
    copied, kept = folder / "model" / weights, folder / "phases/2-all" / weights
    assert copied.read_bytes() == kept.read_bytes()
