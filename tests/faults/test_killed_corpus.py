"""A corpus that is killed again and again ends with the bytes of one that was left alone."""

import random
import subprocess
import sys
import time

import pytest

from gportuguese.dump.reader import stream_starts
from tests.conftest import SHARED

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
    data, starts = SAMPLE.read_bytes(), stream_starts(SAMPLE)
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
    names = {path.name for path in straight.iterdir()} - {"manifest.json"}  # it holds times
    assert names == {
        *("train.parquet", "valid.parquet", "test.parquet", "dropped.jsonl", "quarantine.jsonl")
    }
    for name in names:
        assert (killed / name).read_bytes() == (straight / name).read_bytes()
