import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from gportuguese import tokenizer
from gportuguese.align import align_embeddings
from gportuguese.align.copying import mean_rows, shared_rows
from tests.test_model import gpt2, llama


def byte_tokenizer(words):
    """The 256 bytes, the given words and end of text."""
    texts = [f"{word} " * 50 for word in words]
    vocab, merges = tokenizer.train(iter(texts), 262, 2)
    return tokenizer.make_tokenizer(vocab, merges)


@given(st.lists(st.binary(max_size=3), unique=True), st.lists(st.binary(max_size=3), unique=True))
def test_shared_rows_equal_the_slow_search(source, target):
    ids = shared_rows(source, target).tolist()
    assert ids == [source.index(token) if token in source else -1 for token in target]


def test_mean_rows_worked_example():
    source_VD = torch.tensor([[1.0, 1.0], [3.0, 5.0]])
    rows = mean_rows(source_VD, torch.tensor([1, -1]))
    assert rows.tolist() == [[3.0, 5.0], [2.0, 3.0]]


@pytest.mark.parametrize("kind", ["gpt2", "llama", "llama tied"])
@pytest.mark.parametrize("padding", [0, 10])
def test_rows_are_copied_by_bytes_and_the_rest_are_the_mean(kind, padding):
    torch.manual_seed(0)
    source, target = byte_tokenizer(["casa", "the"]), byte_tokenizer(["mar", "casa"])
    model = gpt2() if kind == "gpt2" else llama(tied=kind == "llama tied")
    model.resize_token_embeddings(len(source) + padding)
    old = model.get_input_embeddings().weight.detach().clone()
    old_head = model.get_output_embeddings().weight.detach().clone()
    source_ids = align_embeddings(model, source, target)
    new, new_head = model.get_input_embeddings().weight, model.get_output_embeddings().weight
    assert new.shape[0] == len(target) == model.config.vocab_size
    by_bytes = {token: id for id, token in enumerate(tokenizer.bytes_of_tokens(source))}
    mean, mean_head = old[: len(source)].mean(0), old_head[: len(source)].mean(0)
    for id, token in enumerate(tokenizer.bytes_of_tokens(target)):
        if token in by_bytes:
            assert source_ids[id] == by_bytes[token]
            torch.testing.assert_close(new[id], old[by_bytes[token]], rtol=0, atol=0)
            torch.testing.assert_close(new_head[id], old_head[by_bytes[token]], rtol=0, atol=0)
        else:
            assert source_ids[id] == -1
            torch.testing.assert_close(new[id], mean)
            torch.testing.assert_close(new_head[id], mean_head)
    assert (new is new_head) == (kind != "llama")
    assert 256 < int((source_ids >= 0).sum()) < len(target)
