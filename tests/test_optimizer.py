import copy

import pytest
import torch
from torch import nn
from transformers import GPT2Config, GPT2LMHeadModel

from gportuguese import causal_lm, load_config
from gportuguese.config import PhaseConfig
from gportuguese.optimizer import MuonAdamW, OptimizerError, learning_rates, make_optimizer

RATE, MOMENTUM, BETA2, EPS, DECAY = 0.01, 0.9, 0.99, 1e-5, 0.1

needs_muon = pytest.mark.skipif(not hasattr(torch.optim, "Muon"), reason="needs PyTorch 2.9")


def small_model():
    torch.manual_seed(0)
    return GPT2LMHeadModel(GPT2Config(vocab_size=20, n_positions=8, n_embd=12, n_layer=3, n_head=2))


def optimizer_of(model, name):
    section = load_config(None, (f"train.optimizer={name}",)).train
    return make_optimizer(model, causal_lm.parameter_groups(model), section)


def newton_schulz(update_MN):
    """Applies 3.4445 s - 4.7750 s^3 + 2.0315 s^5 five times to each singular value (Jordan 2024)."""
    left, values, right = torch.linalg.svd(update_MN / update_MN.norm(), full_matrices=False)
    for _ in range(5):
        values = 3.4445 * values - 4.7750 * values**3 + 2.0315 * values**5
    return left @ torch.diag(values) @ right


def test_rates_are_geometric_over_groups_as_fastai_spreads_a_slice():
    from fastai.torch_core import even_mults

    phase = PhaseConfig(name="a", epochs=1, trainable_groups=4, lr_max=1e-3, lr_ratio=2.6**4)
    rates = learning_rates(phase)
    assert rates[::2] == rates[1::2]
    assert rates[::2] == pytest.approx(list(even_mults(1e-3 / 2.6**4, 1e-3, 4)))


@needs_muon
def test_each_optimizer_group_has_the_rate_of_its_parameters():
    model = small_model()
    phase = PhaseConfig(name="a", epochs=1, trainable_groups=4, lr_max=8.0, lr_ratio=8)
    names = {id(p): name for name, p in model.named_parameters()}
    groups = optimizer_of(model, "muon").param_groups
    for group, rate in zip(groups, learning_rates(phase), strict=True):
        for name in (names[id(p)] for p in group["params"]):
            block = name.split(".")[2] if ".h." in name else "outside"
            assert rate == pytest.approx({"0": 1, "1": 2, "2": 4, "outside": 8}[block])
            is_matrix = "ln_" not in name and not name.endswith("bias")
            assert (group["weight_decay"] > 0) == is_matrix
            assert group["muon"] == (is_matrix and block != "outside")


@needs_muon
def test_muon_is_momentum_with_its_singular_values_pushed_to_one():
    torch.manual_seed(1)
    matrix, vector = nn.Parameter(torch.randn(6, 10)), nn.Parameter(torch.randn(7))
    groups = [
        {"params": [matrix], "weight_decay": DECAY, "muon": True},
        {"params": [vector], "weight_decay": 0.0, "muon": False},
    ]
    optimizer = MuonAdamW(groups, RATE, (MOMENTUM, BETA2), EPS)
    wanted_MN, buffer_MN = matrix.detach().double(), torch.zeros(6, 10).double()
    wanted, first, second = vector.detach().double(), 0, 0
    for step in range(1, 4):
        matrix.grad, vector.grad = torch.randn(6, 10), torch.randn(7)
        grad_MN, grad = matrix.grad.double(), vector.grad.double()
        optimizer.step()
        buffer_MN = MOMENTUM * buffer_MN + (1 - MOMENTUM) * grad_MN
        update_MN = newton_schulz(MOMENTUM * buffer_MN + (1 - MOMENTUM) * grad_MN)
        wanted_MN = wanted_MN * (1 - RATE * DECAY) - RATE * 0.2 * 10**0.5 * update_MN
        first = MOMENTUM * first + (1 - MOMENTUM) * grad
        second = BETA2 * second + (1 - BETA2) * grad**2
        mean, square = first / (1 - MOMENTUM**step), second / (1 - BETA2**step)
        wanted = wanted - RATE * mean / (square.sqrt() + EPS)
        # PyTorch iterates in bf16, whose relative precision is 1/256
        torch.testing.assert_close(matrix.double(), wanted_MN, rtol=0, atol=step * RATE / 64)
        torch.testing.assert_close(vector.double(), wanted, rtol=1e-5, atol=1e-6)


@needs_muon
def test_muon_trains_only_the_matrices_in_blocks():
    model = small_model()
    optimizer = optimizer_of(model, "muon")
    model(torch.arange(8)[None], labels=torch.arange(8)[None]).loss.backward()
    optimizer.step()
    names = {
        name for name, p in model.named_parameters() if "momentum_buffer" in optimizer.state[p]
    }
    kinds = ("attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj")
    assert names == {f"transformer.h.{n}.{kind}.weight" for n in range(3) for kind in kinds}
    assert all(
        "exp_avg" in optimizer.state[p] for n, p in model.named_parameters() if n not in names
    )


@needs_muon
def test_a_restored_state_takes_the_same_step():
    def step(model, optimizer, ids):
        model(ids[None], labels=ids[None]).loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    model = small_model().eval()
    optimizer = optimizer_of(model, "muon")
    step(model, optimizer, torch.arange(8))
    twin = copy.deepcopy(model)
    restored = optimizer_of(twin, "muon")
    restored.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    assert all(group["fused"] for group in restored.param_groups)
    step(model, optimizer, torch.arange(8) + 3)
    step(twin, restored, torch.arange(8) + 3)
    for one, two in zip(model.parameters(), twin.parameters(), strict=True):
        assert torch.equal(one, two)


def test_adamw_is_pytorchs_own():
    optimizer = optimizer_of(small_model(), "adamw")
    assert type(optimizer) is torch.optim.AdamW
    assert [group["weight_decay"] for group in optimizer.param_groups] == [0.01, 0.0] * 4
    assert all(group["fused"] for group in optimizer.param_groups)


@needs_muon
def test_muon_rejects_a_block_with_a_three_dimensional_parameter():
    model = small_model()
    model.transformer.h[1].experts = nn.Parameter(torch.zeros(2, 3, 4))
    with pytest.raises(
        OptimizerError, match=r"muon: .*2, 3, 4.* in GPT2LMHeadModel; set train.opt"
    ):
        optimizer_of(model, "muon")


def test_muon_rejects_a_pytorch_without_it(monkeypatch):
    monkeypatch.delattr(torch.optim, "Muon", raising=False)
    with pytest.raises(OptimizerError, match=r"needs PyTorch 2\.9 or later"):
        optimizer_of(small_model(), "muon")
