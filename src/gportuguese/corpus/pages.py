"""The dump as a source: its pages, cleaned by worker processes into shards."""

from __future__ import annotations

import logging
import time
from contextlib import closing
from dataclasses import replace
from itertools import accumulate
from pathlib import Path
from typing import Any

from gportuguese import dump
from gportuguese.artifacts import Artifact
from gportuguese.config import Config, SourceConfig
from gportuguese.corpus.pool import CorpusError, clean_dump
from gportuguese.corpus.shards import read_documents, shard_path
from gportuguese.corpus.splits import Reading
from gportuguese.corpus.workers import Job
from gportuguese.progress import track
from gportuguese.wikitext import language_of
from gportuguese.world import World

log = logging.getLogger("gportuguese")


def read_dump(
    artifact: Artifact,
    config: Config,
    source: SourceConfig,
    shards: Path,
    world: World,
    excluded: Path | None = None,
) -> Reading:
    """Cleans the pages of a dump, up to `source.bytes` of text; reuses the shards of an earlier run.

    `excluded` is the folder of `write_excluded`.
    """
    path = dump.load(artifact, config.dump)
    language = language_of(str(artifact.facts["language"]), dump.read_header(path).namespaces)
    section = replace(config.corpus, min_chars=source.filter.min_chars or 0)
    job = Job(path, section, language, shards, excluded)
    summaries: dict[int, dict[str, Any]] = {}
    new_pages = num_bytes = num_done = 0
    earlier, start = set(shards.glob("*.jsonl")), time.monotonic()
    with (
        track("corpus", path.stat().st_size) as advance,
        closing(clean_dump(job, world.num_workers)) as pieces,
    ):
        for piece, summary in pieces:
            summaries[piece.number] = summary
            is_resumed = shard_path(shards, piece.number) in earlier
            new_pages += 0 if is_resumed else summary["pages"]
            note = f"{new_pages / (time.monotonic() - start):,.0f} pages/s" if new_pages else ""
            advance(piece.end - piece.start, note, resumed=is_resumed)
            while num_done in summaries:  # pieces finish out of order
                num_bytes += summaries[num_done]["bytes"]
                num_done += 1
            if source.bytes and num_bytes >= source.bytes:
                break
    if not any(summary["pages"] for summary in summaries.values()):
        raise CorpusError(f"{path} holds no pages; is it a pages-articles dump?")
    reading = Reading(
        str(source.name),
        [shard_path(shards, number) for number in range(num_done)],
        [summaries[number] for number in range(num_done)],
    )
    return _cut(reading, source.bytes) if source.bytes else reading


def _cut(reading: Reading, limit: int) -> Reading:
    """Of the shards only the documents up to `limit` bytes of text, at least one."""
    ends = list(accumulate(summary["bytes"] for summary in reading.summaries))
    last = next((number for number, end in enumerate(ends) if end >= limit), None)
    if last is None:
        log.warning(
            "%s: ends after %s bytes of text, before the limit of %s",
            reading.name, f"{ends[-1]:,}", f"{limit:,}",
        )  # fmt: skip
        return reading
    paths, summaries = reading.paths[: last + 1], reading.summaries[: last + 1]
    before = ends[last - 1] if last else 0
    ends_inside = list(
        accumulate((row["bytes"] for row in read_documents(paths[last])), initial=before)
    )[1:]
    taken = 1 + next(number for number, end in enumerate(ends_inside) if end >= limit)
    num_beyond = len(ends_inside) - taken
    num_documents = sum(summary["documents"] for summary in summaries) - num_beyond
    return Reading(reading.name, paths, summaries, num_documents, num_beyond)
