"""The corpus stage: clean documents from a dump, with counted drop reasons and leak-free splits."""

from __future__ import annotations

import json
import time
from collections import Counter
from pathlib import Path
from typing import Any

from gportuguese import artifacts, dump
from gportuguese.artifacts import Artifact
from gportuguese.config import Config, EvaluateConfig
from gportuguese.corpus.cleaning import Document, Dropped, clean_page
from gportuguese.corpus.documents import document_files, hash_documents, write_shards
from gportuguese.corpus.exclusion import REASON
from gportuguese.corpus.exclusion_files import hash_excluded, write_excluded
from gportuguese.corpus.openings import NUM_PROMPTS, PROBES, PROMPTS, opening_of
from gportuguese.corpus.pool import CorpusError, clean_dump
from gportuguese.corpus.shards import DROPPED_SAMPLES, shard_path
from gportuguese.corpus.splits import SPLITS, Split, load, split_of, titles, write_splits
from gportuguese.corpus.workers import SLOWEST, Job
from gportuguese.progress import track
from gportuguese.wikitext import language_of
from gportuguese.world import World

__all__ = [
    "SPLITS",
    "CorpusError",
    "Document",
    "Dropped",
    "Split",
    "build",
    "clean_page",
    "document_files",
    "hash_documents",
    "hash_excluded",
    "load",
    "probe_of",
    "prompts_of",
    "split_of",
    "titles",
]

_REMEDIES = {
    "train": "lower corpus.valid_per_mille and corpus.test_per_mille",
    "valid": "raise corpus.valid_per_mille",
    "too short": "lower corpus.min_chars",
    "no text": "give the rows a 'text'",
    REASON: "remove files from corpus.exclude",
}


def build(config: Config, inputs: dict[str, Artifact], out: Path, world: World) -> dict[str, Any]:
    """Writes `train|valid|test.parquet`, `dropped.jsonl` and `quarantine.jsonl`; returns the counts.

    With a dump it reuses the shards of an interrupted run; your own documents are read again. Memory
    is a constant per worker, and about 400 bytes per document for finding duplicates.
    """
    section = config.corpus
    language = section.language
    shards = out / artifacts.SCRATCH
    shards.mkdir(exist_ok=True)
    start = time.monotonic()
    if section.exclude:
        write_excluded(section, shards)
    if section.documents is None:
        language = language or str(inputs["dump"].facts["language"])
        paths, summaries = _clean(inputs["dump"], config, shards, world)
    else:
        written = list(write_shards(section, shards))
        paths, summaries = [path for path, _ in written], [summary for _, summary in written]
    cleaned = time.monotonic()
    facts = {
        "language": language,
        **_summed(summaries, out),
        **write_splits(paths, section, out),
    }
    facts["dropped"] = dict(sorted((facts["dropped"] + facts.pop("duplicates")).items()))
    faults = facts.pop("faults")
    if section.documents is None:
        facts["faults_per_mb"] = round(faults / max(facts["bytes"], 1) * 1e6, 3)
    else:  # your own documents keep every sentence
        del facts["dropped_sentences"]
    facts["seconds"] = {
        "cleaning": round(cleaned - start, 1),
        "duplicates_and_split": round(time.monotonic() - cleaned, 1),
    }
    _check_splits(facts)
    return facts


def prompts_of(section: EvaluateConfig, artifact: Artifact) -> list[str]:
    """`evaluate.prompts`; if null, the prompts shipped for the corpus's language.

    For a language without shipped prompts, the openings of held-out documents.
    """
    if section.prompts is not None:
        return list(section.prompts)
    if shipped := PROMPTS.get(_language_of(artifact)):
        return list(shipped)
    openings = map(opening_of, next(load(artifact, "valid")))
    return [opening for opening in dict.fromkeys(openings) if opening][:NUM_PROMPTS]


def probe_of(artifact: Artifact) -> str:
    """A sentence in the corpus's language, or the opening of a held-out document."""
    shipped = PROBES.get(_language_of(artifact))
    return shipped or opening_of(next(load(artifact, "valid"))[0])


def _language_of(artifact: Artifact) -> str:
    """Language code without region: `pt` for `pt-BR`; empty if unknown."""
    return str(artifact.facts["language"] or "").lower().partition("-")[0]


def _check_splits(facts: dict[str, Any]) -> None:
    """Raises `CorpusError` with remedies if the training or validation split is empty."""
    documents, dropped = facts["documents"], facts["dropped"]
    empty = next((split for split in ("train", "valid") if not documents[split]), None)
    if empty is None:
        return
    causes = [*([empty] if sum(documents.values()) else []), *dropped]
    remedies = [_REMEDIES[cause] for cause in causes if cause in _REMEDIES]
    counts = ", ".join(f"{number:,} {reason}" for reason, number in dropped.items())
    raise CorpusError(
        f"no document for {empty} among {facts['pages']:,} pages or rows (dropped: "
        f"{counts or 'none'}); {', or '.join([*remedies, 'bring more text'])}"
    )


def _clean(
    artifact: Artifact, config: Config, shards: Path, world: World
) -> tuple[list[Path], list[dict[str, Any]]]:
    """Paths and summaries of a dump's shards, in the order of the dump."""
    path = dump.load(artifact, config.dump)
    language = language_of(str(artifact.facts["language"]), dump.read_header(path).namespaces)
    job = Job(path, config.corpus, language, shards)
    summaries: dict[int, dict[str, Any]] = {}
    num_pages = new_pages = 0
    earlier, start = set(shards.glob("*.jsonl")), time.monotonic()
    with track("corpus", path.stat().st_size) as advance:
        for piece, summary in clean_dump(job, world.num_workers):
            summaries[piece.number] = summary
            num_pages += summary["pages"]
            is_resumed = shard_path(shards, piece.number) in earlier
            new_pages += 0 if is_resumed else summary["pages"]
            note = f"{new_pages / (time.monotonic() - start):,.0f} pages/s" if new_pages else ""
            advance(piece.end - piece.start, note, resumed=is_resumed)
    if not num_pages:
        raise CorpusError(f"{path} holds no pages; is it a pages-articles dump?")
    numbers = sorted(summaries)
    return [shard_path(shards, n) for n in numbers], [summaries[n] for n in numbers]


def _summed(summaries: list[dict[str, Any]], out: Path) -> dict[str, Any]:
    """The summaries added up; writes the samples of dropped pages and the pages set aside."""
    dropped: Counter[str] = Counter()
    kept: Counter[str] = Counter()
    slowest: list[tuple[float, str]] = []
    over_limit: Counter[str] = Counter()
    with (
        (out / "dropped.jsonl").open("w", encoding="utf-8") as samples,
        (out / "quarantine.jsonl").open("w", encoding="utf-8") as quarantine,
    ):
        for summary in summaries:
            dropped.update(summary["dropped"])
            for row in summary["samples"]:
                kept[row["reason"]] += 1
                if kept[row["reason"]] <= DROPPED_SAMPLES:
                    samples.write(json.dumps(row, ensure_ascii=False) + "\n")
            for row in summary.get("quarantined", ()):
                quarantine.write(json.dumps(row, ensure_ascii=False) + "\n")
            over_limit.update(summary.get("over_limit", ()))
            slowest += [(seconds, title) for seconds, title in summary.get("slowest", ())]
    return {
        "pages": sum(summary["pages"] for summary in summaries),
        "dropped": dropped,
        "faults": sum(summary.get("faults", 0) for summary in summaries),
        "dropped_sentences": sum(summary.get("dropped_sentences", 0) for summary in summaries),
        "templates_over_limit": dict(over_limit.most_common(SLOWEST)),
        "slowest_pages": [
            {"title": title, "milliseconds": round(1e3 * seconds, 1)}
            for seconds, title in sorted(slowest, reverse=True)[:SLOWEST]
        ],
    }
