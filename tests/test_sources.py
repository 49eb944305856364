"""Sources of a corpus: the same documents from every format and place, and one sentence for each fault."""

import bz2
import csv
import gzip
import io
import json
import random
from types import SimpleNamespace

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gportuguese.config import CorpusConfig, SourceConfig, sources_of
from gportuguese.corpus import CorpusError
from gportuguese.corpus.documents import _read, files_of, identify_sources, read_source
from gportuguese.corpus.shards import read_documents
from tests.conftest import sentence
from tests.hub_host import Blob, HubHost, Repository

# huggingface_hub 2.4 uses a deprecated argument of httpx2
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")

REPO = "anna/noticias"
ROWS = [
    {"id": f"n{number}", "title": f'Título "{number}", ação', "text": sentence(number, 40 + number)}
    for number in range(60)
]
ROWS[3]["text"] += '\nSegunda linha, com "aspas" e vírgulas.\n\nTerceira\tlinha.'
EXPECTED = [(row["id"], row["title"], row["text"]) for row in ROWS]


def jsonl(rows=ROWS):
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def csv_of(rows=ROWS):
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]))
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


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """An empty Hub. The clients' own waits are skipped, and their caches are empty."""
    import datasets
    from huggingface_hub import HfFileSystem, close_session, constants
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


@pytest.mark.parametrize("name", FILES)
def test_every_format_gives_the_same_documents(tmp_path, read, name):
    (tmp_path / name).write_bytes(FILES[name])
    assert read(tmp_path / name) == EXPECTED


@pytest.mark.parametrize("name", FILES)
def test_the_hub_and_a_url_give_the_same_documents(hub, tmp_path, read, name):
    commit = publish(hub, {f"data/{name}": FILES[name]})
    assert read(REPO) == EXPECTED
    shards = tmp_path / "other"
    url = f"{hub.address}/datasets/{REPO}/resolve/main/data/{name}"
    assert rows_of(reading_of(shards, SourceConfig(documents=url))) == EXPECTED
    assert reading_of(shards, SourceConfig(documents=REPO)).facts["revision"] == commit
