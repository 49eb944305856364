"""Workers may fail, die or hang: the run goes on, and an interrupted one ends with the same bytes."""

import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from dataclasses import replace
from types import SimpleNamespace

import pytest

from gportuguese import Pipeline, atomic, init_world, load_config
from gportuguese.config import CorpusConfig
from gportuguese.corpus import pool, workers
from gportuguese.corpus.definitions import write_definitions
from gportuguese.corpus.pool import CorpusError, clean_dump
from gportuguese.corpus.shards import read_documents, read_summary, shard_path
from gportuguese.corpus.unpacked import write_pages
from gportuguese.corpus.workers import Job
from gportuguese.dump import reader
from gportuguese.wikitext import language_of
from tests.conftest import page_xml, sentence
from tests.test_dump import multistream

PAGES = [page_xml(n, f"P{n}", f"{sentence(n, 40)} {n}") for n in range(1, 61)]
REAL = workers.clean_page


@pytest.fixture
def job(tmp_path, monkeypatch):
    """A dump of a dozen pieces."""
    monkeypatch.setattr(reader, "_RANGE_BYTES", 1500)
    path = tmp_path / "d.xml.bz2"
    path.write_bytes(multistream(PAGES, 3))
    (tmp_path / "shards").mkdir()
    section = CorpusConfig(min_chars=20, dedup="off", page_seconds=1.0)
    return Job(path, section, language_of("pt"), tmp_path / "shards")


@pytest.fixture
def fork(monkeypatch):
    """Workers that inherit what a test patched."""
    real = pool.multiprocessing.get_context
    monkeypatch.setattr(pool.multiprocessing, "get_context", lambda _: real("fork"))


def ids(job):
    shards = sorted(job.shards.glob("*.jsonl"))
    return [row["id"] for shard in shards for row in read_documents(shard)]


def run(job):
    """All summaries together: number of pages, and what was set aside."""
    summaries = [summary for _, summary in clean_dump(job, 2)]
    return sum(s["pages"] for s in summaries), [a for s in summaries for a in s["quarantined"]]


def test_all_pages_come_in_the_order_of_the_dump(job):
    assert run(job) == (60, [])
    assert ids(job) == [str(n) for n in range(1, 61)]
    assert len(list(job.shards.glob("*.jsonl"))) >= 5
    assert not list(job.shards.glob("*.tmp"))


def test_only_missing_and_damaged_shards_are_cleaned_again(job):
    run(job)
    whole = {shard: shard.read_bytes() for shard in job.shards.glob("*.jsonl")}
    first, second, third, *_ = sorted(whole)
    first.unlink()
    second.write_bytes(whole[second][: len(whole[second]) // 2])
    assert read_summary(second) is None
    marked = third.stat().st_mtime_ns
    run(job)
    assert ids(job) == [str(n) for n in range(1, 61)]
    assert third.stat().st_mtime_ns == marked


def test_a_shard_from_before_bytes_were_counted_is_cleaned_again(job):
    run(job)
    shard = min(job.shards.glob("*.jsonl"))
    *lines, last = shard.read_text(encoding="utf-8").split("\n")[:-1]
    summary = json.loads(last)
    num_bytes = summary.pop("bytes")
    shard.write_text("\n".join([*lines, json.dumps(summary), ""]), encoding="utf-8")
    assert read_summary(shard) is None
    assert run(job) == (60, [])
    assert read_summary(shard)["bytes"] == num_bytes > 0


def kill_at(page_id, folder, times):
    """A `clean_page` that kills its own process at one page, so many times."""

    def clean_page(page, section, language, expanded):
        deaths = len(list(folder.glob("death-*")))
        if page.id == page_id and deaths < times:
            (folder / f"death-{deaths}").touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return REAL(page, section, language, expanded)

    return clean_page


def fail(page, section, language, expanded):
    if page.id == 7:
        raise RecursionError("too deep")
    if page.id == 8:
        bytearray(1 << 36)
    if page.id == 9:
        while True:
            pass
    if page.id == 10:
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGPROF])
        time.sleep(60)
    return REAL(page, section, language, expanded)


forks = pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")


@forks
def test_a_killed_worker_is_replaced_and_nothing_is_lost(job, tmp_path, monkeypatch, fork):
    monkeypatch.setattr(workers, "clean_page", kill_at(20, tmp_path, times=1))
    assert run(job) == (60, [])
    assert ids(job) == [str(n) for n in range(1, 61)]


@forks
def test_a_page_that_kills_twice_is_set_aside(job, tmp_path, monkeypatch, fork):
    monkeypatch.setattr(workers, "clean_page", kill_at(20, tmp_path, times=99))
    assert run(job) == (60, [{"id": "20", "title": "P20", "reason": "the worker died"}])
    assert ids(job) == [str(n) for n in range(1, 61) if n != 20]


@forks
def test_pages_that_raise_explode_loop_or_hang_are_set_aside(job, monkeypatch, fork):
    monkeypatch.setattr(workers, "clean_page", fail)
    monkeypatch.setattr(pool, "_GRACE_SECONDS", 0.5)
    pages, aside = run(job)
    assert pages == 60
    assert sorted((row["id"], row["reason"]) for row in aside) == [
        ("10", "time limit"),
        ("7", "cleaner failed: RecursionError"),
        ("8", "cleaner failed: MemoryError"),
        ("9", "time limit"),
    ]


@forks
@pytest.mark.parametrize(
    ("error", "message"),
    [
        (MemoryError(), "out of memory; run again with a smaller runtime.num_workers"),
        (PermissionError(13, "Permission denied"), "Permission denied"),
        (sqlite3.DatabaseError("file is not a database"), "file is not a database"),
    ],
)
def test_an_error_of_a_worker_names_the_piece(job, monkeypatch, fork, error, message):
    def clean_piece(job, piece, *_):
        raise error

    monkeypatch.setattr(workers, "clean_piece", clean_piece)
    with pytest.raises(CorpusError, match=rf"a worker failed at piece \d of .*{message}"):
        run(job)


@forks
@pytest.mark.parametrize(("end", "reason"), [("hang", "time limit"), ("die", "the worker died")])
def test_a_piece_whose_templates_cannot_be_read_ends_the_run(
    job, monkeypatch, tmp_path, fork, end, reason
):
    real = workers.unpack_piece

    def unpack_piece(job, piece):
        if piece.number == 2:
            (tmp_path / f"{os.getpid()}.try").touch()
            time.sleep(60) if end == "hang" else os.kill(os.getpid(), signal.SIGKILL)
        return real(job, piece)

    monkeypatch.setattr(workers, "unpack_piece", unpack_piece)
    monkeypatch.setattr(pool, "_GRACE_SECONDS", 0.2)
    section = replace(job.section, templates="expand", page_seconds=0.2)
    with pytest.raises(CorpusError, match=rf"templates of piece 2 of .*, bytes .* \({reason}\)"):
        run(replace(job, section=section))
    assert len(list(tmp_path.glob("*.try"))) == 2


def test_every_scratch_file_is_synced_to_disk_before_it_has_its_name(job, monkeypatch):
    synced = []
    monkeypatch.setattr(
        atomic, "_sync", lambda path: synced.append((path.name, path.stat().st_size))
    )
    piece = next(reader.pieces_of(job.path))
    workers.clean_piece(job, piece, {}, SimpleNamespace(value=0), None)
    write_pages(job.shards / "0.pages", [])
    write_definitions(job.definitions, [], [])
    written = (shard_path(job.shards, piece.number), job.shards / "0.pages", job.definitions)
    assert synced == [(f"{path.name}.tmp", path.stat().st_size) for path in written]
    assert not list(job.shards.glob("*.tmp"))


def interrupt(*_):
    raise KeyboardInterrupt


def test_an_interrupted_corpus_goes_on_and_ends_with_the_same_bytes(job, tmp_path, monkeypatch):
    def build(name):
        config = load_config(
            None,
            (
                f"dump.source={job.path}",
                f"runtime={{artifacts_dir: {tmp_path / name}, num_workers: 1}}",
                "corpus={min_chars: 20, valid_per_mille: 200, test_per_mille: 100}",
            ),
        )
        return Pipeline(config).build("corpus", init_world(config.runtime)).folder

    straight = build("straight")
    real = pool.check_end
    monkeypatch.setattr(pool, "check_end", interrupt)
    with pytest.raises(KeyboardInterrupt):
        build("stopped")
    monkeypatch.setattr(pool, "check_end", real)
    partial = next((tmp_path / "stopped").glob("corpus-*.partial"))
    for shard in sorted((partial / "scratch").glob("*.jsonl"))[::2]:
        shard.unlink()
    resumed = build("stopped")
    for name in ("train.parquet", "valid.parquet", "test.parquet", "dropped.jsonl"):
        assert (resumed / name).read_bytes() == (straight / name).read_bytes()


def test_workers_of_a_script_that_holds_much_memory_live(tmp_path, tiny_overrides):
    """Each worker imports the user's script again, and with it torch or whatever takes gigabytes."""
    script = tmp_path / "script.py"
    script.write_text(
        "import mmap\n"
        "from gportuguese import Pipeline, init_world, load_config\n"
        "held = mmap.mmap(-1, 4 << 30)\n"
        "if __name__ == '__main__':\n"
        f"    config = load_config(None, {tuple(tiny_overrides)!r})\n"
        "    print(Pipeline(config).build('corpus', init_world(config.runtime)).facts['pages'])\n",
        encoding="utf-8",
    )
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 0
