"""Downloads that people can leave alone, against a host that misbehaves."""

import bz2
import hashlib
import json
import random
import re
import signal
import socket
import subprocess
import sys
import time

import pytest

from gportuguese import Pipeline, init_world, load_config
from gportuguese.config import DumpConfig
from gportuguese.dump import DumpError, fetch
from gportuguese.dump.fetch import Host, RemoteFile
from tests.conftest import SHARED, page_xml, recorded_progress, sentence
from tests.dump_host import DumpHost
from tests.test_cli import gpt_pt, sets
from tests.test_dump import multistream

CONTENT = random.Random(0).randbytes(300_000)
INDEX = bz2.compress(b"0:1:P1\n")


@pytest.fixture
def host():
    return DumpHost()


def fetched(host, tmp_path, *faults, **known):
    """The bytes that arrive, with the faults of the first requests."""
    host.files["/x"] = CONTENT
    host.faults["/x"].extend(faults)
    with host.running() as address, Host(address, wait_seconds=0.001) as client:
        receipt = client.fetch(RemoteFile(f"{address}/x", **known), tmp_path / "x")
    assert receipt["size"] == len(CONTENT)
    assert [path.name for path in tmp_path.iterdir()] == ["x"]
    return (tmp_path / "x").read_bytes()


@pytest.mark.parametrize(
    "faults",
    [
        (),
        (("cut", 1000), ("cut", 1000), ("cut", 0), ("cut", 50_000)),
        (429, 503, 500),
        (("cut", 1000), "ignore range"),
        (("cut", 1000), 503, ("cut", 1), 429),
        (("lie", 0),),
    ],
)
def test_every_byte_arrives_whatever_happens_on_the_way(host, tmp_path, faults):
    assert fetched(host, tmp_path, *faults) == CONTENT


def test_a_second_process_goes_on_where_the_first_stopped(host, tmp_path, monkeypatch):
    reports = recorded_progress(monkeypatch, "gportuguese.dump.fetch")
    host.files["/x"] = CONTENT
    host.faults["/x"].extend([("cut", 100_000)] + [("cut", 0)] * 20)
    with host.running() as address:
        file = RemoteFile(f"{address}/x")
        with (
            Host(address, wait_seconds=0.001) as client,
            pytest.raises(
                DumpError, match="stalled at 100,000 bytes: the connection broke off; run again to"
            ),
        ):
            client.fetch(file, tmp_path / "x")
        host.faults.clear()
        with Host(address, wait_seconds=0.001) as client:
            client.fetch(file, tmp_path / "x")
    assert host.requests[-1][1]["Range"] == "bytes=100000-"
    first, second = reports
    assert [(number, resumed) for number, resumed in second if resumed] == [(100_000, True)]
    assert sum(number for number, _ in first) == 100_000
    assert sum(number for number, _ in second) == len(CONTENT)
    assert (tmp_path / "x").read_bytes() == CONTENT


def test_a_file_that_was_whole_already_is_only_verified(host, tmp_path):
    (tmp_path / "x").write_bytes(CONTENT)
    assert fetched(host, tmp_path, sha1=hashlib.sha1(CONTENT).hexdigest()) == CONTENT
    assert not host.requests
    (tmp_path / "x").write_bytes(CONTENT[:-1])
    with pytest.raises(DumpError, match="the file was removed"):
        fetched(host, tmp_path, sha1=hashlib.sha1(CONTENT).hexdigest())


def test_a_file_that_changed_midway_is_refused_and_what_came_is_kept(host, tmp_path):
    host.files["/x"] = CONTENT
    host.faults["/x"].extend([("cut", 1000)] + [("cut", 0)] * 20)
    with host.running() as address:
        file = RemoteFile(f"{address}/x")
        with Host(address, wait_seconds=0.001) as client, pytest.raises(DumpError):
            client.fetch(file, tmp_path / "x")
        host.faults.clear()
        host.files["/x"] = CONTENT[::-1]
        with (
            Host(address, wait_seconds=0.001) as client,
            pytest.raises(
                DumpError, match=r"changed since 1,000 bytes of it were downloaded; remove"
            ),
        ):
            client.fetch(file, tmp_path / "x")
    assert (tmp_path / "x").read_bytes() == CONTENT[:1000]


@pytest.mark.parametrize(
    ("known", "faults", "message"),
    [
        ({"sha1": "0" * 40}, (), "but 0000"),
        ({"size": 5}, (), "has 300,000 bytes, but 5 are listed"),
        ({}, [("lie", 99)] * 20, "the download stalled at|changed since"),
        ({}, [403], "the server answers 403"),
        ({}, [503] * 50, "the server answers 503"),
    ],
)
def test_lies_and_refusals_end_with_a_message(host, tmp_path, known, faults, message):
    with pytest.raises(DumpError, match=message):
        fetched(host, tmp_path, *faults, **known)


def test_a_damaged_file_is_removed_so_that_the_next_try_starts_anew(host, tmp_path):
    with pytest.raises(DumpError, match="the file was removed"):
        fetched(host, tmp_path, sha1="0" * 40)
    assert not (tmp_path / "x").exists()


def test_retry_after_is_waited_for(host, tmp_path):
    host.retry_after = "1"
    start = fetch.time.monotonic()
    assert fetched(host, tmp_path, 429) == CONTENT
    assert fetch.time.monotonic() - start >= 1


def test_a_server_that_asks_for_hours_is_asked_again_sooner(host, tmp_path, monkeypatch, caplog):
    waits = []
    monkeypatch.setattr("gportuguese.dump.connection.time.sleep", waits.append)
    host.retry_after = "86400"
    with caplog.at_level("INFO"):
        assert fetched(host, tmp_path, 503) == CONTENT
    assert waits == [600.0]
    assert "the server answers 503; trying again in 600 s (try 2 of 7)" in caplog.text


def test_latest_is_the_newest_run_that_is_done(host):
    host.add_run("ptwiki", "20240101", CONTENT, INDEX)
    host.add_run("ptwiki", "20240301", CONTENT, INDEX, status="in-progress")
    host.add_run("ptwiki", "20240201", CONTENT, INDEX)
    with host.running() as address, Host(address) as client:
        date, files = client.find_run(DumpConfig(wiki="ptwiki"))
        assert date == "20240201"
        assert [file.size for file in files] == [len(CONTENT), len(INDEX)]
        with pytest.raises(
            DumpError, match="no run 20240301 whose articlesmultistreamdump is done"
        ):
            client.find_run(DumpConfig(wiki="ptwiki", date="20240301"))
        with pytest.raises(DumpError, match="check dump.wiki"):
            client.find_run(DumpConfig(wiki="xxwiki"))


def test_of_a_wiki_dumped_in_parts_the_joined_file_is_taken_once_it_is_done(host):
    host.add_run("ptwiki", "20240101", CONTENT, INDEX, in_parts=True)
    host.add_run("ptwiki", "20240201", CONTENT, INDEX, in_parts=True, status="in-progress")
    with host.running() as address, Host(address) as client:
        date, files = client.find_run(DumpConfig())
    assert date == "20240101"
    assert files[0].name == "ptwiki-20240101-pages-articles-multistream.xml.bz2"


def interrupted(host, tiny_overrides, address):
    """The overrides and partial folder of a download of the run of 20240101 that broke off."""
    pages = [page_xml(n, f"P{n}", sentence(n, 120)) for n in range(1, 100)]
    path = host.add_run("ptwiki", "20240101", multistream(pages, 10), INDEX)
    host.faults[path].extend([("cut", 500), 403])
    remote = (f"dump={{wiki: ptwiki, date: latest, mirror: '{address}'}}",)
    overrides = [o for o in tiny_overrides if not o.startswith("dump")] + list(remote)
    config = load_config(None, overrides)
    with pytest.raises(DumpError, match="403"):
        Pipeline(config).build("dump", init_world(config.runtime))
    return pages, config


def test_a_download_goes_on_with_its_run_though_a_newer_one_came(host, tiny_overrides):
    with host.running() as address:
        pages, config = interrupted(host, tiny_overrides, address)
        host.add_run("ptwiki", "20240201", multistream(pages[:50], 10), INDEX)
        built = Pipeline(config).build("dump", init_world(config.runtime))
    assert built.facts["date"] == "20240101"
    assert host.requests[-2][1]["Range"] == "bytes=500-"


def test_a_run_that_the_host_no_longer_has_gives_way_and_leaves_nothing(host, tiny_overrides):
    with host.running() as address:
        pages, config = interrupted(host, tiny_overrides, address)
        for path in [path for path in host.files if "/20240101/" in path]:
            del host.files[path]
        host.add_run("ptwiki", "20240201", multistream(pages, 10), INDEX)
        built = Pipeline(config).build("dump", init_world(config.runtime))
    assert built.facts["date"] == "20240201"
    assert not [path.name for path in built.folder.iterdir() if "20240101" in path.name]


def test_a_host_that_cannot_be_asked_costs_nothing_of_what_came(host, tiny_overrides):
    with host.running() as address:
        _, config = interrupted(host, tiny_overrides, address)
        status = "/ptwiki/20240101/dumpstatus.json"
        listed = host.files[status]
        for answer in (b"{", b""):
            host.files[status] = answer
            with pytest.raises(DumpError, match="does not list"):
                Pipeline(config).build("dump", init_world(config.runtime))
        host.faults[status].append(403)
        with pytest.raises(DumpError, match="403"):
            Pipeline(config).build("dump", init_world(config.runtime))
        host.files[status] = listed
        Pipeline(config).build("dump", init_world(config.runtime))
    assert host.requests[-2][1]["Range"] == "bytes=500-"


def test_the_address_of_a_folder_is_refused(tiny_overrides):
    config = load_config(None, [*tiny_overrides, "dump={source: 'http://127.0.0.1:9/ptwiki/'}"])
    with pytest.raises(DumpError, match="is a folder; give the address of a file"):
        Pipeline(config).build("dump", init_world(config.runtime))


def test_latest_passes_over_a_run_whose_status_cannot_be_read(host):
    host.add_run("ptwiki", "20240101", CONTENT, INDEX)
    host.add_run("ptwiki", "20240201", CONTENT, INDEX)
    host.files["/ptwiki/20240201/dumpstatus.json"] = b'{"jobs": {'
    with host.running() as address, Host(address) as client:
        assert client.find_run(DumpConfig())[0] == "20240101"
        with pytest.raises(DumpError, match="does not list a multistream dump"):
            client.find_run(DumpConfig(date="20240201"))


def test_the_client_names_itself(host, tmp_path):
    fetched(host, tmp_path)
    agent = host.requests[0][1]["User-Agent"]
    assert agent.startswith("gportuguese/0.")
    assert "(+https://" in agent


def refuse_names(*_, **__):
    raise socket.gaierror(-2, "Name or service not known")


@pytest.mark.parametrize(
    ("address", "reason"),
    [
        ("http://127.0.0.1:9", "no connection (Connection refused)"),
        ("http://dumps.invalid", "the host's name cannot be resolved (is there a network?)"),
        ("https://dumps.invalid", "the proxy failed: no connection (Connection refused)"),
        ("https://LOOPBACK", "no secure connection ("),
    ],
)
def test_without_a_network_each_try_says_why_and_the_end_names_the_settings(
    host, tmp_path, caplog, monkeypatch, address, reason
):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    if address == "https://dumps.invalid":
        monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:9")
    if address == "http://dumps.invalid":
        monkeypatch.setattr(socket, "getaddrinfo", refuse_names)
    with host.running() as plain:
        address = address.replace("LOOPBACK", plain.removeprefix("http://"))
        for fetch_it in (
            lambda client: client.find_run(DumpConfig()),
            lambda client: client.fetch(RemoteFile(f"{address}/x"), tmp_path / "x"),
        ):
            caplog.clear()
            with (
                Host(address, wait_seconds=0.001) as client,
                caplog.at_level("INFO", "gportuguese"),
                pytest.raises(DumpError, match=f"^cannot reach {address}/") as caught,
            ):
                fetch_it(client)
            tries = [line for line in caplog.messages if "trying again" in line]
            assert len(tries) == 6
            assert all(line.startswith(reason) for line in tries)
            assert tries[0].endswith("; trying again at once (try 2 of 7)")
            assert tries[5].endswith("; trying again in 0 s (try 7 of 7)")
            message = str(caught.value)
            assert reason in message
            assert "set dump.source to a dump that you have, or dump.mirror to" in message
            assert not re.search(r"HTTPS?Connection|object at|Errno|Max retries", message)


def test_the_command_says_at_once_what_it_waits_for(tmp_path):
    words = ("--config", "pilot", "--set", "dump.mirror=http://127.0.0.1:9")
    with subprocess.Popen(
        [sys.executable, "-m", "gportuguese", "dump", *words],
        cwd=tmp_path,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        asked = next(line for line in process.stderr if "asking" in line)
        start = time.monotonic()
        waited = [next(process.stderr) for _ in range(2)]
        assert time.monotonic() - start < 2
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=20)
    assert "asking http://127.0.0.1:9/ptwiki for the latest run" in asked
    assert "no connection (Connection refused); trying again at once (try 2 of 7)" in waited[0]
    assert "no connection (Connection refused); trying again in 2 s (try 3 of 7)" in waited[1]
    assert process.returncode == 130


def test_a_broken_download_says_why_and_when_it_goes_on(host, tmp_path, caplog):
    with caplog.at_level("INFO", "gportuguese"):
        fetched(host, tmp_path, ("cut", 1000), 503)
    assert "x: the connection broke off; resuming at byte 1000 in 0 s" in caplog.messages
    assert "the server answers 503; trying again at once (try 2 of 7)" in caplog.messages


def test_the_stage_fetches_verifies_and_feeds_the_corpus(host, tiny_overrides, capsys):
    pages = [page_xml(n, f"P{n}", sentence(n, 120)) for n in range(1, 100)]
    path = host.add_run("ptwiki", "20240101", multistream(pages, 10), INDEX)
    host.faults[path].extend([("cut", 500), 503])
    with host.running() as address:
        remote = (f"dump={{wiki: ptwiki, date: latest, mirror: '{address}'}}",)
        assert gpt_pt("corpus", *sets((*tiny_overrides, *remote))) == 0
    config = load_config(None, (*tiny_overrides, *remote))
    receipt = Pipeline(config).build("dump", init_world(config.runtime)).facts
    assert receipt["date"] == "20240101"
    assert [file["url"].rsplit("-", 1)[-1] for file in receipt["fetched"]] == [
        "multistream.xml.bz2",
        "index.txt.bz2",
    ]
    assert "corpus: done" in capsys.readouterr().err


@pytest.mark.data
def test_the_real_layout_of_the_host_is_read(host):
    folder = SHARED / "ptwiki" / "20161101"
    for path in folder.iterdir():
        host.files[f"/ptwiki/20161101/{path.name}"] = path.read_bytes()
    host.files["/ptwiki/"] = b'<a href="20161101/">20161101/</a>'
    with host.running() as address, Host(address) as client:
        date, files = client.find_run(DumpConfig())
    listed = json.loads((folder / "dumpstatus.json").read_text(encoding="utf-8"))
    facts = listed["jobs"]["articlesmultistreamdump"]["files"]
    assert date == "20161101"
    assert {file.name: file.sha1 for file in files} == {n: f["sha1"] for n, f in facts.items()}
