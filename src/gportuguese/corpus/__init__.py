"""The corpus stage: clean documents from a dump, with counted drop reasons and leak-free splits."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from gportuguese import artifacts
from gportuguese.artifacts import Artifact
from gportuguese.config import DUMP, Config, EvaluateConfig, sources_of, uses_dump
from gportuguese.corpus.cleaning import Document, Dropped, clean_page
from gportuguese.corpus.documents import check_sources, identify_sources, read_source
from gportuguese.corpus.exclusion_files import check_excluded, hash_excluded, write_excluded
from gportuguese.corpus.facts import check_splits, collect_pages, facts_of_sources, totals
from gportuguese.corpus.openings import NUM_PROMPTS, PROBES, PROMPTS, opening_of
from gportuguese.corpus.pages import read_dump
from gportuguese.corpus.pool import CorpusError
from gportuguese.corpus.splits import (
    SPLITS,
    Reading,
    Split,
    load,
    rows_of,
    split_of,
    titles,
    write_splits,
)
from gportuguese.world import World

__all__ = [
    "SPLITS",
    "CorpusError",
    "Document",
    "Dropped",
    "Split",
    "build",
    "check_excluded",
    "check_sources",
    "clean_page",
    "hash_excluded",
    "identify_sources",
    "load",
    "probe_of",
    "prompts_of",
    "rows_of",
    "split_of",
    "target_sources",
    "titles",
]


def build(config: Config, inputs: dict[str, Artifact], out: Path, world: World) -> dict[str, Any]:
    """Writes `train|valid|test.parquet`, `dropped.jsonl` and `quarantine.jsonl`; returns the counts.

    It reuses the shards of an interrupted run. Memory is a constant per worker, and about 400 bytes per
    document for finding duplicates. With `corpus.sources`, `facts["sources"]` holds the counts of each
    in their order; with several of them the Parquet files have a column `source` with its name.
    """
    section = config.corpus
    sources = tuple(
        replace(source, language=source.language or str(inputs["dump"].facts["language"]))
        if source.documents == DUMP
        else source
        for source in sources_of(section)
    )
    shards = out / artifacts.SCRATCH
    start = time.monotonic()
    folders = [shards / f"{number:03d}" for number in range(len(sources))]
    if len(sources) == 1:
        folders = [shards]
    for folder in folders:
        folder.mkdir(parents=True, exist_ok=True)
    if section.exclude:
        write_excluded(section, shards)
    found: dict[str, Reading] = {}
    # the dump last: it takes hours, and wrong settings of the others show before
    for source, folder in sorted(
        zip(sources, folders, strict=True), key=lambda pair: pair[0].documents == DUMP
    ):
        description = "corpus" if len(sources) == 1 else f"corpus: {source.name}"
        if source.documents == DUMP:
            found[str(source.name)] = read_dump(
                inputs["dump"], config, source, folder, world, excluded=shards
            )
        else:
            found[str(source.name)] = read_source(
                section, source, folder, description, excluded=shards
            )
    readings = [found[str(source.name)] for source in sources]
    cleaned = time.monotonic()
    counted = collect_pages(readings, out)
    written = write_splits(readings, section, out)
    of_sources = facts_of_sources(sources, readings, written.pop("counts"))
    facts = {"language": sources[0].language, **totals(of_sources), **counted, **written}
    faults = facts.pop("faults")
    if uses_dump(section):
        num_bytes = sum(sum(each["bytes"].values()) for each in of_sources if each["from"] == DUMP)
        facts["faults_per_mb"] = round(faults / max(num_bytes, 1) * 1e6, 3)
    else:  # your own documents keep every sentence
        del facts["dropped_sentences"]
    if section.sources:
        facts["sources"] = of_sources
    facts["seconds"] = {
        "cleaning": round(cleaned - start, 1),
        "duplicates_and_split": round(time.monotonic() - cleaned, 1),
    }
    check_splits(section, sources, of_sources)
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


def target_sources(artifact: Artifact) -> list[str] | None:
    """The names of the sources in the language of the first one; None if there is only one source.

    A source without a language counts as one of them.
    """
    sources = artifact.facts.get("sources", [])
    if len(sources) < 2:
        return None
    target = _language_of(artifact)
    return [each["name"] for each in sources if _primary(each["language"] or target) == target]


def _language_of(artifact: Artifact) -> str:
    """Language code without region: `pt` for `pt-BR`; empty if unknown."""
    return _primary(artifact.facts["language"] or "")


def _primary(language: str) -> str:
    return language.lower().partition("-")[0]
