"""A CUDA device trains the same model as the CPU, in every precision and with every option."""

import pytest
import torch

from gportuguese.epochs import read_epochs
from gportuguese.loss import HeadLoss
from tests.invariants.test_resume import OFTEN, stop_in_last_phase
from tests.test_loss import plain, small
from tests.test_optimizer import needs_muon
from tests.test_train import run

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]

HAS_BF16 = torch.cuda.is_available() and torch.cuda.get_device_capability()[0] >= 8
MUON = [needs_muon, pytest.mark.skipif(not HAS_BF16, reason="this device has no bf16")]
NO_DROPOUT = "train.dropout=0.0"


def rows(overrides, folder, device, *more):
    artifact = run(
        overrides, NO_DROPOUT, f"runtime.artifacts_dir={folder}", f"runtime.device={device}", *more
    )
    assert artifact.facts["device"].startswith("cpu") == (device == "cpu")
    return read_epochs(artifact.folder / "epochs.csv")


@pytest.mark.parametrize("precision", ["fp32", "fp16", "bf16"])
def test_cuda_follows_the_cpu(tiny_overrides, tmp_path, precision):
    if precision == "bf16" and not HAS_BF16:
        pytest.skip("this device has no bf16")
    wanted = rows(tiny_overrides, tmp_path / "cpu", "cpu")
    got = rows(tiny_overrides, tmp_path / "cuda", "cuda", f"train.precision={precision}")
    for one, two in zip(got, wanted, strict=True):
        assert one.loss == pytest.approx(two.loss, rel=1e-3 if precision == "fp32" else 0.02)


@pytest.mark.parametrize(
    ("option", "common"),
    [
        ("runtime.compile=true", ()),
        ("runtime.activation_checkpointing=true", ()),
        ("runtime={compile: true, activation_checkpointing: true}", ()),
        pytest.param(
            "runtime.compile=true", ("train.optimizer=muon", "train.precision=bf16"), marks=MUON
        ),
        ("runtime.vocab_multiple=64", ()),
        ("runtime.loss_rows=7", ()),
        ("runtime.micro_batch_size=2", ()),
    ],
)
@pytest.mark.timeout(600)  # the first compilation is slow
def test_speed_and_memory_options_do_not_change_the_result(
    tiny_overrides, tmp_path, option, common
):
    wanted = rows(tiny_overrides, tmp_path / "plain", "cuda", *common)
    got = rows(tiny_overrides, tmp_path / "option", "cuda", option, *common)
    tolerance = 2e-2 if "train.precision=bf16" in common else 1e-4
    for one, two in zip(got, wanted, strict=True):
        assert one.loss == pytest.approx(two.loss, rel=tolerance)
        assert one.bits_per_byte == pytest.approx(two.bits_per_byte, rel=tolerance)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_the_chunked_loss_equals_the_plain_one(dtype):
    torch.manual_seed(0)
    model = small("gpt2").eval().cuda()
    ids_BT = torch.randint(64, (4, 16), device="cuda")
    with torch.autocast("cuda", dtype, enabled=dtype != torch.float32):
        wanted, _, _, gradients = plain(model, ids_BT, ids_BT, 1.0)
        value = HeadLoss(model, chunk_rows=5, vocab_multiple=48)(model(ids_BT).logits, ids_BT)
    tolerance = 1e-5 if dtype == torch.float32 else 2e-2
    torch.testing.assert_close(value, wanted, rtol=tolerance, atol=tolerance)
    for own, other in zip(
        torch.autograd.grad(value, list(model.parameters())), gradients, strict=True
    ):
        assert (own - other).norm() <= tolerance * other.norm() + 1e-6


@pytest.mark.parametrize(
    "setting",
    [
        "train.precision=fp32",
        "train.precision=fp16",
        pytest.param("train.optimizer=muon", marks=MUON),
    ],
)
def test_a_stopped_run_resumes(tiny_overrides, tmp_path, monkeypatch, setting):
    undo = stop_in_last_phase(monkeypatch, 9, RuntimeError("cut"))
    with pytest.raises(RuntimeError, match="cut"):
        rows(tiny_overrides, tmp_path / "stopped", "cuda", setting, OFTEN)
    undo()
    got = rows(tiny_overrides, tmp_path / "stopped", "cuda", setting)
    wanted = rows(tiny_overrides, tmp_path / "straight", "cuda", setting)
    for one, two in zip(got, wanted, strict=True):
        assert one.loss == pytest.approx(two.loss, rel=1e-3)


def test_dropout_resumes_with_the_same_random_states(tiny_overrides, tmp_path, monkeypatch):
    def with_dropout(folder, *more):
        settings = (f"runtime.artifacts_dir={tmp_path / folder}", "runtime.device=cuda", *more)
        return read_epochs(run(tiny_overrides, *settings).folder / "epochs.csv")

    undo = stop_in_last_phase(monkeypatch, 9, RuntimeError("cut"))
    with pytest.raises(RuntimeError, match="cut"):
        with_dropout("stopped", OFTEN)
    undo()
    assert with_dropout("stopped")[-1].loss == pytest.approx(
        with_dropout("straight")[-1].loss, rel=1e-4
    )


@pytest.mark.parametrize("optimizer", ["adamw", pytest.param("muon", marks=MUON)])
def test_a_bad_step_leaves_the_weights_unchanged(tiny_overrides, optimizer):
    from gportuguese.callbacks import TrainableGroups
    from gportuguese.callbacks.guard import TrainingStopped
    from gportuguese.learner import fit_phase
    from tests.faults.test_bad_input import PoisonedLoss
    from tests.test_learner import prepared

    settings = ("runtime.micro_batch_size=8", "runtime.device=cuda")
    learn, groups, config = prepared(tiny_overrides, *settings, f"train.optimizer={optimizer}")
    assert learn.guard.is_late == (optimizer == "adamw")
    poison = PoisonedLoss(torch.nan)
    with pytest.raises(TrainingStopped, match="step 3: the loss is nan"):
        fit_phase(learn, config.train.phases[0], config.train, [TrainableGroups(groups, 4), poison])
    for kept, now in zip(poison.weights, learn.model.parameters(), strict=True):
        assert torch.equal(kept, now)
    assert next(learn.model.parameters()).is_cuda
