"""Sources of a corpus: the same documents from every format, resumed anywhere, mixed, and refused."""

import bz2
import csv
import gzip
import io
import json
import random
import shutil
import subprocess
import sys

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from huggingface_hub.utils import validate_repo_id
from hypothesis import given
from hypothesis import strategies as st

from gportuguese import Pipeline, load_config
from gportuguese.config import ConfigError, CorpusConfig, SourceConfig, is_hub_id, sources_of
from gportuguese.corpus import CorpusError, documents, load, splits, web
from gportuguese.corpus.documents import files_of, read_source
from gportuguese.corpus.exclusion import REASON
from gportuguese.corpus.exclusion_files import write_excluded
from gportuguese.corpus.rows import Mark, read_rows
from gportuguese.corpus.shards import read_documents
from tests.conftest import WORDS, sentence
from tests.test_corpus import build

ROWS = [
    {"id": f"n{number}", "title": f'Título "{number}", ação', "text": sentence(number, 40 + number)}
    for number in range(60)
]
ROWS[3]["text"] += '\nSegunda linha, com "aspas" e vírgulas.\n\nTerceira\tlinha.'
EXPECTED = [(row["id"], row["title"], row["text"]) for row in ROWS]


def jsonl(rows=ROWS):
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def csv_of(rows=ROWS, separator=","):
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), delimiter=separator)
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue().encode()


def parquet(rows=ROWS, group=7):
    sink = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows), sink, row_group_size=group)
    return sink.getvalue()


def zst(content):
    return pa.Codec("zstd").compress(content).to_pybytes()


FILES = {
    "d.jsonl": jsonl(),
    "d.json": json.dumps(ROWS).encode(),
    "pretty.json": json.dumps(ROWS, indent=2, ensure_ascii=False).encode(),
    "lines.json": b"\xef\xbb\xbf" + jsonl(),
    "d.csv": csv_of(),
    "bom.csv": b"\xef\xbb\xbf" + csv_of(),
    "semicolons.csv": csv_of(separator=";"),
    "tabs.csv": b"\n" + csv_of(separator="\t"),
    "d.parquet": parquet(),
    "d.jsonl.gz": gzip.compress(jsonl()),
    "d.jsonl.bz2": bz2.compress(jsonl()),
    "d.jsonl.zst": zst(jsonl()),
    "d.json.zst": zst(json.dumps(ROWS).encode()),
    "d.csv.gz": gzip.compress(csv_of()),
    "d.csv.bz2": bz2.compress(csv_of()),
    "D.CSV.ZST": zst(csv_of()),
}


def section_of(*sources, **settings):
    return CorpusConfig(sources=sources, **{"min_chars": 20, **settings})


def reading_of(folder, source, **settings):
    """What `read_source` makes of a source."""
    section = section_of(source, **settings)
    folder.mkdir(exist_ok=True)
    return read_source(section, sources_of(section)[0], folder, "corpus")


def rows_of(reading):
    return [
        (row["id"], row["title"], row["text"])
        for path in reading.paths
        for row in read_documents(path)
    ]


@pytest.fixture
def read(tmp_path):
    """A function that returns the documents of a source."""

    def read(documents, unit="file", **settings):
        source = SourceConfig(documents=str(documents), **settings)
        return rows_of(reading_of(tmp_path / "shards", source, txt_document=unit))

    return read


@pytest.mark.parametrize("name", FILES)
def test_every_format_gives_the_same_documents(tmp_path, read, name):
    (tmp_path / name).write_bytes(FILES[name])
    assert read(tmp_path / name) == EXPECTED


def test_a_folder_and_a_pattern_are_read_in_order_of_path(tmp_path, read):
    (tmp_path / "texts" / "b").mkdir(parents=True)
    (tmp_path / "texts" / "b" / "2.csv").write_bytes(csv_of(ROWS[20:40]))
    (tmp_path / "texts" / "a.json").write_bytes(jsonl(ROWS[:20]))
    (tmp_path / "texts" / "c.parquet").write_bytes(parquet(ROWS[40:]))
    (tmp_path / "texts" / "c.py").write_bytes(b"x")
    (tmp_path / "texts" / ".d.jsonl").write_bytes(b"x")
    assert read(tmp_path / "texts") == EXPECTED
    assert read(tmp_path / "texts" / "**" / "*.csv", name="b") == EXPECTED[20:40]
    assert read(tmp_path / "texts" / "[ac].*", name="c") == EXPECTED[:20] + EXPECTED[40:]


@pytest.mark.parametrize("name", ["d.csv", "d.jsonl", "d.json", "d.parquet"])
def test_columns_have_the_names_that_the_config_gives(tmp_path, read, name):
    rows = [{"uid": row["id"], "body": row["text"], "head": row["title"]} for row in ROWS]
    content = {
        "d.csv": csv_of(rows), "d.parquet": parquet(rows), "d.json": json.dumps(rows).encode(),
    }.get(name, jsonl(rows))  # fmt: skip
    (tmp_path / name).write_bytes(content)
    assert read(tmp_path / name, text="body", id="uid", title="head") == EXPECTED


@pytest.mark.parametrize("name", FILES)
def test_reading_goes_on_after_any_row(tmp_path, name):
    (tmp_path / name).write_bytes(FILES[name])
    (file,) = files_of(section_of(), SourceConfig(documents=str(tmp_path / name)))
    columns = ("text", "id", "title")
    rows = list(read_rows(file, columns, "file", Mark()))
    assert len(rows) == len(ROWS)
    for place in range(0, len(rows), 7):
        rest = list(read_rows(file, columns, "file", rows[place].mark))
        assert [row[:3] for row in rest] == [row[:3] for row in rows[place + 1 :]]


TEXTS = st.lists(
    st.text(st.characters(blacklist_categories=["Cs"], blacklist_characters="\0\r"), min_size=1)
    .map(str.strip).filter(bool), min_size=1, max_size=6,
)  # fmt: skip


@given(TEXTS, st.integers(1, 40))
def test_any_text_survives_any_format_and_any_size_of_chunk(tmp_path_factory, texts, chunk):
    folder = tmp_path_factory.mktemp("texts")
    rows = [{"id": f"i{n}", "title": "", "text": text} for n, text in enumerate(texts)]
    contents = {
        "a.jsonl": jsonl(rows), "b.json": json.dumps(rows, ensure_ascii=False, indent=1).encode(),
        "c.csv": csv_of(rows), "d.parquet": parquet(rows), "e.csv.zst": zst(csv_of(rows)),
    }  # fmt: skip
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("gportuguese.corpus.rows._CHUNK_CHARS", chunk)
        for name, content in contents.items():
            (folder / name).write_bytes(content)
            source = SourceConfig(documents=str(folder / name))
            found = rows_of(reading_of(folder / f"{name}.shards", source, min_chars=0))
            assert found == [(row["id"], "", row["text"]) for row in rows], name


@pytest.mark.parametrize("unit", ["line", "paragraph"])
@pytest.mark.parametrize("packed", ["", ".gz", ".bz2", ".zst"])
def test_text_files_too(tmp_path, read, unit, packed):
    pack = {"": bytes, ".gz": gzip.compress, ".bz2": bz2.compress, ".zst": zst}[packed]
    texts = [row["text"].replace("\n", " ") for row in ROWS]
    end = "\n" if unit == "line" else "\n\n"
    (tmp_path / f"d.txt{packed}").write_bytes(pack(end.join(texts).encode()))
    assert [text for *_, text in read(tmp_path / f"d.txt{packed}", unit)] == texts


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("stop", [1, 8, 33, 59])
def test_a_run_that_was_cut_short_goes_on_and_gives_the_same_shards(
    tmp_path, monkeypatch, name, stop
):
    """Finished shards are not written again; of files that can seek they are not even read."""
    monkeypatch.setattr(documents, "_SHARD_DOCUMENTS", 7)
    (tmp_path / name).write_bytes(FILES[name])
    source = SourceConfig(documents=str(tmp_path / name))
    straight = reading_of(tmp_path / "straight", source)
    real, left = documents._document, stop

    def failing(*args):
        nonlocal left
        left -= 1
        if left < 0:
            raise KeyboardInterrupt
        return real(*args)

    monkeypatch.setattr(documents, "_document", failing)
    with pytest.raises(KeyboardInterrupt):
        reading_of(tmp_path / "cut", source)
    left = len(ROWS) - stop // 7 * 7  # the rest, and no row more
    resumed = reading_of(tmp_path / "cut", source)
    assert left == 0
    assert [path.read_bytes() for path in resumed.paths] == [
        path.read_bytes() for path in straight.paths
    ]
    assert len(straight.paths) == 9


def test_what_is_excluded_does_not_count_towards_the_limit_of_bytes(tmp_path, monkeypatch):
    """Neither in one run nor in one that goes on."""
    monkeypatch.setattr(documents, "_SHARD_DOCUMENTS", 7)
    (tmp_path / "d.jsonl").write_bytes(jsonl())
    (tmp_path / "exam.txt").write_text(ROWS[4]["text"], encoding="utf-8")
    source = SourceConfig(documents=str(tmp_path / "d.jsonl"), bytes=6000)
    section = section_of(source, exclude=(str(tmp_path / "exam.txt"),))

    def reading(folder):
        folder.mkdir(exist_ok=True)
        write_excluded(section, folder)
        return read_source(section, sources_of(section)[0], folder, "corpus", folder)

    straight = reading(tmp_path / "straight")
    dropped = sum(summary["dropped"].get(REASON, 0) for summary in straight.summaries)
    assert dropped
    kept = sum(len(text.encode()) for *_, text in rows_of(straight))
    last = len(rows_of(straight)[-1][2].encode())
    assert kept - last < 6000 <= kept
    cut = tmp_path / "cut"
    shutil.copytree(tmp_path / "straight", cut)
    for path in sorted(cut.glob("*.jsonl"))[2:]:
        path.unlink()
    assert rows_of(reading(cut)) == rows_of(straight)


def test_a_source_is_cut_after_some_bytes_and_says_if_it_ends_before(tmp_path, caplog):
    (tmp_path / "d.jsonl").write_bytes(jsonl())
    sizes = [len(row["text"].encode()) for row in ROWS]
    whole = SourceConfig(documents=str(tmp_path / "d.jsonl"))
    for limit, number in ((1, 1), (sizes[0], 1), (sizes[0] + 1, 2), (sum(sizes), 60)):
        reading = reading_of(tmp_path / f"{limit}", SourceConfig(**vars(whole) | {"bytes": limit}))
        assert rows_of(reading) == EXPECTED[:number]
    assert "ends after" not in caplog.text
    beyond = SourceConfig(**vars(whole) | {"bytes": sum(sizes) + 5})
    assert rows_of(reading_of(tmp_path / "beyond", beyond)) == EXPECTED
    assert f"d: ends after {sum(sizes):,} bytes of text, before the limit of" in caplog.text


LATIN = "não é UTF-8".encode("latin-1")
FAULTS = [
    ("d.csv", csv_of([{"body": "x", "date": "y"}]), "rows have no text in the column 'text'; set its "
     "text to one of the columns found: body, date"),
    ("d.parquet", parquet([{"body": "x"}]), "the columns found: body"),
    ("d.jsonl", b'{"a": 1}\n{"b": 2}\n' * 5000, "d: the first 1,000 rows have no text in the column "
     "'text'; set its text to one of the columns found: a, b"),
    ("d.jsonl", b"", "source d: "),
    ("d.json", b"[]", "d.json holds no rows"),
    ("d.csv", b"id,text\n", "d.csv holds no rows"),
    ("d.txt", b"\n\n", "d.txt holds no rows"),
    ("d.csv", b"id,text\n1," + LATIN, "d.csv:2: not UTF-8 (invalid continuation byte, byte 4 of the "),
    ("d.json", b'[{"text": "' + LATIN + b'"}]', "d.json: not UTF-8 (invalid continuation byte)"),
    ("d.txt.gz", gzip.compress(b"ok\n" + LATIN), "d.txt.gz:2: not UTF-8"),
    ("d.csv", b"id,text\n1,um, dois\n", "d.csv:2: 3 fields, but the first line names 2; put fields "),
    ("d.csv", b"id;text\n1;um; dois\n", "d.csv:2: 3 fields, but the first line names 2; put fields that "
     "hold semicolons in quotes"),
    ("d.csv", csv_of([{"body": "x", "date": "y"}], ";"), "one of the columns found: body, date"),
    ("d.csv", b'id,text\n1,"abc\nd', "d.csv:3: broken CSV (unexpected end of data)"),
    ("d.json", b'[{"text": "a"},\n {"text" "b"}]', "d.json:2: broken JSON (Expecting ':' delimiter)"),
    ("d.json", b'[{"text": "a"},\n {"text": "b', "d.json:2: broken JSON (Unterminated string"),
    ("d.json", b"[" * 99_999, "d.json:1: JSON nested too deeply"),
    ("d.jsonl.zst", zst(jsonl())[:-20], "d.jsonl.zst: Truncated compressed stream"),
    ("d.jsonl.bz2", bz2.compress(jsonl())[:-20], "d.jsonl.bz2: Compressed file ended"),
    ("d.jsonl.bz2", jsonl(), "d.jsonl.bz2: Invalid data stream"),
    ("d.jsonl.zst", jsonl(), "d.jsonl.zst: ZSTD decompress failed"),
    ("d.docx", b"", "give a .json, .jsonl, .csv, .txt (each also .gz, .bz2 or .zst) or .parquet"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "content", "message"), FAULTS)
def test_a_source_that_cannot_be_read_is_refused_in_a_sentence(
    tmp_path, read, name, content, message
):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(CorpusError) as caught:
        read(tmp_path / name, "line")
    assert message in str(caught.value)


@pytest.mark.parametrize("name", ["d.csv", "d.jsonl", "d.parquet"])
@pytest.mark.parametrize("column", ["id", "title"])
@pytest.mark.parametrize("limit", [{}, {"bytes": 1}])
def test_a_named_column_that_no_row_has_is_refused(tmp_path, read, name, column, limit):
    (tmp_path / name).write_bytes(FILES[name])
    with pytest.raises(CorpusError) as caught:
        read(tmp_path / name, **{column: "uid"}, **limit)
    assert f"rows have no {column} in the column 'uid'; set its {column} to one of the columns found: " \
        "id, title, text" in str(caught.value)  # fmt: skip


def with_sources(*sources):
    return load_config(
        None, ("dump.source=null", f"corpus.sources={json.dumps(list(sources))}")
    ).corpus


A, B = {"documents": "a.jsonl"}, {"documents": "b/texts/"}


@pytest.mark.parametrize(
    ("sources", "message"),
    [
        ((A, A), "two sources are named 'a'; give each a name of its own"),
        ((A, B | {"name": "a"}), "two sources are named 'a'"),
        ((A | {"weight": 0.5}, B), "give every source a weight, or none"),
        ((A | {"weight": 0.5}, B | {"weight": 0.4}), "the weights add up to 0.9, not to 1"),
        ((A | {"weight": -0.5}, B), "corpus.sources[0].weight: -0.5 must lie in [0, 1]"),
        (
            (A | {"name": ".."},),
            "'..' must be letters, digits, ., - and _, not beginning with . or -",
        ),
        (
            (A | {"name": "a/b"},),
            "corpus.sources[0].name: 'a/b' must be letters, digits, ., - and _",
        ),
        ((A | {"bytes": 0},), "corpus.sources[0].bytes: 0 must be at least 1"),
        (
            (A | {"subset": "x"},),
            "subset, split and revision are for Hub data sets, which 'a.jsonl' is not",
        ),
        (
            (A, B | {"split": "test"}),
            "[1]: subset, split and revision are for Hub data sets, which",
        ),
        (({"documents": "dump", "split": "test"},), "for Hub data sets, which 'dump' is not"),
        (
            ({"documents": "dump", "text": "body"},),
            "corpus.sources[0].text: the dump has no columns; remove this setting",
        ),
        (({"documents": "dump", "id": "uid"},), "corpus.sources[0].id: the dump has no columns"),
        (({"documents": "dump", "title": "head"},), "sources[0].title: the dump has no columns"),
        ((A | {"filter": {"min": 3}},), "filter.min: unknown key"),
        (({"name": "a"},), "corpus.sources[0].documents: missing"),
    ],
)
def test_sources_that_contradict_each_other_are_refused(sources, message):
    with pytest.raises(ConfigError) as caught:
        with_sources(*sources)
    assert message in str(caught.value)


def test_one_setting_of_a_source_can_be_set_on_the_command_line(tmp_path):
    path = tmp_path / "c.yaml"
    path.write_text("{name: c, corpus: {sources: [{documents: a.csv}, {documents: b.csv}]}}")
    weights = ("corpus.sources.0.weight=0.9", "corpus.sources.1.weight=0.1")
    config = load_config(path, (*weights, "corpus.sources.1.filter.min_chars=7"))
    assert [source.weight for source in config.corpus.sources] == [0.9, 0.1]
    assert [s.filter.min_chars for s in sources_of(config.corpus)] == [1800, 7]
    with pytest.raises(ConfigError, match="corpus.documents and corpus.sources: set only one"):
        load_config(path, "corpus.documents=c.jsonl")
    with pytest.raises(ConfigError, match="none of corpus.sources reads it; add"):
        load_config(path, "dump.source=d.xml")


def test_what_may_be_a_hub_id():
    ids = ("wikimedia/wikipedia", "HuggingFaceFW/fineweb-2", "a/b.c", "_a/b_", f"a/{'b' * 96}")
    paths = (
        "texts",
        "texts/",
        "./a/b",
        "/a/b",
        "~/a",
        "a/b/c",
        "a/b.csv",
        "a/b.txt.zst",
        "a/*",
        "a--b/c",
        "a/..",
        "a/b-",
        "a./b",
        "a/b.git",
        "a/b\n",
        "notícias/textos",
        f"a/{'b' * 97}",
    )
    assert [*filter(is_hub_id, (*ids, *paths))] == [*ids]
    for each in ids:
        validate_repo_id(each)  # the Hub's own client takes them


def test_names_follow_from_the_documents():
    def name(documents, subset=None):
        (source,) = sources_of(section_of(SourceConfig(documents=documents, subset=subset)))
        return source.name

    assert name("wikimedia/wikipedia", "20231101.pt") == "wikipedia-20231101.pt"
    assert name("https://example.org/a/news.csv.gz?x=1") == "news"
    assert name("~/my texts/") == "my-texts"
    assert name("texts/**/*.jsonl") == "documents"
    assert name("dump") == "dump"


def mixed(tmp_path, *sources, **settings):
    """The corpus of some sources."""
    overrides = [f"corpus.{key}={value}" for key, value in settings.items()]
    return build(
        tmp_path, "dump.source=null", f"corpus.sources={json.dumps(list(sources))}", *overrides
    )


def rows_in(artifact):
    return {
        split: pq.read_table(artifact.folder / f"{split}.parquet").to_pylist()
        for split in ("train", "valid", "test")
    }


@pytest.fixture
def two(tmp_path):
    """Two sources: the second repeats a text of the first, and nearly repeats another."""
    words = random.Random(0)
    rows = [{"id": number, "text": " ".join(words.choices(WORDS, k=90))} for number in range(80)]
    (tmp_path / "pt.jsonl").write_bytes(jsonl(rows[:40]))
    near = rows[5]["text"].rsplit(" ", 1)[0] + " outra"
    others = [*rows[40:], {"id": 98, "text": rows[3]["text"]}, {"id": 99, "text": near}]
    others = [{**row, "id": number} for number, row in enumerate(others)]  # the ids of the first
    (tmp_path / "en.csv").write_bytes(csv_of(others))
    return {"documents": str(tmp_path / "pt.jsonl"), "language": "pt"}, {
        "documents": str(tmp_path / "en.csv")
    }


def test_several_sources_are_one_corpus_with_counts_of_each(tmp_path, two):
    artifact = mixed(tmp_path, *two)
    rows = rows_in(artifact)
    first, second = artifact.facts["sources"]
    assert artifact.facts["language"] == "pt"
    assert (first["name"], first["pages"], first["dropped"]) == ("pt", 40, {})
    assert (second["name"], second["pages"], second["dropped"]) == (
        "en",
        42,
        {"exact duplicate": 1},
    )
    for facts in (first, second):
        for split, number in facts["documents"].items():
            own = [row for row in rows[split] if row["source"] == facts["name"]]
            assert len(own) == number
            assert sum(len(row["text"].encode()) for row in own) == facts["bytes"][split]
            texts = [
                text for batch in load(artifact, split, source=facts["name"]) for text in batch
            ]
            assert texts == [row["text"] for row in own]
        assert facts["documents"]["valid"]
    ids = [row["id"] for split in rows.values() for row in split]
    assert len(set(ids)) == len(ids) == 81
    assert {"pt/7", "en/7"} < set(ids)
    assert artifact.facts["documents"] == {split: len(each) for split, each in rows.items()}


def test_the_texts_of_all_sources_are_read_once(tmp_path, two, monkeypatch):
    monkeypatch.setattr(splits, "_ROW_GROUP_DOCUMENTS", 7)
    third = {"documents": str(tmp_path / "ar.jsonl")}  # alphabetically before the others
    (tmp_path / "ar.jsonl").write_bytes(jsonl([{"text": sentence(n, 90)} for n in range(20)]))
    artifact = mixed(tmp_path, *two, third)
    real, read = pq.ParquetFile.iter_batches, []

    def spied(file, batch_size, row_groups, **options):
        read.extend(row_groups)
        return real(file, batch_size, row_groups, **options)

    monkeypatch.setattr(pq.ParquetFile, "iter_batches", spied)
    for split, rows in rows_in(artifact).items():
        read.clear()
        for name in ("pt", "en", "ar"):
            texts = [text for batch in load(artifact, split, source=name) for text in batch]
            assert texts == [row["text"] for row in rows if row["source"] == name]
        num_groups = pq.ParquetFile(artifact.folder / f"{split}.parquet").num_row_groups
        assert set(read) == set(range(num_groups))
        assert len(read) <= num_groups + 2  # sources meet in at most two groups
    assert not list(load(artifact, "train", source="zz"))


def test_texts_are_excluded_from_every_source(tmp_path, two):
    exam = [json.loads((tmp_path / "pt.jsonl").read_text().splitlines()[7])["text"]]
    exam += [next(csv.DictReader((tmp_path / "en.csv").read_text().splitlines()))["text"]]
    (tmp_path / "exam.txt").write_text("\n".join(exam), encoding="utf-8")
    artifact = mixed(tmp_path, *two, exclude=f"[{tmp_path / 'exam.txt'}]")
    assert [each["dropped"][REASON] for each in artifact.facts["sources"]] == [1, 1]


def test_near_duplicates_across_sources_are_on_the_first_ones_side(tmp_path, two):
    artifact = mixed(tmp_path, *two)
    sides = {row["id"]: split for split, rows in rows_in(artifact).items() for row in rows}
    assert sides["en/41"] == sides["pt/5"]
    assert artifact.facts["near_duplicates"] == {
        "clusters": 1, "documents": 2, "largest": 2, "across_sources": 1,
    }  # fmt: skip


def test_another_source_moves_no_document_of_the_first(tmp_path, two):
    one, both = mixed(tmp_path, two[0]), mixed(tmp_path, *two)
    alone = build(tmp_path, "dump.source=null", f"corpus.documents={two[0]['documents']}")
    for split, rows in rows_in(one).items():
        assert rows == rows_in(alone)[split]
        texts = [text for batch in load(both, split, source="pt") for text in batch]
        assert texts == [row["text"] for row in rows]
        assert "source" not in pq.read_schema(one.folder / f"{split}.parquet").names
    assert "sources" not in alone.facts


def test_the_dump_can_be_one_of_the_sources_and_be_cut(tmp_path, tiny_dump, two):
    def both(number, dedup="near", **settings):
        dump = {"documents": "dump", **settings}
        sources = f"corpus.sources={json.dumps([dump, two[1]])}"
        overrides = (f"dump.source={tiny_dump}", f"corpus.dedup={dedup}", sources)
        return build(tmp_path / number, *overrides)

    whole = both("a")
    assert whole.facts["language"] == "pt"
    assert [each["documents"]["train"] > 10 for each in whole.facts["sources"]] == [True, True]
    alone = build(tmp_path, f"dump.source={tiny_dump}")
    for split, rows in rows_in(alone).items():
        texts = [text for batch in load(whole, split, source="dump") for text in batch]
        assert texts == [row["text"] for row in rows]
    cut = both("b", dedup="off", bytes=20_000).facts["sources"][0]
    kept = sum(cut["bytes"].values())
    assert 20_000 <= kept < 21_000
    assert sum(cut["documents"].values()) + sum(cut["dropped"].values()) == cut["pages"]
    assert cut["dropped"]["after the limit"]


@pytest.mark.parametrize(
    ("settings", "exclude", "message"),
    [
        ({"text": "body"}, "[]", "source en: .* no text in the column 'body'"),
        ({"title": "name"}, "[]", "source en: .* no title in the column 'name'"),
        ({}, "[{}/none.jsonl]", "corpus.exclude: .*none.jsonl has no text; its rows need a 'text'"),
        ({"documents": "http://127.0.0.1:9/d.csv"}, "[]", "cannot read http://127.0.0.1:9/d.csv"),
    ],
)
def test_wrong_settings_of_a_later_source_show_before_the_dump_is_fetched(
    tmp_path, two, monkeypatch, settings, exclude, message
):
    monkeypatch.setattr("gportuguese.dump.build", lambda *_: pytest.fail("fetched"))
    monkeypatch.setattr(documents, "web_file", lambda url: web.web_file(url, wait_seconds=0))
    (tmp_path / "none.jsonl").write_text('{"body": "x"}', encoding="utf-8")
    sources = json.dumps([{"documents": "dump"}, two[1] | settings])
    overrides = (f"corpus.exclude={exclude.format(tmp_path)}", f"corpus.sources={sources}")
    with pytest.raises(CorpusError, match=message):
        build(tmp_path, "dump.source=http://127.0.0.1:9/dump.xml.bz2", *overrides)


def test_weights_change_no_document_but_content_and_columns_do(tmp_path, two):
    def folder(*sources):
        config = load_config(
            None, ("dump.source=null", f"corpus.sources={json.dumps(list(sources))}")
        )
        return Pipeline(config).folder("corpus")

    pt, en = two
    before = folder(pt, en)
    assert folder(pt | {"weight": 0.9}, en | {"weight": 0.1}) == before
    assert folder(pt, en | {"text": "body"}) != before
    assert folder(en, pt) != before
    (tmp_path / "en.csv").write_bytes(csv_of())
    assert folder(pt, en) != before


def test_a_source_that_leaves_nothing_is_named(tmp_path, two):
    with pytest.raises(CorpusError, match="no document for train in source en among 42 pages or r"):
        mixed(tmp_path, two[0], two[1] | {"filter": {"min_chars": 5000}})


@pytest.mark.parametrize(
    ("number", "setting", "remedy"),
    [
        (1, {"filter": {"min_chars": 5000}}, "lower corpus.sources[1].filter.min_chars, or bring"),
        (0, {"bytes": 1}, ", or raise corpus.sources[0].bytes, or bring more text"),
    ],
)
def test_the_remedy_names_the_setting_of_the_source(tmp_path, two, number, setting, remedy):
    sources = list(two)
    sources[number] = sources[number] | setting
    with pytest.raises(CorpusError) as caught:
        mixed(tmp_path, *sources)
    assert remedy in str(caught.value)
    assert "corpus.min_chars" not in str(caught.value)


def test_the_remedy_names_the_column_of_the_text(tmp_path, two):
    rows = [{"id": 1, "body": "curto"}, {"id": 2, "body": ""}]
    (tmp_path / "en.csv").write_bytes(csv_of(rows))
    with pytest.raises(
        CorpusError, match="1 no text, 1 too short.; give the rows a 'body', or low"
    ):
        mixed(tmp_path, two[0], two[1] | {"text": "body"})


STREAM = """
import resource, sys
from pathlib import Path
from gportuguese.config import CorpusConfig, SourceConfig, sources_of
from gportuguese.corpus import documents

section = CorpusConfig(sources=(SourceConfig(documents=sys.argv[1]),), min_chars=20, dedup="off")
real, number = documents._document, 0

def counted(*args):
    global number
    number += 1
    if number % 100_000 == 0:
        print(number, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024, flush=True)
    return real(*args)

documents._document = counted
(source,) = sources_of(section)
documents.read_source(section, source, Path(sys.argv[2]), "corpus")
"""


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("name", ["d.jsonl", "d.json.gz", "d.parquet", "d.csv.zst"])
def test_a_million_documents_take_the_memory_of_a_hundred_thousand(tmp_path, name):
    """Read and written as shards; finding duplicates then takes about 400 bytes per document."""
    rows = [{"id": number, "text": sentence(number, 40)} for number in range(1000)]
    path = tmp_path / name
    if name == "d.parquet":
        with pq.ParquetWriter(path, pa.Table.from_pylist(rows).schema) as writer:
            for _ in range(100):
                writer.write_table(pa.Table.from_pylist(rows * 10))
    elif name == "d.jsonl":
        with path.open("wb") as file:
            file.writelines(jsonl(rows) for _ in range(1000))
    elif name == "d.json.gz":
        with gzip.open(path, "wb", compresslevel=1) as file:
            file.write(b"[" + json.dumps(rows).encode()[1:-1])
            file.writelines(b", " + json.dumps(rows).encode()[1:-1] for _ in range(999))
            file.write(b"]")
    else:
        with pa.CompressedOutputStream(str(path), "zstd") as file:
            body = csv_of(rows).partition(b"\n")[2]
            file.write(b"id,text\n")
            for _ in range(1000):
                file.write(body)
    (tmp_path / "shards").mkdir()
    done = subprocess.run(
        [sys.executable, "-c", STREAM, str(path), str(tmp_path / "shards")],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    megabytes = {int(a): int(b) for a, b in map(str.split, done.stdout.splitlines())}
    assert list(megabytes) == list(range(100_000, 1_000_001, 100_000))
    assert megabytes[1_000_000] - megabytes[100_000] < 30, megabytes
