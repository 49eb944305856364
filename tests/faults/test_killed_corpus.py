"""A corpus that is killed again and again ends with the bytes of one that was left alone."""

import bz2
import json
import os
import random
import subprocess
import sys
import time

import pytest

from gportuguese.dump.reader import stream_starts
from tests.conftest import SHARED, WORDS
from tests.hub_host import Blob, HubHost, Repository
from tests.test_sources import csv_of, jsonl, parquet

SAMPLE = SHARED / "ptwiki/20161101/ptwiki-20161101-pages-articles-multistream.xml.bz2"


def start(dump, folder):
    settings = (
        f"dump.source={dump}",
        f"runtime={{artifacts_dir: {folder}, num_workers: 2, device: cpu}}",
        "corpus={min_chars: 300, valid_per_mille: 10, test_per_mille: 10, dedup: near}",
    )
    words = [word for setting in settings for word in ("--set", setting)]
    return subprocess.Popen([sys.executable, "-m", "gportuguese", "corpus", *words])


@pytest.mark.data
@pytest.mark.slow
@pytest.mark.timeout(400)
def test_twenty_kills_change_nothing(tmp_path):
    data, starts = SAMPLE.read_bytes(), list(stream_starts(SAMPLE))
    body = data[starts[1] : starts[-1]]
    dump = tmp_path / "d.xml.bz2"  # three times the sample, so that it outlives twenty kills
    dump.write_bytes(data[: starts[1]] + 3 * body + data[starts[-1] :])
    assert start(dump, tmp_path / "straight").wait() == 0
    moments = random.Random(0)
    kills = 0
    for _ in range(20):
        process = start(dump, tmp_path / "killed")
        time.sleep(moments.uniform(0.2, 1.4))  # not to wait for anything: any moment will do
        kills += process.poll() is None
        process.kill()
        process.wait()
    assert kills == 20
    assert start(dump, tmp_path / "killed").wait() == 0
    straight, killed = (next((tmp_path / name).glob("corpus-*")) for name in ("straight", "killed"))
    assert straight.name == killed.name
    assert_same_files(straight, killed)


def assert_same_files(straight, killed):
    names = {path.name for path in straight.iterdir()} - {"manifest.json"}  # it holds times
    assert names == {
        *("train.parquet", "valid.parquet", "test.parquet", "dropped.jsonl", "quarantine.jsonl")
    }
    for name in names:
        assert (killed / name).read_bytes() == (straight / name).read_bytes()


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_twenty_kills_change_nothing_in_a_mix_from_files_and_the_hub(tmp_path):
    """Every kill leaves shards that the next run does not read again."""
    words, repo = random.Random(0), Repository(False)
    texts = [" ".join(words.choices(WORDS, k=words.randint(5, 120))) for _ in range(5000)]
    rows = [{"id": n, "text": f"{n} {texts[n % 5000]} {n}"} for n in range(90_000)]
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "a.jsonl").write_bytes(jsonl(rows[:20_000]))
    (tmp_path / "own" / "b.csv.bz2").write_bytes(bz2.compress(csv_of(rows[20_000:40_000])))
    repo.commit("main", "data", {"d.parquet": Blob(parquet(rows[40_000:], 5000), True)})
    host = HubHost({})
    host.repositories["datasets/anna/noticias"] = repo
    sources = [
        {"documents": str(tmp_path / "own")},
        {"documents": "anna/noticias", "bytes": 20_000_000},
    ]
    settings = (
        "dump.source=null",
        f"corpus.sources={json.dumps(sources)}",
        "corpus.min_chars=100",
        "runtime.device=cpu",
    )
    with host.running() as address:
        environment = os.environ | {"HF_ENDPOINT": address, "HF_HUB_OFFLINE": "0"}
        environment["HF_HOME"] = str(tmp_path / "home")

        def start(folder):
            given = (*settings, f"runtime.artifacts_dir={folder}")
            sets = [word for setting in given for word in ("--set", setting)]
            command = [sys.executable, "-m", "gportuguese", "corpus", *sets]
            return subprocess.Popen(command, env=environment)

        assert start(tmp_path / "straight").wait() == 0

        def num_shards():
            return len(list((tmp_path / "killed").glob("*.partial/scratch/*/*.jsonl")))

        before = 0
        for _ in range(20):
            process = start(tmp_path / "killed")
            wanted = before + words.randint(0, 1)  # few enough that twenty do not reach the end
            while process.poll() is None and num_shards() < wanted:
                time.sleep(0.05)
            time.sleep(words.uniform(0.0, 0.2))  # not to wait for anything: any moment will do
            assert process.poll() is None
            process.kill()
            process.wait()
            assert num_shards() >= wanted
            before = num_shards()
        assert before > 10
        assert start(tmp_path / "killed").wait() == 0
    straight, killed = (next((tmp_path / name).glob("corpus-*")) for name in ("straight", "killed"))
    assert straight.name == killed.name
    assert_same_files(straight, killed)
