"""Clean documents from wikitext: filters with counted reasons, and a split that cannot leak."""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import re
import signal
import time
import zlib
from collections import Counter, deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
import pyarrow.parquet as pq

from gportuguese import dump
from gportuguese.artifacts import Artifact
from gportuguese.config import Config, CorpusConfig, UserError, resolve_path
from gportuguese.dump import RawPage
from gportuguese.progress import track
from gportuguese.world import World

Split = Literal["train", "valid", "test"]
SPLITS: tuple[Split, ...] = ("train", "valid", "test")

_SCHEMA = pa.schema([("id", pa.string()), ("title", pa.string()), ("text", pa.string())])
_ROW_GROUP_DOCUMENTS = 1000
_BATCH_PAGES = 64
_DROPPED_SAMPLES = 20  # per reason, to be read by a person

# The templates that mark a disambiguation page, in Portuguese and English, and the magic word.
_DISAMBIGUATION = re.compile(
    r"\{\{\s*(?:desambiguação|desambiguaçao|desambig|desamb|disambig(?:uation)?|disamb|dab|"
    r"hndis|geodis|sigla-desambig)(?:-[\w-]+)?\s*(?:\||\}\})|__DISAMBIG__",
    re.IGNORECASE,
)
_DISAMBIGUATION_TITLE = re.compile(r"\((?:desambiguação|disambiguation)\)$", re.IGNORECASE)
_REDIRECT = re.compile(r"\s*#\s*(?:REDIRECT|REDIRECIONAMENTO|REDIRECIONA)\b", re.IGNORECASE)
# what a dropped template or reference leaves behind
_EMPTY_PARENTHESES = re.compile(r" ?\([\s,;:–-]*\)")


class CorpusError(UserError):
    """No corpus can be made of this input."""


@dataclass(frozen=True)
class Document:
    """A clean text and where it came from."""

    id: str
    title: str
    text: str


@dataclass(frozen=True)
class Dropped:
    """A page that is not a document, and why."""

    id: str
    title: str
    reason: str


def clean_page(page: RawPage, section: CorpusConfig) -> Document | Dropped:
    """The document of a page, or the reason why it is none.

    >>> clean_page(RawPage(1, "Fado", 0, False, "'''Fado''' é [[música]]."), CorpusConfig(min_chars=9))
    Document(id='1', title='Fado', text='Fado é música.')
    """

    def dropped(reason: str) -> Dropped:
        return Dropped(str(page.id), page.title, reason)

    if page.namespace != 0:
        return dropped("other namespace")
    if page.is_redirect or _REDIRECT.match(page.wikitext):
        return dropped("redirect")
    if _DISAMBIGUATION.search(page.wikitext) or _DISAMBIGUATION_TITLE.search(page.title):
        return dropped("disambiguation")
    if len(page.title) > section.max_title_chars:
        return dropped("long title")
    # cleaning never makes a text longer, so this spares its cost
    if len(page.wikitext) < section.min_chars:
        return dropped("too short")
    document = Document(str(page.id), page.title, wikitext_to_text(page))
    return document if len(document.text) >= section.min_chars else dropped("too short")


def wikitext_to_text(page: RawPage) -> str:
    """The running text of a page by wikiextractor, without what its templates leave behind."""
    from wikiextractor.extract import Extractor

    extractor = Extractor(page.id, "", "", page.title, [])
    lines = extractor.clean_text(page.wikitext, expand_templates=False, html_safe=False)
    text = _EMPTY_PARENTHESES.sub("", "\n".join(lines)).strip()
    # wikiextractor turns &#xD800; into half a surrogate pair, which no UTF-8 can hold
    return text.encode("utf-8", "replace").decode()


def split_of(document_id: str, section: CorpusConfig) -> Split:
    """Which side a document is on: SHA-256 of its id, so neither order nor machine matters."""
    bucket = int.from_bytes(hashlib.sha256(document_id.encode()).digest()[:8], "big") % 1000
    if bucket < section.valid_per_mille:
        return "valid"
    return "test" if bucket < section.valid_per_mille + section.test_per_mille else "train"


def build(config: Config, inputs: dict[str, Artifact], out: Path, world: World) -> dict[str, Any]:
    """Writes `train|valid|test.parquet` and `dropped.jsonl`; the facts count every page.

    Memory is constant but for 64 bits per document kept (the exact duplicates seen).
    """
    section = config.corpus
    if section.documents is None:
        results = _from_dump(dump.load(inputs["dump"], config.dump), section, world)
    else:
        results = _from_documents(section)
    start, counts, dropped = time.monotonic(), Counter[str](), Counter[str]()
    words, num_bytes, seen = 0, 0, set[bytes]()
    writers = {split: pq.ParquetWriter(out / f"{split}.parquet", _SCHEMA) for split in SPLITS}
    pending: dict[Split, list[Document]] = {split: [] for split in SPLITS}
    try:
        with (out / "dropped.jsonl").open("w", encoding="utf-8") as samples:
            for result in results:
                if isinstance(result, Document) and section.dedup == "exact":
                    fingerprint = hashlib.blake2b(result.text.encode(), digest_size=8).digest()
                    if fingerprint in seen:
                        result = Dropped(result.id, result.title, "exact duplicate")
                    seen.add(fingerprint)
                if isinstance(result, Dropped):
                    dropped[result.reason] += 1
                    if dropped[result.reason] <= _DROPPED_SAMPLES:
                        samples.write(json.dumps(result.__dict__, ensure_ascii=False) + "\n")
                    continue
                split = split_of(result.id, section)
                counts[split] += 1
                words += len(result.text.split())
                num_bytes += len(result.text.encode())
                pending[split].append(result)
                if len(pending[split]) == _ROW_GROUP_DOCUMENTS:
                    _write(writers[split], pending[split])
            for split in SPLITS:
                _write(writers[split], pending[split])
    finally:
        for writer in writers.values():
            writer.close()
    facts = {
        "pages": sum(counts.values()) + sum(dropped.values()),
        "documents": {split: counts[split] for split in SPLITS},
        "dropped": dict(sorted(dropped.items())),
        "words": words,
        "bytes": num_bytes,
        "seconds_of_cleaning": round(time.monotonic() - start, 1),
    }
    for split in ("train", "valid"):
        if not counts[split]:
            raise CorpusError(
                f"no document for {split} among {facts['pages']} pages "
                f"(dropped: {facts['dropped'] or 'none'}); lower corpus.min_chars or raise "
                "corpus.valid_per_mille"
            )
    return facts


def load(artifact: Artifact, split: Split, batch_size: int = 256) -> Iterator[list[str]]:
    """Yields the texts of a split in their order, `batch_size` at a time."""
    with pq.ParquetFile(artifact.folder / f"{split}.parquet") as file:
        for batch in file.iter_batches(batch_size=batch_size, columns=["text"]):
            yield batch.column("text").to_pylist()


def _write(writer: pq.ParquetWriter, documents: list[Document]) -> None:
    if documents:
        columns = zip(*((d.id, d.title, d.text) for d in documents), strict=True)
        writer.write_table(pa.table(list(map(list, columns)), schema=_SCHEMA))
        documents.clear()


def _from_dump(path: Path, section: CorpusConfig, world: World) -> Iterator[Document | Dropped]:
    """Cleans the pages of a dump in worker processes; results come in the order of the dump."""
    # spawn: the parent may hold threads of PyTorch or tokenizers, which do not survive a fork
    context = multiprocessing.get_context("spawn")
    num_pages, start = 0, time.monotonic()
    with (
        track("corpus", path.stat().st_size) as advance,
        ProcessPoolExecutor(
            world.num_workers,
            mp_context=context,
            initializer=signal.signal,  # Ctrl-C is for the parent, which stops its workers
            initargs=(signal.SIGINT, signal.SIG_IGN),
        ) as pool,
    ):

        def note_bytes(num_bytes: int) -> None:
            advance(num_bytes, f"{num_pages / (time.monotonic() - start):,.0f} pages/s")

        pages = dump.read_pages(path, note_bytes)
        waiting: deque[Future[list[Document | Dropped]]] = deque()
        try:
            while batch := list(islice(pages, _BATCH_PAGES)):
                num_pages += len(batch)
                waiting.append(pool.submit(_clean_batch, batch, section))
                if len(waiting) > 4 * world.num_workers:  # bounds the memory read ahead
                    yield from waiting.popleft().result()
            while waiting:
                yield from waiting.popleft().result()
        except BrokenProcessPool as error:
            raise CorpusError(
                f"a worker process died while cleaning pages near number {num_pages} "
                "(out of memory?); run again with a smaller runtime.num_workers"
            ) from error
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
    if not num_pages:
        raise CorpusError(f"{path} holds no pages; is it a pages-articles dump?")


def _clean_batch(pages: list[RawPage], section: CorpusConfig) -> list[Document | Dropped]:
    return [_clean_safely(page, section) for page in pages]


def _clean_safely(page: RawPage, section: CorpusConfig) -> Document | Dropped:
    try:
        return clean_page(page, section)
    except Exception as error:  # noqa: BLE001 - one page must not end the run, whatever it holds
        return Dropped(str(page.id), page.title, f"cleaner failed: {type(error).__name__}")


def document_files(section: CorpusConfig) -> list[Path]:
    """The files that `corpus.documents` means; raises `CorpusError` if there are none."""
    source = resolve_path(str(section.documents))
    paths = [source] if source.is_file() else sorted(p for p in source.rglob("*") if p.is_file())
    if not paths:
        raise CorpusError(f"no documents at {source}; see corpus.documents")
    for path in paths:
        if _format_of(path) is None:
            raise CorpusError(f"{path}: use .jsonl, .jsonl.gz, .parquet or .txt documents")
    return paths


def document_name(path: Path, section: CorpusConfig) -> str:
    """A file's path below `corpus.documents`, or its name if that is the file."""
    source = resolve_path(str(section.documents))
    return path.name if path == source else path.relative_to(source).as_posix()


def _format_of(path: Path) -> str | None:
    suffixes = {".jsonl": "json", ".jsonl.gz": "json", ".parquet": "parquet", ".txt": "text"}
    return next((kind for end, kind in suffixes.items() if path.name.endswith(end)), None)


def _from_documents(section: CorpusConfig) -> Iterator[Document | Dropped]:
    """One's own documents, streamed through `datasets`; they enter at the length filter."""
    import datasets

    paths = document_files(section)
    with track("corpus", len(paths)) as advance:
        for path in paths:
            kind = str(_format_of(path))
            options = {"sample_by": "document"} if kind == "text" else {}
            try:
                rows: Iterable[dict[str, Any]] = datasets.load_dataset(
                    kind, data_files=str(path), split="train", streaming=True, **options
                )
                for index, row in enumerate(rows):
                    yield _own_document(row, f"{document_name(path, section)}:{index}", section)
            except (
                datasets.exceptions.DatasetsError,
                pa.ArrowException,
                ValueError,
                EOFError,
                zlib.error,
            ) as error:
                raise CorpusError(f"cannot read documents from {path}: {error}") from error
            advance(1, path.name)


def _own_document(row: dict[str, Any], where: str, section: CorpusConfig) -> Document | Dropped:
    if not isinstance(row.get("text"), str):
        raise CorpusError(f"{where}: a document needs a 'text'; found {', '.join(row)}")
    # a column that only some rows have is None in the others
    identity = where if row.get("id") is None else str(row["id"])
    document = Document(identity, str(row.get("title") or ""), row["text"].strip())
    if len(document.text) < section.min_chars:
        return Dropped(identity, document.title, "too short")
    return document
