import json
import time
import tracemalloc
from itertools import pairwise
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gportuguese import Pipeline, corpus, init_world, load_config, tokenizer
from gportuguese.config import asset_path
from gportuguese.tokens import (
    BlockLoader,
    TokensError,
    documents_of,
    joined_ids,
    load_ids,
)
from tests.conftest import sentence


def loader(num_tokens=1001, **options):
    ids = np.arange(num_tokens, dtype="<u2")
    return BlockLoader(ids, **{"block_size": 10, "batch_size": 4, **options})


def test_targets_are_inputs_shifted_by_one_and_blocks_do_not_overlap():
    batches = list(loader())
    inputs = np.concatenate([inputs_BT.numpy() for inputs_BT, _ in batches])
    targets = np.concatenate([targets_BT.numpy() for _, targets_BT in batches])
    assert inputs.flatten().tolist() == list(range(1000))
    assert targets.flatten().tolist() == list(range(1, 1001))


@given(st.integers(1, 300), st.integers(0, 2**32), st.integers(1, 5))
def test_epochs_continue_an_endless_sequence_of_shuffled_passes(num_blocks, seed, epochs):
    each = loader(seed=seed, num_blocks=num_blocks)
    order = np.concatenate([each.block_indices(epoch) for epoch in range(epochs)])
    total = each.total_blocks
    for first in range(0, len(order) - total + 1, total):
        assert sorted(order[first : first + total]) == list(range(total))
    assert len(order) == epochs * num_blocks
    again = loader(seed=seed, num_blocks=num_blocks)
    assert (again.block_indices(epochs - 1) == order[-num_blocks:]).all()


def test_orders_differ_by_epoch_and_seed():
    one, two = loader(seed=1), loader(seed=2)
    assert (one.block_indices(0) != one.block_indices(1)).any()
    assert (one.block_indices(0) != two.block_indices(0)).any()


def test_without_a_seed_blocks_are_spread_over_the_file():
    indices = loader(num_blocks=5).block_indices(0)
    assert indices.tolist() == [0, 24, 49, 74, 99]


def test_too_few_tokens_for_one_step_are_an_error():
    with pytest.raises(TokensError, match="do not fill one batch of 8 blocks of 10"):
        loader(num_tokens=50, seed=0, multiple=8)


def test_documents_need_an_end_of_text_token_between_them():
    with pytest.raises(TokensError, match="has no end-of-text token"):
        joined_ids(SimpleNamespace(eos_token_id=None), ["a"])


def test_joined_documents_do_not_depend_on_portions_and_take_little_memory(monkeypatch):
    bpe = tokenizer.load(asset_path("english-nano"))
    texts = [sentence(n, 200) for n in range(1000)]
    whole, offsets = joined_ids(bpe, texts)
    monkeypatch.setattr("gportuguese.tokenizer._PORTION_CHARS", 5000)
    tracemalloc.start()
    ids, same_offsets = joined_ids(bpe, iter(texts))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert ids.tolist() == whole.tolist()
    assert same_offsets.tolist() == offsets.tolist()
    assert [bpe.decode(ids[a : b - 1]) for a, b in pairwise(offsets)] == texts
    assert peak < 12 * len(ids) + 2**20  # a list of Python integers takes 40 bytes a token


def test_no_documents_have_no_tokens():
    ids, offsets = joined_ids(tokenizer.load(asset_path("english-nano")), [])
    assert (ids.tolist(), offsets.tolist()) == ([], [0])


def test_the_name_of_a_special_token_in_a_document_is_text(tiny_overrides, tmp_path):
    texts = [f"{n} {sentence(n, 60)} <|endoftext|> {sentence(n + 1, 60)}" for n in range(60)]
    lines = [json.dumps({"id": n, "text": text}) for n, text in enumerate(texts)]
    (tmp_path / "own.jsonl").write_text("\n".join(lines), encoding="utf-8")
    own = ("dump.source=null", f"corpus.documents={tmp_path / 'own.jsonl'}")
    config = load_config(None, (*tiny_overrides, *own))
    tokens = Pipeline(config).build("tokens", init_world(config.runtime))
    for split in corpus.SPLITS:
        ids = load_ids(tokens.folder, split, tokens.facts["dtype"])
        offsets = np.fromfile(tokens.folder / f"{split}.offsets.bin", "<i8")
        assert (ids == tokens.facts["end_of_text"]).sum() == len(offsets) - 1
    documents = Pipeline(config).open("corpus").facts["documents"]
    assert sum(documents.values()) == len(texts)  # no document is dropped as a duplicate
    assert sum(tokens.facts["bytes"].values()) == sum(len(text.encode()) for text in texts)


@given(st.lists(st.text(max_size=8)), st.integers(1, 12))
def test_portions_keep_all_texts_in_order_and_fit_the_limit(texts, limit):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("gportuguese.tokenizer._PORTION_CHARS", limit)
        portions = list(tokenizer.portions(texts))
    assert [text for portion in portions for text in portion] == texts
    for portion in portions:
        assert len(portion) == 1 or sum(map(len, portion)) <= limit


def test_file_holds_every_document_and_end_of_text_after_each(tiny_overrides):
    config = load_config(None, tiny_overrides)
    pipeline = Pipeline(config)
    tokens = pipeline.build("tokens", init_world(config.runtime))
    bpe = tokenizer.load(pipeline.open("tokenizer").folder)
    for split in corpus.SPLITS:
        ids = load_ids(tokens.folder, split, tokens.facts["dtype"])
        offsets = np.fromfile(tokens.folder / f"{split}.offsets.bin", "<i8")
        texts = [text for batch in corpus.load(pipeline.open("corpus"), split) for text in batch]
        assert len(offsets) == len(texts) + 1
        assert offsets[-1] == len(ids) == tokens.facts["tokens"][split]
        for text, first, last in zip(texts, offsets[:-1], offsets[1:], strict=True):
            assert ids[last - 1] == bpe.eos_token_id
            assert bpe.decode(ids[first : last - 1], clean_up_tokenization_spaces=False) == text
        token_bytes = np.load(tokens.folder / "token_bytes.npy")
        assert token_bytes[ids].sum() == sum(len(text.encode()) for text in texts)
        assert tokens.facts["bytes"][split] == token_bytes[ids].sum()


def test_two_billion_tokens_are_ready_in_a_second(tmp_path):
    path = tmp_path / "train.bin"
    with path.open("wb") as file:
        file.truncate(2 * 2_000_000_000)  # sparse: takes no disk space
    start = time.process_time()  # other processes may hold up this one
    ids = load_ids(tmp_path, "train", "<u2")
    each = BlockLoader(ids, 1024, 8, seed=0, multiple=64)
    first = next(iter(each))
    assert time.process_time() - start < 1
    assert first[0].shape == (8, 1024)
    assert each.epoch_blocks == 2_000_000_000 // 1024 // 64 * 64


def test_a_loader_starts_at_its_first_batch():
    each = loader(seed=3)
    whole = [inputs_BT.tolist() for inputs_BT, _ in each]
    each.first_batch = 7
    assert [inputs_BT.tolist() for inputs_BT, _ in each] == whole[7:]
    each.first_batch = len(each)
    assert list(each) == []


def test_documents_of_blocks(tmp_path):
    np.array([0, 5, 12, 30, 41], "<i8").tofile(tmp_path / "train.offsets.bin")

    def slow(block):
        tokens = range(10 * block, 10 * block + 11)  # one more, for the last target
        bounds = [0, 5, 12, 30, 41]
        return {d for d in range(4) for t in tokens if bounds[d] <= t < bounds[d + 1]}

    for blocks in ([0], [1], [2], [3], [0, 3], [1, 2]):  # id 40 is the last one
        wanted = sorted(set().union(*map(slow, blocks)))
        positions = np.array(blocks)[:, None] * 10 + np.arange(11)
        assert documents_of(tmp_path, "train", positions) == wanted
