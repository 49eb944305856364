"""The template pages of a dump in the corpus stage: read once, shared, rebuilt after a kill."""

import io
import json
import multiprocessing
import random
import subprocess
import sys
import time
from pathlib import Path

import pytest

from gportuguese import Pipeline, corpus, hashes, init_world, load_config
from gportuguese.corpus import pool
from gportuguese.corpus.definitions import (
    Definitions,
    definition_of,
    read_pieces,
    write_definitions,
)
from gportuguese.corpus.unpacked import is_complete, read_pages, write_pages
from gportuguese.dump import RawPage, reader
from gportuguese.dump.reader import Piece
from tests.conftest import dump_xml, page_xml, recorded_progress, sentence
from tests.dump_host import DumpHost
from tests.test_dump import multistream
from tests.test_fetch import INDEX

SITEINFO = '<siteinfo><namespaces><namespace key="10" case="first-letter">Modelo</namespace></namespaces></siteinfo>'
TEMPLATES = [
    page_xml(901, "Modelo:Km", "{{{1}}} km&lt;noinclude&gt; ajuda&lt;/noinclude&gt;", 10),
    page_xml(902, "Modelo:Caixa", "{|\n| {{{1}}}\n|}", 10),
    page_xml(
        903, "Modelo:Quilómetro", "#REDIRECT [[Modelo:Km]]", 10, '<redirect title="Modelo:Km" />'
    ),
    page_xml(904, "Modelo:Bomba", "{{Bomba2}}" * 2000, 10),
    page_xml(905, "Modelo:Bomba2", "x" * 1000, 10),
    page_xml(906, "Modelo:Km", "outra", 10),
]
PAGES = [
    page_xml(
        n,
        f"P{n}",
        f"{sentence(n, 40)} {n} tem {{{{km|{n}}}}}, {{{{Modelo:Quilómetro|2}}}}"
        f"{{{{caixa|x}}}}{{{{bomba}}}} e {{{{sem definição}}}}fim.",
    )
    for n in range(1, 61)
]


@pytest.fixture
def dump(tmp_path, monkeypatch):
    """Sixty articles, then six templates, in a dozen pieces."""
    monkeypatch.setattr(reader, "_RANGE_BYTES", 1500)
    path = tmp_path / "d.xml.bz2"
    data = multistream(PAGES + TEMPLATES, 3)
    path.write_bytes(data)
    return path


@pytest.fixture
def header(monkeypatch):
    """Dumps whose header names the template namespace."""
    real = dump_xml

    def with_names(pages):
        return real(pages).replace("<siteinfo><sitename>W</sitename></siteinfo>", SITEINFO)

    monkeypatch.setattr("tests.test_dump.dump_xml", with_names)


def build(dump, folder, workers=1, *more):
    settings = (
        f"dump.source={dump}",
        f"runtime={{artifacts_dir: {folder}, num_workers: {workers}, device: cpu}}",
        "corpus={min_chars: 20, valid_per_mille: 200, test_per_mille: 100}",
        *more,
    )
    config = load_config(None, settings)
    return Pipeline(config).build("corpus", init_world(config.runtime))


def texts(artifact):
    return [t for split in corpus.SPLITS for batch in corpus.load(artifact, split) for t in batch]


def test_the_words_of_templates_reach_the_corpus(header, dump, tmp_path):
    artifact = build(dump, tmp_path / "a")
    lines = texts(artifact)
    assert len(lines) == 60
    assert all(line.endswith(" km, 2 km e fim.") for line in lines), lines[:3]
    assert artifact.facts["templates_over_limit"] == {"bomba": 60}
    assert sorted(path.name for path in artifact.folder.iterdir()) == [
        "dropped.jsonl",
        "manifest.json",
        "quarantine.jsonl",
        "test.parquet",
        "train.parquet",
        "valid.parquet",
    ]


def test_with_tables_no_definition_is_read(header, dump, tmp_path):
    artifact = build(dump, tmp_path / "a", 1, "corpus.templates=tables")
    assert all(
        line.endswith(" tem, e fim.") or line.endswith("tem, e fim.") for line in texts(artifact)
    )


def test_one_and_two_workers_write_the_same_bytes(header, dump, tmp_path):
    one, two = build(dump, tmp_path / "one"), build(dump, tmp_path / "two", 2)
    for path in one.folder.glob("*.parquet"):
        assert path.read_bytes() == (two.folder / path.name).read_bytes()


@pytest.mark.parametrize("container", ["plain", "one stream"])
def test_a_file_read_from_its_beginning_is_read_once(header, tmp_path, container, monkeypatch):
    import bz2

    from tests.test_dump import dump_xml as xml

    data = xml("".join(PAGES + TEMPLATES)).encode()
    path = tmp_path / ("d.xml" if container == "plain" else "d.xml.bz2")
    path.write_bytes(data if container == "plain" else bz2.compress(data))
    chunked = []
    real = reader._chunks
    monkeypatch.setattr(reader, "_chunks", lambda path: chunked.append(path) or real(path))
    assert all(line.endswith(" km, 2 km e fim.") for line in texts(build(path, tmp_path / "a")))
    assert len(chunked) == 1


@pytest.mark.parametrize("when", ["first pass", "second pass"])
def test_a_run_stopped_in_either_pass_ends_with_the_same_bytes(
    header, dump, tmp_path, monkeypatch, when
):
    straight = build(dump, tmp_path / "straight")

    def stop(*_):
        raise KeyboardInterrupt

    # at the end of the first pass all is read, but the definitions are not renamed
    where = {"first pass": "pool.check_end", "second pass": "collect_pages"}[when]
    with monkeypatch.context() as patch:
        patch.setattr(f"gportuguese.corpus.{where}", stop)
        with pytest.raises(KeyboardInterrupt):
            build(dump, tmp_path / "stopped")
    scratch = next((tmp_path / "stopped").glob("corpus-*.partial")) / "scratch"
    assert (scratch / "templates.sqlite").exists() == (when == "second pass")
    for path in sorted(scratch.glob("*.pages" if when == "first pass" else "*.jsonl"))[::2]:
        path.unlink()
    (scratch / "templates.sqlite.tmp").write_bytes(b"half a database")
    left = len(list(scratch.glob("*.jsonl")))
    reports = recorded_progress(monkeypatch, "gportuguese.corpus.pages")
    resumed = build(dump, tmp_path / "stopped")
    assert sum(is_resumed for _, is_resumed in reports[0]) == left < len(reports[0])
    assert (left > 0) == (when == "second pass")
    for path in straight.folder.glob("*.parquet"):
        assert path.read_bytes() == (resumed.folder / path.name).read_bytes()


@pytest.mark.parametrize("damaged", ["templates.sqlite", "*.pages"])
def test_scratch_files_that_cannot_be_read_are_written_again(
    header, dump, tmp_path, monkeypatch, damaged
):
    straight = build(dump, tmp_path / "straight")
    real = pool._unpacked

    def stop(*arguments):
        real(*arguments)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(pool, "_unpacked", stop)
        with pytest.raises(KeyboardInterrupt):
            build(dump, tmp_path / "stopped")
    scratch = next((tmp_path / "stopped").glob("corpus-*.partial")) / "scratch"
    paths = sorted(scratch.glob(damaged))
    paths[-1].write_bytes(paths[-1].read_bytes()[:100])
    paths[0].write_bytes(b"")
    resumed = build(dump, tmp_path / "stopped")
    for path in straight.folder.glob("*.parquet"):
        assert path.read_bytes() == (resumed.folder / path.name).read_bytes()


def test_a_damaged_file_of_definitions_has_no_pieces(tmp_path):
    path, pieces = tmp_path / "t", [Piece(0, 10, 20), Piece(1, 20, 30)]
    assert read_pieces(path) == []
    write_definitions(path, [(0, [("A", "words", "x" * 100_000)])], pieces)
    assert read_pieces(path) == pieces
    data = path.read_bytes()
    for damaged in (b"", data[:100], data[: len(data) // 2], data[:8192] + bytes(len(data) - 8192)):
        path.write_bytes(damaged)
        assert read_pieces(path) == []


def test_a_process_killed_while_it_reads_definitions_starts_again(header, dump, tmp_path):
    path = tmp_path / "big.xml.bz2"
    pages = [page.replace("<id>", "<id>9", 1) for page in PAGES * 15]
    path.write_bytes(multistream(pages + TEMPLATES, 100))
    words = [
        *("corpus", "--set", f"dump.source={path}", "--set", f"runtime.artifacts_dir={tmp_path / 'b'}"),
        *("--set", "corpus.min_chars=20", "--set", "corpus.dedup=off", "--set", "runtime.num_workers=1"),
    ]  # fmt: skip
    command = [sys.executable, "-m", "gportuguese", *words]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    while not list((tmp_path / "b").glob("corpus-*.partial/scratch/templates.sqlite.tmp")):
        assert process.poll() is None
        time.sleep(0.002)
    process.kill()
    process.wait()
    assert not list((tmp_path / "b").rglob("templates.sqlite"))
    assert subprocess.run(command, capture_output=True, check=False).returncode == 0
    facts = json.loads(next((tmp_path / "b").glob("corpus-*/manifest.json")).read_text())["facts"]
    assert facts["pages"] == 906
    assert facts["documents"]["train"] > 700


def test_of_two_pages_with_one_title_the_first_of_the_dump_holds(tmp_path):
    rows = [[("A", "words", str(number))] for number in range(3)]
    for order in ([2, 0, 1], [0, 1, 2], [1, 2, 0]):
        write_definitions(tmp_path / "t", ((n, rows[n]) for n in order), [])
        assert Definitions(tmp_path / "t").fetch("A") == ("A", "words", "0")


def test_redirects_lead_one_step(tmp_path):
    rows = [
        ("A", "redirect", "B"),
        ("B", "words", "b"),
        ("C", "redirect", "A"),
        ("D", "redirect", "X"),
    ]
    write_definitions(tmp_path / "t", [(0, rows)], [])
    found = Definitions(tmp_path / "t")
    assert found.fetch("A") == ("B", "words", "b")
    assert found.fetch("C") == ("A", "lua", "")  # as MediaWiki, which shows a link
    assert found.fetch("D") == ("X", "lua", "")
    assert found.fetch("Y") is None


def test_a_definition_is_kept_by_its_name_and_kind():
    def kept(title, text, is_redirect=False):
        page = RawPage(1, title, 10, is_redirect, text)
        return definition_of(page, frozenset(("modelo", "template")))

    assert kept("Modelo:água doce", "a<noinclude>b</noinclude>") == ("Água doce", "words", "a")
    assert kept("Modelo:Caixa", "{|\n|}") == ("Caixa", "box", "")
    assert kept("Modelo:Lista", "x" * 100_000) == ("Lista", "box", "")
    assert kept("Modelo:M", "{{#invoke:M|f}}") == ("M", "lua", "")
    assert kept("Modelo:R", "#REDIRECIONAMENTO [[Template:a b]]", True) == ("R", "redirect", "A b")


def test_unpacked_pages_are_what_was_written(tmp_path):
    pages = [RawPage(1, "É", 0, False, "texto\n\0"), RawPage(2, "R", 10, True, "")]
    write_pages(tmp_path / "1.pages", pages)
    assert read_pages(tmp_path / "1.pages") == pages
    assert [path.name for path in tmp_path.iterdir()] == ["1.pages"]
    data = (tmp_path / "1.pages").read_bytes()
    assert is_complete(tmp_path / "1.pages")
    for damaged in (b"", data[:20], data[:-1], bytes(len(data)), bytes(16)):
        (tmp_path / "1.pages").write_bytes(damaged)
        assert not is_complete(tmp_path / "1.pages")
    (tmp_path / "1.pages").write_bytes(data[:16] + bytes(len(data) - 16))
    with pytest.raises(OSError, match=r"1\.pages was damaged and is removed; run again"):
        read_pages(tmp_path / "1.pages")
    assert not is_complete(tmp_path / "1.pages")


READ = multiprocessing.get_context("fork").Value("q", 0)


class Counted(io.FileIO):
    """A file whose bytes are counted over all processes."""

    def readinto(self, buffer):
        number = super().readinto(buffer)
        with READ.get_lock():
            READ.value += number or 0
        return number

    def readall(self):
        data = super().readall()
        with READ.get_lock():
            READ.value += len(data)
        return data


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
@pytest.mark.parametrize("templates", ["expand", "tables"])
def test_a_fetched_dump_is_read_once_to_verify_and_once_to_clean(
    tmp_path, monkeypatch, tiny_overrides, templates
):
    """Through `open`; the search for streams maps the file, just ahead of those that read it."""
    host, chance = DumpHost(), random.Random(0)  # a few megabytes that nothing packs well
    pages = [page_xml(n, f"P{n}", chance.randbytes(20_000).hex()) for n in range(1, 200)]
    data = multistream(pages, 5)
    host.add_run("ptwiki", "20240101", data, INDEX)
    real = Path.open

    def counted(self, mode="r", *rest, **more):
        if mode == "rb" and self.name.endswith("multistream.xml.bz2"):
            return io.BufferedReader(Counted(self, "rb"))
        return real(self, mode, *rest, **more)

    # a dump of real size is hashed for longer than the time within which a file may still change
    monkeypatch.setattr(hashes, "_SETTLED_NS", 0)
    fork = multiprocessing.get_context("fork")
    monkeypatch.setattr(pool.multiprocessing, "get_context", lambda _: fork)
    monkeypatch.setattr(Path, "open", counted)

    def times_read(action):
        before = READ.value
        action()
        return (READ.value - before) / len(data)

    with host.running() as address:
        config = load_config(
            None,
            (
                *tiny_overrides,
                f"dump={{wiki: ptwiki, date: latest, mirror: '{address}'}}",
                f"corpus.templates={templates}",
            ),
        )
        pipeline, world = Pipeline(config), init_world(config.runtime)
        assert 1 <= times_read(lambda: pipeline.build("dump", world)) < 1.3  # and the header
    assert (
        1 <= times_read(lambda: pipeline.build("corpus", world)) < 1.5
    )  # and the last stream, and the beginning
    assert times_read(lambda: Pipeline(config).open("corpus")) == 0
