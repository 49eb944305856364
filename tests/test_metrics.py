import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn.functional import cross_entropy

from gportuguese.metrics import TokenSums, bits_per_byte, perplexity


@given(st.integers(1, 5), st.integers(1, 7), st.integers(2, 11), st.integers(0, 99))
def test_sums_equal_the_slow_loop(batch, length, vocabulary, seed):
    torch.manual_seed(seed)
    logits_BTV = torch.randn(batch, length, vocabulary)
    targets_BT = torch.randint(0, vocabulary, (batch, length))
    bytes_V = torch.arange(vocabulary)  # id 0 is a special token
    sums = TokenSums(bytes_V)
    nats_N = cross_entropy(logits_BTV.flatten(0, 1), targets_BT.flatten(), reduction="none")
    sums.add(nats_N.view_as(targets_BT), logits_BTV.argmax(-1) == targets_BT, targets_BT)
    nats = text_nats = correct = num_bytes = 0.0
    for logits_V, target in zip(logits_BTV.flatten(0, 1), targets_BT.flatten(), strict=True):
        own = -torch.log_softmax(logits_V.double(), 0)[target].item()
        nats += own
        text_nats += own if target > 0 else 0.0
        correct += float(logits_V.argmax() == target)
        num_bytes += target.item()
    if not num_bytes:
        return
    measures = sums.measures()
    assert measures.loss == pytest.approx(nats / targets_BT.numel(), rel=1e-5)
    assert measures.accuracy == pytest.approx(correct / targets_BT.numel())
    assert measures.perplexity == pytest.approx(math.exp(nats / targets_BT.numel()), rel=1e-4)
    assert measures.bits_per_byte == pytest.approx(text_nats / math.log(2) / num_bytes, rel=1e-5)


def test_worked_examples():
    assert bits_per_byte(8 * math.log(2), 8) == 1.0
    assert perplexity(3.167864) == pytest.approx(
        23.756687, rel=1e-4
    )  # last row of the published table
    assert perplexity(1e4) == math.inf
