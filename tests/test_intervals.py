"""Bootstrap intervals over documents, against a slow twin and against known text."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from gportuguese.intervals import (
    NUM_RESAMPLES,
    DocumentSums,
    caution,
    interval_of,
    interval_of_change,
    shown,
)
from gportuguese.metrics import SumsByDocument
from gportuguese.tokens import BlockLoader


def text(nats, num_bytes):
    return DocumentSums(np.array(nats, float), np.array(num_bytes))


def slow_interval(after, before=None):
    """Lists of numbers and plain loops; the percentile by its definition."""
    read = [
        d
        for d in range(len(after.bytes_D))
        if after.bytes_D[d] and (before is None or before.bytes_D[d])
    ]
    rng = np.random.default_rng(0)
    values = []
    for _ in range(NUM_RESAMPLES):
        drawn = [read[place] for place in rng.integers(len(read), size=len(read))]
        value = 0.0
        for sums, sign in ((after, 1), (before, -1)):
            if sums is not None:
                nats = math.fsum(sums.nats_D[d] for d in drawn)
                value += sign * nats / sum(int(sums.bytes_D[d]) for d in drawn) / math.log(2)
        values.append(value)
    values.sort()
    ends = []
    for share in (0.025, 0.975):
        place = share * (NUM_RESAMPLES - 1)
        low = math.floor(place)
        ends.append(values[low] + (place - low) * (values[low + 1] - values[low]))
    return tuple(ends)


documents = st.lists(
    st.tuples(st.floats(0, 1e4), st.floats(0, 1e4), st.integers(0, 5000)), min_size=2, max_size=9
).filter(lambda rows: sum(row[2] > 0 for row in rows) > 1)


@given(documents)
def test_intervals_equal_the_slow_twin(rows):
    before_D, after_D, bytes_D = zip(*rows, strict=True)
    before, after = text(before_D, bytes_D), text(after_D, bytes_D)
    assert interval_of(after) == pytest.approx(slow_interval(after), abs=1e-9, rel=1e-9)
    assert interval_of_change(before, after) == pytest.approx(
        slow_interval(after, before), abs=1e-9, rel=1e-9
    )


def test_one_document_has_no_interval_and_two_have_the_range_of_both():
    assert interval_of(text([], [])) is None
    assert interval_of(text([70.0], [90])) is None
    assert interval_of(text([70.0, 0.0], [90, 0])) is None  # the second was not read
    bits = [1.0, 2.0]
    nats = [bit * 80 * math.log(2) for bit in bits]
    assert interval_of(text(nats, [80, 80])) == pytest.approx(bits)
    assert interval_of_change(text(nats, [80, 80]), text([1.0, 1.0], [80, 0])) is None


def test_a_change_that_all_documents_share_is_certain():
    """Paired: documents differ by more than a bit, and the change does not."""
    rng = np.random.default_rng(5)
    bytes_D = rng.integers(200, 5000, size=40)
    bits_D = rng.uniform(1, 3, size=40)
    before = text(bits_D * bytes_D * math.log(2), bytes_D)
    after = text((bits_D - 0.1) * bytes_D * math.log(2), bytes_D)
    low, high = interval_of(after)
    assert high - low > 0.2
    assert interval_of_change(before, after) == pytest.approx((-0.1, -0.1), abs=1e-9)


def test_nineteen_of_twenty_intervals_hold_the_true_value():
    """Documents of a known source: their lengths and bits are drawn, and the bits depend on the length."""
    rng = np.random.default_rng(1)
    hits = 0
    for _ in range(200):
        bytes_D = rng.integers(200, 5000, size=80)
        bits_D = 2 + 400 / bytes_D + rng.normal(0, 0.3, size=80)
        low, high = interval_of(text(bits_D * bytes_D * math.log(2), bytes_D))
        hits += low <= 2 + 400 / 2599.5 <= high
    assert 180 <= hits <= 198  # of 200; 95 % would be 190


def test_few_documents_are_said_to_be_too_few():
    few, none = (
        "Intervals of fewer than 10 documents are too narrow.",
        "A text of one document has no",
    )
    assert caution([10, 200]) == ""
    assert caution([10, 9]) == few
    assert caution([1, 200]).startswith(none)
    assert caution([2, 1]).startswith(f"{few} {none}")


def test_shown():
    assert shown(1.23456, None) == "1.2346"
    assert shown(-0.5, (-0.61, -0.4), sign="+") == "-0.5000 [-0.6100, -0.4000]"


@given(
    st.lists(st.integers(1, 9), min_size=1, max_size=12),
    st.integers(1, 7),
    st.integers(1, 3),
    st.integers(1, 5),
    st.integers(0, 9),
)
def test_sums_by_document_equal_the_slow_loop(lengths, block_size, batch_size, num_blocks, seed):
    """Also where blocks are spread and documents are read in part."""
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    rng = np.random.default_rng(seed)
    ids = rng.integers(0, 6, size=offsets[-1])
    if len(ids) <= block_size:
        return
    loader = BlockLoader(ids, block_size, batch_size, num_blocks=num_blocks)
    bytes_V = torch.tensor([0, 1, 2, 3, 4, 5], dtype=torch.int32)  # id 0 is end of text
    sums = SumsByDocument(bytes_V, loader, offsets)
    nats = rng.random(len(ids)).astype(np.float32)  # of each token of the file
    for number, (_, targets_BT) in enumerate(loader):
        blocks = loader.block_indices(0)[number * batch_size : (number + 1) * batch_size]
        places = [[b * block_size + 1 + t for t in range(block_size)] for b in blocks]
        sums.add(torch.from_numpy(nats[places]), targets_BT > 3, targets_BT)
    slow_nats, slow_bytes = [0.0] * len(lengths), [0] * len(lengths)
    for block in loader.block_indices(0):
        for place in range(block * block_size + 1, (block + 1) * block_size + 1):
            document = next(d for d in range(len(lengths)) if place < offsets[d + 1])
            if ids[place]:
                slow_nats[document] += float(nats[place])
                slow_bytes[document] += int(ids[place])
    found = sums.by_document()
    assert found.nats_D.tolist() == pytest.approx(slow_nats)
    assert found.bytes_D.tolist() == slow_bytes
    if sum(slow_bytes):
        assert found.bits_per_byte == pytest.approx(sums.measures().bits_per_byte)
        assert sums.evaluation().documents == sum(map(bool, slow_bytes))
