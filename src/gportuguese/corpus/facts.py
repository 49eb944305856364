"""What the corpus stage counts: of each source, in total, and of the dump's pages."""

from __future__ import annotations

import json
import logging
from collections import Counter
from pathlib import Path
from typing import Any

from gportuguese.config import CorpusConfig, SourceConfig
from gportuguese.corpus.exclusion import REASON
from gportuguese.corpus.pool import CorpusError
from gportuguese.corpus.shards import DROPPED_SAMPLES
from gportuguese.corpus.splits import SPLITS, Counts, Reading
from gportuguese.corpus.workers import SLOWEST

log = logging.getLogger("gportuguese")

_REMEDIES = {
    "train": "lower corpus.valid_per_mille and corpus.test_per_mille",
    "valid": "raise corpus.valid_per_mille",
    REASON: "remove files from corpus.exclude",
}


def facts_of_sources(
    sources: tuple[SourceConfig, ...], readings: list[Reading], counts: list[Counts]
) -> list[dict[str, Any]]:
    """What was read, dropped and kept of each source."""
    facts = []
    for source, reading, count in zip(sources, readings, counts, strict=True):
        dropped: Counter[str] = Counter()
        for summary in reading.summaries:
            dropped.update(summary["dropped"])
        dropped["after the limit"] = reading.num_beyond
        dropped["exact duplicate"] = count.copies
        text = sum(summary["bytes"] for summary in reading.summaries)
        facts.append({
            "name": source.name,
            "from": source.documents,
            "language": source.language,
            "pages": sum(summary["pages"] for summary in reading.summaries),
            "dropped": {reason: dropped[reason] for reason in sorted(+dropped)},
            "documents": {split: count.documents[split] for split in SPLITS},
            "bytes": {split: count.bytes[split] for split in SPLITS},
            "words": count.words,
            "missing_bytes": max((source.bytes or 0) - text, 0),
            **reading.facts,
        })  # fmt: skip
    return facts


def totals(of_sources: list[dict[str, Any]]) -> dict[str, Any]:
    """The counts of all sources added up."""
    dropped: Counter[str] = Counter()
    for facts in of_sources:
        dropped.update(facts["dropped"])
    return {
        "pages": sum(facts["pages"] for facts in of_sources),
        "dropped": dict(sorted(dropped.items())),
        "documents": {
            split: sum(facts["documents"][split] for facts in of_sources) for split in SPLITS
        },
        "words": sum(facts["words"] for facts in of_sources),
        "bytes": sum(sum(facts["bytes"].values()) for facts in of_sources),
    }


def collect_pages(readings: list[Reading], out: Path) -> dict[str, Any]:
    """Writes the samples of dropped pages and the pages set aside; returns what cleaning counted."""
    summaries = [summary for reading in readings for summary in reading.summaries]
    kept: Counter[str] = Counter()
    slowest: list[tuple[float, str]] = []
    over_limit: Counter[str] = Counter()
    with (
        (out / "dropped.jsonl").open("w", encoding="utf-8") as samples,
        (out / "quarantine.jsonl").open("w", encoding="utf-8") as quarantine,
    ):
        for reading, summary in (
            (each, summary) for each in readings for summary in each.summaries
        ):
            for row in summary["samples"]:
                kept[row["reason"]] += 1
                if kept[row["reason"]] <= DROPPED_SAMPLES:
                    if len(readings) > 1:
                        row = {**row, "id": f"{reading.name}/{row['id']}"}
                    samples.write(json.dumps(row, ensure_ascii=False) + "\n")
            for row in summary.get("quarantined", ()):
                quarantine.write(json.dumps(row, ensure_ascii=False) + "\n")
            over_limit.update(summary.get("over_limit", ()))
            slowest += [(seconds, title) for seconds, title in summary.get("slowest", ())]
    return {
        "faults": sum(summary.get("faults", 0) for summary in summaries),
        "dropped_sentences": sum(summary.get("dropped_sentences", 0) for summary in summaries),
        "templates_over_limit": dict(over_limit.most_common(SLOWEST)),
        "slowest_pages": [
            {"title": title, "milliseconds": round(1e3 * seconds, 1)}
            for seconds, title in sorted(slowest, reverse=True)[:SLOWEST]
        ],
    }


def check_splits(
    section: CorpusConfig, sources: tuple[SourceConfig, ...], of_sources: list[dict[str, Any]]
) -> None:
    """Raises `CorpusError` with remedies if a source leaves no documents, or the first none to validate.

    `sources` are those of the section with their defaults filled in.
    """
    for number, (settings, source) in enumerate(zip(sources, of_sources, strict=True)):
        needed = ("train", "valid") if number == 0 else ("train",)
        empty = next((split for split in needed if not source["documents"][split]), None)
        if empty is not None:
            of = "" if len(of_sources) == 1 else f" in source {source['name']}"
            causes = [*([empty] if sum(source["documents"].values()) else []), *source["dropped"]]
            at = f"corpus.sources[{number}]"
            given = section.sources[number] if section.sources else None
            has_filter = given is not None and given.filter.min_chars is not None
            known = {
                **_REMEDIES,
                "no text": f"give the rows a {settings.text!r}",
                "too short": f"lower {f'{at}.filter' if has_filter else 'corpus'}.min_chars",
                "limit": f"raise {at}.bytes",
            }
            if settings.bytes and not source["missing_bytes"]:
                causes.append("limit")
            remedies = [known[cause] for cause in causes if cause in known]
            counts = ", ".join(f"{number:,} {why}" for why, number in source["dropped"].items())
            raise CorpusError(
                f"no document for {empty}{of} among {source['pages']:,} pages or rows (dropped: "
                f"{counts or 'none'}); {', or '.join([*remedies, 'bring more text'])}"
            )
        if not source["documents"]["valid"]:
            log.warning("%s: no document for validation; raise its size", source["name"])
