"""One's own documents: whatever else a file holds, its texts are read, or the place is named."""

import gzip
import json
import os
import subprocess
import sys
import tracemalloc

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gportuguese.config import CorpusConfig, SourceConfig
from gportuguese.corpus import CorpusError, Document, Dropped
from gportuguese.corpus.documents import identify_sources, read_own
from tests.conftest import sentence
from tests.test_corpus import LONG, build


def own(path, **settings):
    """What is read of one's own documents."""
    return list(read_own(CorpusConfig(documents=str(path), min_chars=20, **settings)))


def write_rows(path, rows):
    with path.open("w", encoding="utf-8") as file:
        file.writelines(json.dumps(row) + "\n" for row in rows)
    return path


def test_columns_may_come_late_change_their_type_or_be_null_at_first(tmp_path):
    rows = [{"text": f"{n} {LONG}"} for n in range(3000)]
    rows[0] |= {"title": None, "id": None, "tags": None, "score": 1}
    rows[1] |= {"title": 1984, "id": 7, "tags": ["a"], "score": "high"}
    rows[2999] |= {"title": "Tarde", "id": "x", "late": {"a": [None, 1.5, {}]}}
    read = own(write_rows(tmp_path / "d.jsonl", rows))
    assert [document.text for document in read] == [row["text"] for row in rows]
    assert [(d.id, d.title) for d in (*read[:3], read[-1])] == [
        ("d.jsonl:1", ""),
        ("7", "1984"),
        ("d.jsonl:3", ""),
        ("x", "Tarde"),
    ]


def test_a_pattern_reads_every_format_and_a_folder_those_of_before(tmp_path):
    (tmp_path / "a.csv").write_text(f"id,text\n1,{LONG}\n", encoding="utf-8")
    write_rows(tmp_path / "b.jsonl", [{"id": 2, "text": LONG}])
    assert [document.id for document in own(tmp_path / "*.csv")] == ["1"]
    assert [document.id for document in own(tmp_path / "*")] == ["1", "2"]
    assert [document.id for document in own(tmp_path)] == ["2"]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)
EXTRA = st.dictionaries(st.text().filter(lambda name: name not in ("id", "title", "text")), JSON)


@given(st.lists(EXTRA, min_size=1, max_size=5))
def test_extra_columns_of_any_type_change_no_document(tmp_path_factory, extras):
    path = tmp_path_factory.mktemp("own") / "d.jsonl"
    rows = [{"id": n, "text": f"{n} {LONG}", "title": "T"} for n in range(len(extras))]
    plain = own(write_rows(path, rows))
    assert own(write_rows(path, [{**e, **r} for e, r in zip(extras, rows, strict=True)])) == plain
    assert len(plain) == len(rows)


def test_rows_without_text_are_counted_and_shown_with_file_and_line(tmp_path, caplog):
    rows = [{"id": n, "text": sentence(n, 60)} for n in range(40)]
    rows[3:3] = [{"body": "x"}, {"id": 1, "text": None}, {"text": 5}, ["x"], {"text": " "}]
    path = write_rows(tmp_path / "d.jsonl", rows)
    with caplog.at_level("INFO"):
        artifact = build(tmp_path, f"corpus.documents={path}", "dump.source=null")
    assert (artifact.facts["pages"], artifact.facts["dropped"]["no text"]) == (45, 5)
    lines = (artifact.folder / "dropped.jsonl").read_text(encoding="utf-8").splitlines()
    shown = [row["id"] for row in map(json.loads, lines) if row["reason"] == "no text"]
    assert shown == [f"d.jsonl:{number}" for number in range(4, 9)]
    assert caplog.text.count("d.jsonl:4 has no text (columns: body); such") == 1


def test_what_is_no_document_is_skipped_in_a_folder_and_said(tmp_path, caplog):
    write_rows(tmp_path / "a.jsonl", [{"text": LONG}])
    (tmp_path / "B.TXT").write_text(LONG, encoding="utf-8")
    for name in ("README.md", "c.docx", "d.py", "e.zip", ".hidden.jsonl"):
        (tmp_path / name).write_text("x", encoding="utf-8")
    (tmp_path / ".git").mkdir()
    (tmp_path / ".git" / "x.zip").write_text("x", encoding="utf-8")
    with caplog.at_level("INFO"):
        assert [document.id for document in own(tmp_path)] == ["B.TXT", "a.jsonl:1"]
    assert "skipped README.md, c.docx, d.py and 1 more (no documents)" in caplog.text
    for nothing in (tmp_path / "README.md", tmp_path / ".git"):
        with pytest.raises(CorpusError, match=r"no documents at .*: give a \.json"):
            own(nothing)
    with pytest.raises(CorpusError, match="no documents at .*absent: there is no such file or f"):
        own(tmp_path / "absent")


@pytest.mark.parametrize(
    ("path", "message"),
    [
        (
            "data/missing",
            "missing: there is no such file or folder (did you mean data/mising.jsonl?)",
        ),
        ("data/pt", "data/pt: there is no such file or folder (did you mean data/pt.csv?)"),
        ("./dta/pt.csv", "pt.csv: there is no such file or folder (did you mean data/pt.csv?)"),
        ("~/zzz", "/zzz: there is no such file or folder"),
        ("pt.csv", "no documents at pt.csv: there is no such file or folder"),
        (
            "data/set",
            "such file or folder; for the data set on the Hub, run where no folder is called data",
        ),
        (
            "dta/pt",
            "there is no file or folder 'dta/pt', and the Hub is unreachable; check the network",
        ),
    ],
)
def test_a_mistyped_path_is_not_taken_for_a_hub_id(tmp_path, monkeypatch, path, message):
    (tmp_path / "data").mkdir()
    for name in ("mising.jsonl", "pt.csv"):
        (tmp_path / "data" / name).touch()
    monkeypatch.chdir(tmp_path)
    sources = CorpusConfig(sources=(SourceConfig(documents=path),))
    for section in (CorpusConfig(documents=path), sources):
        with pytest.raises(CorpusError) as caught:
            identify_sources(section, download=True)
        assert message in str(caught.value)


def test_a_file_without_permission_is_named(tmp_path, monkeypatch):
    path = write_rows(tmp_path / "a.jsonl", [{"text": LONG}])
    monkeypatch.setattr("os.access", lambda *_: False)  # root may read everything
    with pytest.raises(CorpusError, match="a.jsonl cannot be read"):
        own(path)


@pytest.mark.parametrize(
    ("unit", "expected"),
    [
        ("file", [("a.txt", f"{LONG}\n {LONG}\n\n\n{LONG}\n\n{LONG}")]),
        ("line", [(f"a.txt:{number}", LONG) for number in (2, 3, 6, 8)]),
        ("paragraph", [("a.txt:2", f"{LONG}\n {LONG}"), ("a.txt:6", LONG), ("a.txt:8", LONG)]),
    ],
)
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_one_document_a_file_a_line_or_a_paragraph(tmp_path, unit, expected, end):
    lines = ["", LONG, f" {LONG}", "", "", LONG, "", LONG, ""]
    (tmp_path / "a.txt").write_text("\ufeff" + end.join(lines), encoding="utf-8", newline="")
    read = own(tmp_path / "a.txt", txt_document=unit)
    assert [(document.id, document.text) for document in read] == expected


def test_parquet_is_read_for_its_three_columns_whatever_else_it_holds(tmp_path):
    table = {"n": [{"a": 1}, {"a": 2}], "id": [7.0, None], "text": [LONG, None], "title": [3, 4]}
    pq.write_table(pa.table(table), tmp_path / "d.parquet")
    assert own(tmp_path) == [Document("7.0", "3", LONG), Dropped("d.parquet:2", "4", "no text")]
    pq.write_table(pa.table({"body": [LONG, LONG]}), tmp_path / "d.parquet")
    assert [row.reason for row in own(tmp_path)] == ["no text"] * 2


def test_half_a_surrogate_pair_in_json_does_not_reach_the_text(tmp_path):
    row = f'{{"id": "\\ud800", "title": "\\ud83d\\ude00", "text": "{LONG} \\udfff"}}\n'
    (tmp_path / "d.jsonl").write_text(row, encoding="utf-8")
    assert own(tmp_path) == [Document("\ufffd", "\U0001f600", f"{LONG} \ufffd")]


def test_numbers_of_any_length_are_read(tmp_path):
    (tmp_path / "d.jsonl").write_text(f'{{"id": {"9" * 5000}, "text": "{LONG}"}}', encoding="utf-8")
    assert own(tmp_path) == [Document("9" * 5000, "", LONG)]


GOOD = json.dumps({"text": LONG}).encode() + b"\n"
BROKEN = [
    ("a.jsonl", GOOD * 2 + b'{"text": "x"', "a.jsonl:3, column 13: broken JSON (Expecting"),
    ("a.jsonl", GOOD + b'{"text": "caf\xe9"}', "a.jsonl:2: not UTF-8 (invalid continuation"),
    ("a.jsonl", "\ufeff{}".encode("utf-16-le"), "a.jsonl:1: not UTF-8"),
    ("a.jsonl", GOOD + b"[" * 99_999, "a.jsonl:2: JSON nested too deeply"),
    ("a.jsonl.gz", gzip.compress(GOOD * 9999, mtime=0)[:-200], "a.jsonl.gz: Compressed file ended"),
    ("a.jsonl.gz", GOOD, "a.jsonl.gz: Not a gzipped file"),
    ("a.txt", b"\n\ncaf\xe9", "a.txt:3: not UTF-8"),
    ("a.parquet", b"PAR1", "a.parquet after row 0: "),
    ("a.jsonl", GOOD + b"x" * 9999, "a.jsonl:2: a line of more than 5,000 bytes"),
    ("a.jsonl.gz", gzip.compress(b"x" * 9999, mtime=0), "a.jsonl.gz:1: a line of more than"),
]


@pytest.mark.parametrize(("name", "content", "message"), BROKEN)
def test_what_cannot_be_read_is_named_by_file_and_line(
    tmp_path, monkeypatch, name, content, message
):
    if "a line of more than" in message:
        monkeypatch.setattr("gportuguese.corpus.rows._MAX_CHARS", 5_000)
    (tmp_path / name).write_bytes(content)
    with pytest.raises(CorpusError) as caught:
        own(tmp_path)
    assert f"{tmp_path}/{message}" in str(caught.value)


@pytest.mark.skipif(sys.platform == "darwin", reason="macOS has no such file names")
def test_a_file_name_that_is_not_utf8_is_written_with_its_bytes(tmp_path):
    """Archives of the time before UTF-8 hold such names."""
    path = tmp_path / os.fsdecode(b"not\xedcia.txt")
    path.write_text(LONG, encoding="utf-8")
    (document,) = own(tmp_path)
    assert document.id == "not\\xedcia.txt"
    assert identify_sources(CorpusConfig(documents=str(tmp_path)), download=False)


def test_the_command_ends_with_a_sentence_and_exit_code_2(tmp_path):
    name, content, message = BROKEN[0]
    (tmp_path / name).write_bytes(content)
    words = ("corpus", "--set", f"corpus.documents={name}", "--set", "dump.source=null")
    run = subprocess.run(
        [sys.executable, "-m", "gportuguese", *words],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 2
    assert message in run.stderr.splitlines()[-1]
    assert "Traceback" not in run.stderr


@pytest.mark.parametrize(
    ("rows", "settings", "message"),
    [
        (
            3,
            "corpus.min_chars=999",
            "for train among 3 pages or rows (dropped: 3 too short); lower",
        ),
        (1, "corpus.valid_per_mille=998", "for train among 1 pages or rows (dropped: none); lower"),
        (1, "corpus.valid_per_mille=1", "for valid among 1 pages or rows (dropped: none); raise"),
    ],
)
def test_a_side_without_documents_says_what_helps(tmp_path, rows, settings, message):
    documents = [{"id": n, "text": f"{LONG} {n} {LONG}"} for n in range(rows)]
    path = write_rows(tmp_path / "d.jsonl", documents)
    shares = ("corpus.test_per_mille=1", settings)
    with pytest.raises(CorpusError) as caught:
        build(tmp_path, f"corpus.documents={path}", "dump.source=null", *shares)
    assert f"no document {message} corpus." in str(caught.value)


def test_documents_that_all_lack_a_text_are_refused(tmp_path):
    path = write_rows(tmp_path / "d.jsonl", [{"body": "x"}])
    with pytest.raises(CorpusError, match="1 no text.; give the rows a 'text'"):
        build(tmp_path, f"corpus.documents={path}", "dump.source=null")


def test_rows_without_an_id_are_named_by_their_place_not_by_none(tmp_path):
    (tmp_path / "b").mkdir()
    for name in ("a.jsonl", "b/a.jsonl"):
        write_rows(tmp_path / name, [{"id": 7, "text": LONG}, {"text": LONG}])
    assert [document.id for document in own(tmp_path)] == ["7", "a.jsonl:2", "7", "b/a.jsonl:2"]


@pytest.mark.parametrize("name", ["d.jsonl", "d.parquet", "d.txt"])
def test_a_large_file_is_read_in_constant_memory(tmp_path, name):
    """Its documents are 24 MB."""
    texts = [f"{number} {'palavra ' * 3000}" for number in range(1000)]
    path = tmp_path / name
    if name == "d.jsonl":
        write_rows(path, ({"text": text} for text in texts))
    elif name == "d.txt":
        path.write_text("\n".join(texts), encoding="utf-8")
    else:
        pq.write_table(pa.table({"text": texts}), path, row_group_size=100)
    del texts
    section = CorpusConfig(documents=str(path), txt_document="line")
    tracemalloc.start()
    number = sum(1 for _ in read_own(section))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert number == 1000
    assert peak < 16e6
