"""Sources on the Hub and at URLs: the real clients against a local stand-in, with and without faults."""

import json
import os
import random
import subprocess
import sys
from collections import deque
from http.server import BaseHTTPRequestHandler
from types import SimpleNamespace

import pytest
from huggingface_hub import constants

from gportuguese.config import SourceConfig
from gportuguese.corpus import CorpusError, documents, web
from gportuguese.corpus.documents import identify_sources
from gportuguese.corpus.hub import commit_of
from tests.hub_host import Blob, HubHost, Repository
from tests.loopback import serving
from tests.test_sources import (
    EXPECTED,
    FILES,
    ROWS,
    jsonl,
    parquet,
    reading_of,
    rows_of,
    section_of,
)

# huggingface_hub 2.4 uses a deprecated argument of httpx2
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")

REPO = "anna/noticias"


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """An empty Hub. The clients' own waits are skipped, and their caches are empty."""
    import datasets
    from huggingface_hub import HfFileSystem, close_session
    from huggingface_hub.utils import _http

    host = HubHost({"hf_token": "anna"})
    with host.running() as host.address:
        template = host.address + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(constants, "ENDPOINT", host.address)
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
        monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "no-token"))
        monkeypatch.setattr(datasets.config, "HF_ENDPOINT", host.address)
        monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "datasets")
        monkeypatch.setattr(_http, "time", SimpleNamespace(sleep=lambda seconds: None))
        HfFileSystem.clear_instance_cache()
        yield host
        HfFileSystem.clear_instance_cache()
        close_session()


def publish(hub, files, repo=REPO, branch="main", **settings):
    """A commit with these files; those over 1 kB are kept in the storage."""
    found = hub.repositories.setdefault(f"datasets/{repo}", Repository(False, **settings))
    blobs = {name: Blob(content, len(content) > 1000) for name, content in files.items()}
    return found.commit(branch, f"commit {len(found.commits)}", blobs)


@pytest.mark.parametrize("name", [name for name in FILES if name.islower()])  # as `datasets` wants
def test_the_hub_and_a_url_give_the_same_documents(hub, tmp_path, name):
    commit = publish(hub, {f"data/{name}": FILES[name]})
    url = f"{hub.address}/datasets/{REPO}/resolve/main/data/{name}"
    assert rows_of(reading_of(tmp_path / "url", SourceConfig(documents=url))) == EXPECTED
    reading = reading_of(tmp_path / "hub", SourceConfig(documents=REPO))
    assert rows_of(reading) == EXPECTED
    assert reading.facts == {"files": 1, "revision": commit}


def read(tmp_path, documents=REPO, **settings):
    tmp_path.mkdir(exist_ok=True)
    return rows_of(reading_of(tmp_path / "shards", SourceConfig(documents=documents, **settings)))


CARD = """---
configs:
- config_name: pt
  data_files:
  - {split: train, path: pt/train-*.parquet}
  - {split: test, path: pt/test.parquet}
- config_name: en
  data_files: en.jsonl
---
"""


@pytest.fixture
def subsets(hub):
    """A data set with two subsets, one of them with two splits."""
    files = {
        "README.md": CARD.encode(),
        "pt/train-0.parquet": parquet(ROWS[:25]),
        "pt/train-1.parquet": parquet(ROWS[25:50]),
        "pt/test.parquet": parquet(ROWS[50:]),
        "en.jsonl": jsonl(ROWS[:5]),
    }
    return publish(hub, files)


def test_a_subset_and_a_split_are_those_of_the_card(hub, subsets, tmp_path):
    assert read(tmp_path / "a", subset="pt") == EXPECTED[:50]
    assert read(tmp_path / "b", subset="pt", split="test") == EXPECTED[50:]
    assert read(tmp_path / "c", subset="en") == EXPECTED[:5]
    publish(hub, {"pt/0.parquet": parquet([{"text": ROWS[0]["text"]}])}, "anna/sem-id")
    assert read(tmp_path / "d", "anna/sem-id")[0][0] == "pt/0.parquet:1"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({}, "anna/noticias has several subsets; set subset to pt, en"),
        ({"subset": "p"}, "anna/noticias has no subset 'p'; set subset to pt"),
        ({"subset": "pt", "split": "dev"}, "has no split 'dev'; there are test, train"),
        ({"subset": "pt", "revision": "v9"}, "anna/noticias has no revision 'v9'"),
        (
            {"documents": "anna/nada"},
            "there is no file or folder 'anna/nada', and the Hub has no suc",
        ),
        ({"subset": "pt", "text": "body"}, "the columns found: id, title, text"),
    ],
)
def test_what_a_data_set_does_not_have_is_said(subsets, tmp_path, settings, message):
    with pytest.raises(CorpusError) as caught:
        read(tmp_path, **{"documents": REPO, **settings})
    assert message in str(caught.value)


def test_a_data_set_without_documents_is_refused(hub, tmp_path):
    publish(hub, {"a.tar": b"x" * 2000})
    with pytest.raises(
        CorpusError, match=r"a\.tar, which cannot be read|holds no files that can be"
    ):
        read(tmp_path)


@pytest.mark.parametrize("download", [False, True])
def test_an_id_that_the_client_refuses_is_said_in_a_sentence(download):
    with pytest.raises(CorpusError, match="'notícias/textos' is neither a path nor a Hub id"):
        commit_of(SourceConfig(documents="notícias/textos"), download)


def test_a_gated_data_set_says_where_its_conditions_are(hub, tmp_path, monkeypatch):
    publish(hub, {"d.jsonl": jsonl()}, gated=True)
    with pytest.raises(
        CorpusError, match="is gated; accept its conditions at https://hug.* and run"
    ):
        read(tmp_path)
    monkeypatch.setenv("HF_TOKEN", "hf_token")
    assert read(tmp_path) == EXPECTED


def test_a_private_data_set_is_read_with_a_token(hub, tmp_path, monkeypatch):
    publish(hub, {"d.jsonl": jsonl()})
    hub.repositories[f"datasets/{REPO}"].private = True
    with pytest.raises(CorpusError, match="or you may not see it; check the name, or run `hf auth"):
        read(tmp_path)
    monkeypatch.setenv("HF_TOKEN", "hf_token")
    assert read(tmp_path) == EXPECTED


@pytest.mark.parametrize("name", ["d.jsonl", "d.parquet", "d.csv.gz"])
@pytest.mark.parametrize(
    "faults",
    [
        {"stored": [429, 503, "drop"]},
        {"stored": [("cut answer", 700)]},
        {"resolve": [429]},
        {"tree": [429, 500]},
    ],
)
def test_passing_faults_change_no_document(hub, tmp_path, name, faults):
    publish(hub, {name: FILES[name]})
    for route, each in faults.items():
        hub.faults[route].extend(each)
    assert read(tmp_path) == EXPECTED
    assert not any(hub.faults[route] for route in faults)


@pytest.mark.parametrize(
    ("route", "faults", "message"),
    [
        ("info", [429] * 30, "the Hub answers 429 (too many requests); run again later"),
        ("stored", [429] * 60, "the Hub answers 429 (too many requests); run again later"),
        ("stored", [500] * 60, "the Hub answers 500; run again to go on"),
        (
            "stored",
            ["drop"] * 60,
            "the Hub is unreachable; check the network, unset HF",
        ),
        ("stored", [("cut answer", 70)] * 60, "the Hub is unreachable; check the network"),
        ("info", ["drop"] * 30, "the Hub is unreachable; check the network"),
        ("info", [401] * 30, "or you may not see it; check the name, or run `hf auth login`"),
    ],
)
def test_lasting_faults_end_in_a_sentence_and_the_next_run_goes_on(
    hub, tmp_path, monkeypatch, route, faults, message
):
    monkeypatch.setattr(documents, "_SHARD_DOCUMENTS", 7)
    rows = [{"id": n, "text": random.Random(n).randbytes(20_000).hex()} for n in range(60)]
    publish(hub, {"d.parquet": parquet(rows)})
    if route == "stored":  # in the middle of the file
        hub.faults[route].extend([None] * 8)
    hub.faults[route].extend(faults)
    with pytest.raises(CorpusError) as caught:
        read(tmp_path)
    assert message in str(caught.value)
    assert str(caught.value).count(REPO) == 1
    num_shards = len(list((tmp_path / "shards").glob("*")))
    assert (num_shards > 0) == (route == "stored")
    hub.faults.clear()
    assert [text for *_, text in read(tmp_path)] == [row["text"] for row in rows]


@pytest.mark.parametrize("is_offline", [True, False])
def test_a_hub_id_without_a_network_is_said_in_a_sentence(hub, tmp_path, monkeypatch, is_offline):
    commit = publish(hub, {"d.jsonl": jsonl()})
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", is_offline)
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    message = (
        "the Hub is unreachable; check the network, unset HF_HUB_OFFLINE and run again to go on"
    )
    for revision in (None, commit):
        with pytest.raises(CorpusError, match=message):
            read(tmp_path, revision=revision)


def test_a_data_set_stays_at_the_commit_that_was_found(hub, tmp_path, monkeypatch):
    """And at another commit it is another corpus."""
    source = SourceConfig(documents=REPO)
    section = section_of(source)
    first = publish(hub, {"d.jsonl": jsonl(ROWS[:9])})
    assert identify_sources(section, download=False) is None
    assert not hub.requests
    identity = identify_sources(section, download=True)
    second = publish(hub, {"d.jsonl": jsonl(ROWS)})
    num_requests = len(hub.requests)
    assert identify_sources(section, download=False) == identity
    assert len(hub.requests) == num_requests
    assert commit_of(source, download=True) == first
    assert read(tmp_path / "a") == EXPECTED[:9]
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "another"))
    assert identify_sources(section, download=True) not in (None, identity)
    assert read(tmp_path / "b") == EXPECTED
    pinned = section_of(SourceConfig(documents=REPO, revision=first))
    assert identify_sources(pinned, download=False) == identity  # without a request
    assert read(tmp_path / "c", revision=first) == EXPECTED[:9]
    hub.repositories[f"datasets/{REPO}"].branches["v2"] = second
    assert read(tmp_path / "d", revision="v2") == EXPECTED


def test_a_cut_source_is_not_read_to_its_end(hub, tmp_path):
    rows = [{"id": n, "text": random.Random(n).randbytes(20_000).hex()} for n in range(600)]
    publish(hub, {"d.jsonl": jsonl(rows)}, "anna/lines")
    publish(hub, {"d.parquet": parquet(rows, 100)}, "anna/table")
    for repo in ("anna/lines", "anna/table"):
        hub.sent.clear()
        found = read(tmp_path / repo[-5:], repo, bytes=1_000_000)
        assert len(found) == 25
        assert sum(size for _, size in hub.sent) < 9e6  # of 24e6


def test_only_the_columns_of_a_table_that_are_needed_are_read(hub, tmp_path):
    extra = [{**row, "embedding": random.Random(0).randbytes(50_000)} for row in ROWS]
    publish(hub, {"d.parquet": parquet(extra, 60)})
    assert read(tmp_path) == EXPECTED
    assert sum(size for _, size in hub.sent) < 500_000


class Plain(BaseHTTPRequestHandler):
    """A server of one file. It ignores ranges, and breaks off where the test says."""

    content, breaks, etag, date = jsonl(), deque(), "1", None

    def log_message(self, *_):
        pass

    def do_GET(self):
        self.send_response(200 if self.path.endswith(".jsonl") else 404)
        if self.etag:
            self.send_header("ETag", self.etag)
        if self.date:
            self.send_header("Last-Modified", self.date)
        self.send_header("Content-Length", str(len(self.content)))
        self.end_headers()
        self.wfile.write(self.content[: self.breaks.popleft() if self.breaks else None])
        self.close_connection = True


@pytest.fixture
def fast(monkeypatch):
    """Waits of the web reader are skipped."""
    monkeypatch.setattr(documents, "web_file", lambda url: web.web_file(url, wait_seconds=0))


def test_a_server_without_ranges_may_break_off_now_and_then(tmp_path, fast):
    with serving(Plain) as address:
        Plain.breaks = deque([None, 500, 3000, 9000])
        assert read(tmp_path, f"{address}/d.jsonl") == EXPECTED
        assert not Plain.breaks


def test_a_file_that_changes_while_it_is_read_is_refused(tmp_path, fast, monkeypatch):
    with serving(Plain) as address:
        (file,) = documents.files_of(section_of(), SourceConfig(documents=f"{address}/d.jsonl"))
        monkeypatch.setattr(Plain, "etag", "2")
        with pytest.raises(CorpusError, match="d.jsonl has changed while it was read; run again"):
            file.open().read(1)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ({"etag": "1"}, {"etag": "2"}),
        ({"etag": None, "date": "Sat, 01 Nov 2025 00:00:00 GMT"}, {}),
        ({"etag": None}, {}),  # only the size tells
    ],
)
def test_shards_of_a_url_that_has_changed_since_are_not_used(
    tmp_path, fast, monkeypatch, before, after
):
    monkeypatch.setattr(documents, "_SHARD_DOCUMENTS", 7)
    for name, value in before.items():
        monkeypatch.setattr(Plain, name, value)
    with serving(Plain) as address:
        assert read(tmp_path, f"{address}/d.jsonl") == EXPECTED
        monkeypatch.setattr(Plain, "content", jsonl(ROWS[30:]))
        for name, value in after.items():
            monkeypatch.setattr(Plain, name, value)
        assert read(tmp_path, f"{address}/d.jsonl") == EXPECTED[30:]
    assert len(list((tmp_path / "shards").iterdir())) == 5


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("/x.csv", "x.csv: the server answers 404"),
        ("/x", "/x: the name must end in .json, .jsonl"),
    ],
)
def test_a_url_that_gives_nothing_is_refused(tmp_path, fast, path, message):
    with serving(Plain) as address, pytest.raises(CorpusError) as caught:
        read(tmp_path, address + path)
    assert message in str(caught.value)


def test_a_url_without_a_server_is_refused(tmp_path, fast):
    with pytest.raises(CorpusError, match="cannot read http://127.0.0.1:9/d.csv: no connection"):
        read(tmp_path, "http://127.0.0.1:9/d.csv")


def test_the_command_reads_a_data_set_and_says_in_a_sentence_that_there_is_none(hub, tmp_path):
    """In processes of its own, with the clients as they are."""
    publish(hub, {"d.parquet": FILES["d.parquet"]})
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith("HF_")
    } | {"HF_ENDPOINT": hub.address, "HF_HOME": str(tmp_path / "home")}

    def run(command, repo):
        sources = f"corpus.sources=[{{documents: {repo}, filter: {{min_chars: 9}}}}]"
        settings = ("dump.source=null", sources, "corpus.valid_per_mille=200", "corpus.dedup=off")
        words = [word for setting in settings for word in ("--set", setting)]
        return subprocess.run(
            [sys.executable, "-m", "gportuguese", command, *words],
            cwd=tmp_path, env=environment, capture_output=True, text=True, check=False,
        )  # fmt: skip

    assert "corpus     missing" in run("status", REPO).stdout
    done = run("corpus", REPO)
    assert done.returncode == 0, done.stderr
    (folder,) = (tmp_path / "artifacts").glob("corpus-*")
    (facts,) = json.loads((folder / "manifest.json").read_text())["facts"]["sources"]
    assert facts["pages"] == sum(facts["documents"].values()) == len(ROWS)
    assert facts["revision"] == hub.repositories[f"datasets/{REPO}"].branches["main"]
    assert "corpus     done" in run("status", REPO).stdout
    none = run("corpus", "anna/nada")
    assert none.returncode == 2
    assert "the Hub has no such data set" in none.stderr.splitlines()[-1]
    assert "Traceback" not in none.stderr
