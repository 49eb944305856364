import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn.functional import cross_entropy
from transformers import Gemma2Config, Gemma2ForCausalLM, PhiConfig, PhiForCausalLM

from gportuguese import loss as loss_module
from gportuguese.loss import HeadLoss, nats_and_gradients
from tests.test_causal_lm import gpt2, llama


def small(kind):
    shape = {
        "vocab_size": 64,
        "hidden_size": 16,
        "intermediate_size": 32,
        "num_hidden_layers": 3,
        "num_attention_heads": 2,
    }
    if kind == "head with bias":
        return PhiForCausalLM(PhiConfig(**shape))
    if kind == "capped logits":
        return Gemma2ForCausalLM(Gemma2Config(**shape, head_dim=8, num_key_value_heads=2))
    return gpt2() if kind == "gpt2" else llama(tied=kind == "llama tied")


def plain(model, ids_BT, targets_BT, factor):
    """Loss, nats, correct predictions and gradients of the plain PyTorch loss."""
    logits_NV = model(ids_BT).logits.flatten(0, 1)
    nats_N = cross_entropy(logits_NV.float(), targets_BT.flatten(), reduction="none")
    gradients = torch.autograd.grad(factor * nats_N.mean(), list(model.parameters()))
    return nats_N.mean(), nats_N, logits_NV.argmax(1) == targets_BT.flatten(), gradients


@pytest.mark.parametrize("kind", ["gpt2", "llama", "llama tied", "head with bias", "capped logits"])
@pytest.mark.parametrize(("chunk_rows", "vocab_multiple"), [(1, 1), (5, 48), (1000, 64)])
def test_chunks_and_padding_equal_the_plain_loss(kind, chunk_rows, vocab_multiple):
    torch.manual_seed(0)
    model = small(kind).eval()
    ids_BT, targets_BT = torch.randint(64, (2, 8)), torch.randint(64, (2, 8))
    wanted, nats_N, hits_N, gradients = plain(model, ids_BT, targets_BT, 3.0)
    loss = HeadLoss(model, chunk_rows=chunk_rows, vocab_multiple=vocab_multiple)
    value = loss(model(ids_BT).logits, targets_BT)
    torch.testing.assert_close(value, wanted)
    torch.testing.assert_close(loss.nats_BT.flatten(), nats_N)
    assert not loss.nats_BT.requires_grad
    got = torch.autograd.grad(3.0 * value, list(model.parameters()))
    for own, other in zip(got, gradients, strict=True):
        torch.testing.assert_close(own, other)
    with torch.no_grad():
        loss(model(ids_BT).logits, targets_BT)
    assert torch.equal(loss.correct_BT.flatten(), hits_N)
    assert loss.is_taken_out == (kind != "capped logits")
    loss.release()
    torch.testing.assert_close(plain(model, ids_BT, targets_BT, 3.0)[0], wanted)


@given(st.integers(1, 4), st.integers(1, 9), st.integers(1, 40), st.integers(0, 99))
def test_any_shape_equals_the_plain_loss(batch, length, chunk_rows, seed):
    torch.manual_seed(seed)
    model = gpt2(layers=3).eval()
    ids_BT = torch.randint(64, (batch, length))
    wanted, _, _, gradients = plain(model, ids_BT, ids_BT, 1.0)
    value = HeadLoss(model, chunk_rows=chunk_rows)(model(ids_BT).logits, ids_BT)
    torch.testing.assert_close(value, wanted)
    for own, other in zip(
        torch.autograd.grad(value, list(model.parameters())), gradients, strict=True
    ):
        torch.testing.assert_close(own, other)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize(("scale", "vocab_size"), [(1.0, 64), (2.0**16, 64), (2.0**16, 50_257)])
def test_half_precision_is_about_as_close_to_fp32_as_the_plain_loss(dtype, scale, vocab_size):
    torch.manual_seed(0)
    model = gpt2(vocab_size=vocab_size).eval()
    ids_BT = torch.randint(vocab_size, (4, 16))
    _, _, _, exact = plain(model, ids_BT, ids_BT, 1.0)
    with torch.autocast("cpu", dtype):
        wanted, _, _, usual = plain(model, ids_BT, ids_BT, scale)
        value = HeadLoss(model, chunk_rows=7)(model(ids_BT).logits, ids_BT)
    got = torch.autograd.grad(scale * value, list(model.parameters()))
    torch.testing.assert_close(value, wanted, rtol=1e-3, atol=1e-3)

    def error(gradients):
        pairs = zip(gradients, exact, strict=True)
        return sum(((own / scale - other).norm() / other.norm()).item() for own, other in pairs)

    assert error(got) < 1.5 * error(usual)


def test_a_frozen_head_gets_no_gradient():
    model = llama().eval()
    model.get_output_embeddings().weight.requires_grad_(False)
    ids_BT = torch.randint(64, (2, 8))
    HeadLoss(model)(model(ids_BT).logits, ids_BT).backward()
    assert model.get_output_embeddings().weight.grad is None
    assert model.model.norm.weight.grad is not None


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(
    "backend",
    [
        "aot_eager",
        pytest.param("inductor", marks=pytest.mark.slow),
    ],  # needs a C++ compiler, which is slow
)
def test_the_compiled_loss_equals_the_plain_one(dtype, backend, monkeypatch):
    kernel = torch.compile(nats_and_gradients, backend=backend)
    monkeypatch.setattr(loss_module, "compiled", lambda: kernel)
    torch.manual_seed(0)
    model = gpt2().eval()
    ids_BT = torch.randint(64, (2, 8))
    with torch.autocast("cpu", dtype, enabled=dtype != torch.float32):
        wanted, nats_N, _, gradients = plain(model, ids_BT, ids_BT, 1.0)
        loss = HeadLoss(model, chunk_rows=5, vocab_multiple=48, compile=True)
        value = loss(model(ids_BT).logits, ids_BT)
    tolerance = {} if dtype == torch.float32 else {"rtol": 2e-2, "atol": 2e-2}
    torch.testing.assert_close(value, wanted, **tolerance)
    torch.testing.assert_close(loss.nats_BT.flatten(), nats_N, **tolerance)
    got = torch.autograd.grad(value, list(model.parameters()))
    for own, other in zip(got, gradients, strict=True):
        torch.testing.assert_close(own, other, **tolerance)
