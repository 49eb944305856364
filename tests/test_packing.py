"""Blocks of whole documents: equal to a slow twin, and every id is read at most once."""

import json
import time

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from gportuguese import Pipeline, init_world, load_config, training
from gportuguese.packing import pack
from gportuguese.tokens import BlockLoader, TokensError, documents_of, load_ids, load_offsets
from tests.invariants.test_equal_runs import elsewhere

lengths_of_documents = st.lists(st.integers(1, 30), min_size=1, max_size=25)


def offsets_of(lengths):
    return np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)


def slow_pack(lengths, size):
    """The blocks as lists of ids, by linear search: whole blocks of long documents first."""
    chunks, rest, first = [], [], 0
    for number, length in enumerate(lengths):
        while length >= size:
            chunks.append([(first, size)])
            first, length = first + size, length - size
        if length:
            rest.append((-length, number, first))
        first += length
    packed, last_change = [], []
    for turn, (minus_length, _, first) in enumerate(sorted(rest)):
        length = -minus_length
        rooms = [size - sum(piece[1] for piece in block) for block in packed]
        fitting = [n for n, room in enumerate(rooms) if room >= length]
        if fitting:
            best = min(fitting, key=lambda n: (rooms[n], -last_change[n]))
        else:
            best = len(packed)
            packed.append([])
            last_change.append(0)
        packed[best].append((first, length))
        last_change[best] = turn
    starts = {sum(lengths[:n]) for n in range(len(lengths))}
    for block in packed:
        block.sort(key=lambda piece: piece[0] not in starts)  # documents before tails
    blocks = sorted(chunks + packed, key=lambda block: -sum(piece[1] for piece in block))
    num_blocks = (sum(lengths) - 1) // size
    kept, dissolved = blocks[:num_blocks], blocks[num_blocks:]
    filler = [id for block in dissolved for f, n in block for id in range(f, f + n)]
    ids = [[id for f, n in block for id in range(f, f + n)] for block in kept]
    for block in ids:
        while len(block) < size:
            block.append(filler.pop(0))
    return ids


@given(lengths_of_documents, st.integers(2, 12))
@example([5, 5, 5], 5)
@example([1], 2)
@example([30], 2)
def test_blocks_are_those_of_the_slow_twin(lengths, size):
    packing = pack(offsets_of(lengths), size)
    positions = packing.positions(np.arange(len(packing)))
    assert positions[:, 1:].tolist() == slow_pack(lengths, size)
    assert (positions[:, 0] == positions[:, 1] - 1).all()


@given(lengths_of_documents, st.integers(2, 12))
def test_every_id_is_predicted_at_most_once_and_the_facts_are_true(lengths, size):
    offsets = offsets_of(lengths)
    packing = pack(offsets, size)
    targets = packing.positions(np.arange(len(packing)))[:, 1:]
    found = targets.ravel().tolist()
    assert len(set(found)) == len(found) == (sum(lengths) - 1) // size * size
    assert all(0 <= place < sum(lengths) for place in found)
    facts = packing.facts
    assert facts["unread_tokens"] == sum(lengths) - len(found) <= size
    assert facts["unread_share"] == facts["unread_tokens"] / sum(lengths)
    assert facts["blocks_at_document_start"] == sum(row[0] in offsets for row in targets)
    whole = 0
    for first, length in zip(offsets, lengths, strict=False):
        rows = [row for row in targets.tolist() if first in row]
        wanted = list(range(first, first + length))
        if length <= size and rows:
            start = rows[0].index(first)
            whole += rows[0][start : start + length] == wanted
    assert facts["documents_that_fit"] == sum(length <= size for length in lengths)
    assert facts["documents_cut"] == facts["documents_that_fit"] - whole


def test_a_loader_reads_packed_blocks_in_the_order_of_its_seed_and_resumes():
    offsets = offsets_of([7, 3, 25, 4, 6, 10, 2, 9, 11, 3] * 4)
    ids = np.arange(offsets[-1], dtype="<u2")
    packing = pack(offsets, 10)
    settings = {"seed": 3, "packing": packing}
    whole = [targets.tolist() for _, targets in BlockLoader(ids, 10, 2, **settings)]
    rows = [row for batch in whole for row in batch]
    assert sorted(map(tuple, rows)) == sorted(map(tuple, slow_pack([*np.diff(offsets)], 10)))
    ranks = [BlockLoader(ids, 10, 2, **settings, rank=rank, num_ranks=3) for rank in range(3)]
    shares = [[targets.tolist() for _, targets in each] for each in ranks]
    assert [shares[n % 3][n // 3] for n in range(len(whole))] == whole
    late = BlockLoader(ids, 10, 2, **settings)
    late.first_batch = 5
    assert [targets.tolist() for _, targets in late] == whole[5:]
    # the first document is preceded by the end-of-text token of the last one
    block = next(n for n in range(len(packing)) if packing.positions(np.array([n]))[0, 1] == 0)
    assert ids[packing.positions(np.array([block]))][0, 0] == ids[-1]
    for number, documents in enumerate(BlockLoader(ids, 10, 2, **settings).documents(offsets)):
        for row, targets in zip(documents, whole[number], strict=True):
            assert row.tolist() == [int((offsets <= place).sum()) - 1 for place in targets]


def test_the_log_says_if_no_document_fits_a_block():
    assert "cut" not in (words := pack(offsets_of([25, 31]), 10).in_words())
    assert ", all documents are longer than a block, 6 tokens" in words
    assert " 1 of 3 documents that fit are cut," in pack(offsets_of([5, 10, 6]), 10).in_words()


def test_too_little_text_is_the_usual_error():
    with pytest.raises(TokensError, match="5 tokens do not fill one batch of 1 blocks of 10"):
        BlockLoader(np.arange(5), 10, 2, packing=pack(offsets_of([3, 2]), 10))


def test_a_million_documents_take_seconds():
    lengths = np.random.default_rng(0).geometric(1 / 700, size=1_000_000)
    start = time.process_time()
    packing = pack(offsets_of(lengths), 1024)
    assert time.process_time() - start < 20  # 3 s when the machine is idle
    facts = packing.facts
    assert facts["unread_tokens"] <= 1024
    assert facts["documents_cut"] < 0.01 * facts["documents_that_fit"]


@pytest.mark.usefixtures("built_stages")
def test_training_packs_and_evaluation_does_not(tiny_overrides, tmp_path, caplog):
    plain = load_config(None, tiny_overrides)
    config = load_config(None, (*tiny_overrides, "tokens.boundaries=start"))
    pipeline = Pipeline(config)
    for stage in ("tokens", "align"):
        assert pipeline.folder(stage) == Pipeline(plain).folder(stage)
    assert pipeline.folder("train") != Pipeline(plain).folder("train")
    with caplog.at_level("INFO"):
        run = pipeline.build("train", init_world(config.runtime))
    facts = run.facts["packing"]
    offsets = load_offsets(pipeline.open("tokens").folder, "train")
    assert facts == json.loads(json.dumps(pack(offsets, 32).facts))
    assert facts["blocks"] * 32 + facts["unread_tokens"] == offsets[-1]
    assert "tokens.boundaries=start: " in caplog.text
    before = run.folder / "epochs.csv"
    other = Pipeline(plain).build("train", init_world(plain.runtime))
    # before training: the same model on the same validation blocks
    first = [path.read_text().splitlines()[1] for path in (before, other.folder / "epochs.csv")]
    assert first[0] == first[1]
    assert "packing" not in other.facts
    again = load_config(
        None, (*elsewhere(tiny_overrides, tmp_path / "b"), "tokens.boundaries=start")
    )
    twin = Pipeline(again).build("train", init_world(again.runtime))
    for name in ("epochs.csv", "model/model.safetensors"):
        assert (twin.folder / name).read_bytes() == (run.folder / name).read_bytes()


@pytest.mark.usefixtures("built_stages")
def test_a_stopped_packed_run_resumes_to_the_same_bytes(tiny_overrides, tmp_path, monkeypatch):
    packed = (*tiny_overrides, "tokens.boundaries=start")
    straight, stopped = (elsewhere(packed, tmp_path / name) for name in ("straight", "stopped"))

    def build(overrides):
        config = load_config(None, overrides)
        return Pipeline(config).build("train", init_world(config.runtime)).folder

    whole = build(straight)
    real = training.fit_phase

    def stop_in_second(learn, phase, section, cbs):
        if phase.name == "all":
            raise KeyboardInterrupt
        real(learn, phase, section, cbs)

    monkeypatch.setattr(training, "fit_phase", stop_in_second)
    with pytest.raises(KeyboardInterrupt):
        build(stopped)
    monkeypatch.setattr(training, "fit_phase", real)
    resumed = build(stopped)
    for name in ("epochs.csv", "model/model.safetensors"):
        assert (resumed / name).read_bytes() == (whole / name).read_bytes()


def test_documents_of_packed_blocks(tmp_path):
    lengths = [7, 3, 25, 4, 6, 10]
    offsets_of(lengths).astype("<i8").tofile(tmp_path / "train.offsets.bin")
    np.arange(sum(lengths), dtype="<u2").tofile(tmp_path / "train.bin")
    packing = pack(load_offsets(tmp_path, "train"), 10)
    loader = BlockLoader(load_ids(tmp_path, "train", "<u2"), 10, 1, packing=packing)
    for block in range(len(packing)):
        positions = loader.positions(np.array([block]))
        places = [place % sum(lengths) for place in positions.ravel().tolist()]
        wanted = sorted({int((offsets_of(lengths) <= place).sum()) - 1 for place in places})
        assert documents_of(tmp_path, "train", positions) == wanted
