"""The mix of several sources: each has its share of the tokens, and no document is lost."""

import logging
from collections import Counter
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gportuguese import corpus, load_config
from gportuguese.artifacts import Artifact
from gportuguese.config import Config, ConfigError, CorpusConfig, SourceConfig, TokensConfig
from gportuguese.mixing import draw_documents, write_mix
from gportuguese.packing import pack
from gportuguese.plan.schedule import PlanError, make_schedule
from gportuguese.tokens import BlockLoader, documents_of

LENGTHS = st.lists(st.integers(1, 50), min_size=1, max_size=30)


def slow_draw(lengths, num_tokens, seed):
    """How often each document is read, counted one by one."""
    counts, left = Counter(), num_tokens
    while left >= sum(lengths):
        counts.update(range(len(lengths)))
        left -= sum(lengths)
    for place in np.random.default_rng(seed).permutation(len(lengths)):
        if abs(left - lengths[place]) >= abs(left):
            break
        counts[int(place)] += 1
        left -= lengths[place]
    return counts


@given(LENGTHS, st.floats(0, 5000), st.integers(0, 9))
def test_a_draw_equals_its_slow_twin_and_ends_within_half_a_document(lengths, num_tokens, seed):
    draw = draw_documents(np.array(lengths), num_tokens, [seed])
    places = draw.places(len(lengths)).tolist()
    assert Counter(places) == slow_draw(lengths, num_tokens, [seed])
    assert abs(sum(lengths[place] for place in places) - num_tokens) <= max(lengths) / 2


def test_the_seed_changes_the_draw():
    lengths = np.full(100, 10)
    draws = [draw_documents(lengths, 500, [seed]).more.tolist() for seed in (0, 0, 1)]
    assert draws[0] == draws[1] != draws[2]
    assert len(draws[0]) == 50


def config_of(weights, **tokens):
    sources = tuple(
        SourceConfig(documents=f"{name}.jsonl", name=name, weight=weight, language=language)
        for name, (weight, language) in weights.items()
    )
    return Config(name="x", corpus=CorpusConfig(sources=sources), tokens=TokensConfig(**tokens))


def mixed(folder, config, lengths):
    """The mix of documents of these lengths by source: parts, and the ids, offsets and rows written.

    Every document holds its number as often as it has tokens. Documents of the sources alternate in
    the corpus.
    """
    folder.mkdir(exist_ok=True)
    longest = max(map(len, lengths.values()))
    documents = [
        (name, each[place])
        for place in range(longest)
        for name, each in lengths.items()
        if place < len(each)
    ]
    table = pa.table({"source": [name for name, _ in documents]})
    pq.write_table(table, folder / "train.parquet")

    def encode(source, stem):
        encoded.append(source)
        rows = [np.full(n, row, "<u2") for row, (name, n) in enumerate(documents) if name == source]
        sizes = [len(row) for row in rows]
        np.cumsum([0, *sizes]).astype("<i8").tofile(folder / f"{stem}.offsets.bin")
        np.concatenate([np.empty(0, "<u2"), *rows]).tofile(folder / f"{stem}.bin")
        return sum(sizes)

    encoded = []
    sources = [{"name": s.name, "language": s.language} for s in config.corpus.sources]
    artifact = Artifact(folder, {"facts": {"language": "pt", "sources": sources}})
    target = corpus.target_sources(artifact)
    found_parts = write_mix(config, artifact, target, folder, np.dtype("<u2"), encode)
    parts = {part["name"]: part for part in found_parts}
    kinds = {"": "<u2", ".offsets": "<i8", ".rows": "<i8"}
    files = (np.fromfile(folder / f"train{kind}.bin", dtype) for kind, dtype in kinds.items())
    found = SimpleNamespace(**dict(zip(("ids", "offsets", "rows"), files, strict=True)))
    assert sorted(encoded) == sorted(s.name for s in config.corpus.sources if s.weight != 0)
    assert sorted(path.name for path in folder.glob("*.bin")) == [
        "train.bin", "train.offsets.bin", "train.rows.bin"
    ]  # fmt: skip
    return parts, found, documents


@given(st.lists(st.tuples(LENGTHS, st.integers(1, 20)), min_size=2, max_size=4), st.integers(0, 9))
def test_shares_are_the_weights_to_within_one_document(tmp_path_factory, drawn, seed):
    total = sum(weight for _, weight in drawn)
    weights = {f"s{n}": (weight / total, None) for n, (_, weight) in enumerate(drawn)}
    lengths = {f"s{n}": each for n, (each, _) in enumerate(drawn)}
    config = config_of(weights, seed=seed)
    parts, found, documents = mixed(tmp_path_factory.mktemp("mix"), config, lengths)
    longest = max(map(max, lengths.values()))
    pass_tokens = sum(lengths["s0"]) / weights["s0"][0]
    for name, part in parts.items():
        assert abs(part["tokens"] - weights[name][0] * pass_tokens) <= longest / 2
        if len(drawn) == 2:
            assert abs(part["share"] - weights[name][0]) * len(found.ids) <= longest
        assert part["repeats"] == pytest.approx(part["tokens"] / sum(lengths[name]))
    assert parts["s0"]["repeats"] == 1
    # what the files hold is what the counts say
    pieces = np.split(found.ids, found.offsets[1:-1])
    assert len(pieces) == len(found.rows) == sum(part["documents"] for part in parts.values())
    for piece, row in zip(pieces, found.rows, strict=True):
        assert (piece == row).all()
        assert len(piece) == documents[row][1]
    for name, part in parts.items():
        times = Counter(row for row in found.rows.tolist() if documents[row][0] == name)
        assert sum(times.values()) == part["documents"]
        whole = int(part["repeats"])
        rows = [row for row, (source, _) in enumerate(documents) if source == name]
        assert {times[row] for row in rows} <= {whole, whole + 1, max(whole - 1, 0)}
        assert max(times[r] for r in rows) - min(times[r] for r in rows) <= 1


def test_without_weights_every_document_is_read_once(tmp_path):
    lengths = {"a": [3, 5], "b": [7], "c": [2, 2, 2]}
    config = config_of(dict.fromkeys(lengths, (None, None)))
    parts, found, documents = mixed(tmp_path, config, lengths)
    assert sorted(found.rows.tolist()) == list(range(len(documents)))
    assert {name: part["tokens"] for name, part in parts.items()} == {"a": 8, "b": 7, "c": 6}
    assert {part["repeats"] for part in parts.values()} == {1}


def test_sources_in_the_target_language_come_first(tmp_path):
    lengths = {"wiki": [10] * 5, "english": [10] * 5, "news": [10] * 5}
    weights = {"wiki": (0.5, "pt-BR"), "english": (0.1, "en"), "news": (0.4, None)}
    parts, _, _ = mixed(tmp_path, config_of(weights), lengths)
    assert list(parts) == ["wiki", "news", "english"]


def test_documents_of_blocks_are_places_in_the_corpus(tmp_path):
    lengths = {"a": [10] * 4, "b": [10]}
    config = config_of({"a": (0.5, None), "b": (0.5, None)})
    _, found, documents = mixed(tmp_path, config, lengths)
    place = [name for name, _ in documents].index("b")
    assert found.rows.tolist()[4:] == [place] * 4
    assert documents_of(tmp_path, "train", np.arange(40, 80)) == [place]


def test_a_source_of_weight_0_is_not_read(tmp_path):
    lengths = {"a": [10] * 4, "b": [10]}
    parts, found, _ = mixed(tmp_path, config_of({"a": (1.0, None), "b": (0.0, "en")}), lengths)
    assert parts["b"] == {
        "name": "b", "weight": 0, "documents": 0, "tokens": 0, "repeats": 0, "share": 0
    }  # fmt: skip
    assert len(found.ids) == 40


def test_a_source_that_repeats_too_often_is_named(tmp_path, caplog):
    caplog.set_level(logging.WARNING, "gportuguese")
    lengths = {"a": [10] * 50, "b": [10] * 10}
    weights = {"a": (0.5, None), "b": (0.5, "en")}
    mixed(tmp_path / "1", config_of(weights), lengths)
    assert caplog.messages == [
        "b is read 5.0 times in a pass over the training text (tokens.max_repeats=4); bring more of "
        "its text, or lower its weight"
    ]
    caplog.clear()
    mixed(tmp_path / "2", config_of(weights, max_repeats=5), lengths)
    assert caplog.messages == []


@given(
    st.lists(st.integers(0, 3000), min_size=2, max_size=4),
    st.integers(1, 300),
    st.integers(0, 9),
    st.integers(0, 3),
)
def test_each_epoch_has_each_source_s_share_of_blocks(parts, num_blocks, seed, epoch):
    size = 10
    if sum(parts) <= size:
        return
    loader = BlockLoader(
        np.zeros(sum(parts), "<u2"), size, 4, seed=seed, num_blocks=num_blocks,
        part_tokens=tuple(parts),
    )  # fmt: skip
    total = loader.total_blocks
    part_of_block = np.searchsorted(np.cumsum(parts), np.arange(total) * size, side="right")
    order = np.concatenate([loader.block_indices(e) for e in range(epoch + 1)])
    for first in range(0, len(order) - total + 1, total):
        assert sorted(order[first : first + total]) == list(range(total))
    blocks = part_of_block[loader.block_indices(epoch)]
    for part in range(len(parts)):
        wanted = len(blocks) * (part_of_block == part).sum() / total
        assert abs((blocks == part).sum() - wanted) <= 2 * len(parts)


def test_parts_change_the_order_of_blocks_only_if_there_are_several():
    ids = np.zeros(1000, "<u2")
    orders = [
        BlockLoader(ids, 10, 4, seed=0, part_tokens=parts).block_indices(0).tolist()
        for parts in ((), (1000,), (500, 500), (500, 500))
    ]
    assert orders[0] == orders[1] != orders[2] == orders[3]


def test_a_plan_of_a_mix_reads_the_first_source_once():
    mix = "corpus.sources=[{documents: dump, weight: 0.8}, {documents: en.jsonl, weight: 0.2}]"
    alone = make_schedule(load_config("demo"), None, None)
    mixed = make_schedule(load_config("demo", (mix,)), None, None)
    assert mixed.tokens == pytest.approx(alone.tokens / 0.8, rel=0.01)
    assert mixed.valid_tokens == pytest.approx(alone.valid_tokens, abs=256)
    joined = load_config("demo", ("corpus.sources=[{documents: dump}, {documents: en.jsonl}]",))
    with pytest.raises(PlanError, match="number of training tokens is unknown"):
        make_schedule(joined, None, None)


def test_the_first_source_needs_a_weight_above_0():
    mix = "corpus.sources=[{documents: dump, weight: 0}, {documents: en.jsonl, weight: 1}]"
    with pytest.raises(ConfigError, match="first source is the text to learn, so its weight must"):
        load_config("demo", (mix,))


def test_packed_blocks_have_each_source_s_share_too():
    lengths = np.random.default_rng(0).integers(2, 40, 400)
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    parts = (int(offsets[300]), int(offsets[-1] - offsets[300]))
    loader = BlockLoader(
        np.zeros(offsets[-1], "<u2"), 64, 4, seed=0, num_blocks=20, part_tokens=parts,
        packing=pack(offsets, 64),
    )  # fmt: skip
    firsts = loader.positions(np.arange(loader.total_blocks))[:, 1]
    share = (firsts < parts[0]).mean()
    for epoch in range(loader.total_blocks // 20):
        blocks = loader.block_indices(epoch)
        assert abs((firsts[blocks] < parts[0]).sum() - 20 * share) <= 2
    whole = np.concatenate([loader.block_indices(epoch) for epoch in range(20)])
    assert sorted(whole[: loader.total_blocks]) == list(range(loader.total_blocks))
