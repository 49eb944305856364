"""The model card. All its numbers come from the run's manifests and report."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import yaml
from huggingface_hub import EvalResult, ModelCard, ModelCardData

from gportuguese.align_files import new_rows
from gportuguese.artifacts import Artifact
from gportuguese.config import (
    DUMP,
    METHODS,
    Config,
    SourceConfig,
    as_tree,
    is_url,
    sources_of,
    without_secrets,
)
from gportuguese.corpus.documents import is_on_hub
from gportuguese.corpus.exclusion import FEWEST_WORDS, NUM_WORDS, REASON
from gportuguese.epochs import epochs_markdown
from gportuguese.intervals import caution, shown
from gportuguese.progress import clock

_TEMPLATE = Path(__file__).parent / "card.jinja"
_METRICS = {
    "loss": "Loss (nats per token)",
    "accuracy": "Accuracy (next token)",
    "perplexity": "Perplexity (per token)",
    "bits_per_byte": "Bits per byte",
}
_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+|[\w-]+")


def make(
    config: Config, inputs: dict[str, Artifact], facts: dict[str, Any], files: list[str]
) -> ModelCard:
    """Builds the card of a run from its stages, the facts of the export, and the exported files."""
    corpus, training, target = inputs["corpus"], inputs["train"], sources_of(config.corpus)[0]
    evaluated, sources = inputs["evaluate"].facts, _sources(config, inputs)
    measures, prompts = evaluated["measures"], evaluated["prompts"]
    section = config.export
    architecture = json.loads((inputs["align"].folder / "config.json").read_text(encoding="utf-8"))
    model_type = architecture["model_type"]
    made: ModelCard = ModelCard.from_template(
        _data(config, inputs, measures, model_type, prompts),
        template_path=str(_TEMPLATE),
        title=section.title or config.name,
        repo=facts["repo"],
        base=_base(config, inputs),
        language=_language(config, inputs),
        parameters=facts["parameters"],
        documents=_documents(corpus.facts, sources),
        corpus_settings=config.corpus,
        min_chars=target.filter.min_chars,
        excluding=_excluding(config, corpus),
        is_dump=target.documents == DUMP,
        text=_text_of(target, inputs),
        sources=sources,
        others=_others(inputs["evaluate"]),
        tokens=inputs["tokens"].facts["tokens"],
        token_bytes=inputs["tokens"].facts["bytes"],
        block_size=config.tokens.block_size,
        vocab_size=config.tokenizer.vocab_size,
        kept_tokens=_kept_tokens(config, inputs),
        end_of_text=facts["end_of_text"],
        align=inputs["align"].facts,
        method_citation=_citation(inputs["align"].facts["method"]),
        measures=measures,
        changes=evaluated["changes"],
        shown=shown,
        caution=caution(each["documents"] for each in measures.values()),
        others_caution=caution(each["after"]["documents"] for each in evaluated.get("sources", ())),
        epochs=epochs_markdown(training),
        settings=yaml.safe_dump(as_tree(config.train), sort_keys=False, width=88).rstrip(),
        training=training.facts,
        time=clock(training.facts["train_seconds"]),
        versions=training.manifest["versions"],
        # a quoted string for both Python and the shell
        prompt=json.dumps((*prompts, "")[0], ensure_ascii=False),
        model_type=model_type,
        is_tied=architecture.get("tie_word_embeddings", True),  # KerasHub reads only tied GPT-2s
        samples=_samples(inputs["evaluate"]),
        checks=facts["differences"],
        files=files,
    )
    return made


def _data(
    config: Config,
    inputs: dict[str, Artifact],
    measures: dict[str, dict[str, float]],
    model_type: str,
    prompts: list[str],
) -> ModelCardData:
    """The metadata for the Hub.

    Results are listed only if others can find the data set of the first source by name: `export.dataset`,
    a Hub id, or the wiki and date of a Wikimedia dump.
    """
    section, sources = config.export, sources_of(config.corpus)
    read = [source for source in sources if source.weight != 0]  # others are only measured
    on_hub = [source.documents for source in read if is_on_hub(source)]
    name = section.dataset
    if name is None and sources[0].documents == DUMP:
        name = _wikimedia_dump(inputs)
    elif name is None and is_on_hub(sources[0]):
        name = on_hub[0]
    results = [
        EvalResult(
            task_type="text-generation",
            task_name="Text Generation",
            dataset_type=name,
            dataset_name=f"{name} ({split}, split by document)",
            dataset_split="validation" if split == "valid" else split,
            metric_type=metric,
            metric_name=metric_name,
            metric_value=round(values[metric], 6),
        )
        for split, values in measures.items()
        for metric, metric_name in _METRICS.items()
        if name is not None
    ]
    base = config.align.base if _base(config, inputs) is not None else None
    language = _language(config, inputs)
    return ModelCardData(
        # the Hub expects only the primary language: `be` for `be-tarask`
        language=language.partition("-")[0].lower() if language else None,
        license=section.license,
        library_name="transformers",
        pipeline_tag="text-generation",
        tags=["causal-lm", model_type, "gportuguese", *(["vocabulary-transfer"] if base else [])],
        datasets=[section.dataset] if section.dataset else list(dict.fromkeys(on_hub)) or None,
        base_model=base if isinstance(base, str) and _is_hub_id(base) else None,
        model_name=(section.title or config.name) if results else None,
        eval_results=results or None,
        widget=[{"text": prompt} for prompt in prompts],
    )


def _excluding(config: Config, corpus: Artifact) -> str:
    """Says which documents `corpus.exclude` dropped; empty if it is not set."""
    if not config.corpus.exclude:
        return ""
    # only the names: paths mean nothing to others
    names = ", ".join(f"`{Path(each).name}`" for each in config.corpus.exclude)
    dropped = corpus.facts["dropped"].get(REASON, 0)
    return (
        f"Documents that share {NUM_WORDS} words in a row with the evaluation texts {names} (or a whole "
        f"text of {FEWEST_WORDS} to {NUM_WORDS - 1} words) were dropped: {dropped:,}."
    )


def _kept_tokens(config: Config, inputs: dict[str, Artifact]) -> int | None:
    """How many tokens `tokenizer.method: extend` kept; None if the vocabulary is new."""
    if config.tokenizer.method == "retrain":
        return None
    return int((~new_rows(inputs["align"].folder)).sum())


def _citation(method: str) -> str:
    return METHODS[method].citation if method in METHODS else ""


def _is_hub_id(base: str) -> bool:
    return _HUB_ID.fullmatch(base) is not None and not Path(base).exists()


def _base(config: Config, inputs: dict[str, Artifact]) -> str | None:
    """The name of the base model; None if training started from random weights."""
    base = config.align.base
    if not isinstance(base, str) or inputs["align"].facts["method"] == "random":
        return None
    # only the name of a local folder or file: its path means nothing to others
    return base if _is_hub_id(base) else Path(base.removeprefix("package:")).name


def _language(config: Config, inputs: dict[str, Artifact]) -> str | None:
    return config.export.language or inputs["corpus"].facts["language"]


def _dump_facts(inputs: dict[str, Artifact]) -> dict[str, Any]:
    """The facts of the dump; empty if the run used the user's own documents."""
    return inputs["dump"].facts if "dump" in inputs else {}


def _documents(corpus: dict[str, Any], sources: list[dict[str, Any]]) -> dict[str, int]:
    """Documents by split; of several sources, all that are trained on and those of the first held out."""
    if not sources:
        return dict(corpus["documents"])
    distinct = sum(each["documents"] for each in sources)
    return {**corpus["sources"][0]["documents"], "train": distinct}


def _sources(config: Config, inputs: dict[str, Artifact]) -> list[dict[str, Any]]:
    """Each source and its part of the training text; empty if there is only one source.

    `documents` counts each document once, and `times` says how often a pass reads it, on average over its
    tokens: `tokens` counts it as often as it is read.
    """
    found = {each["name"]: each for each in inputs["corpus"].facts.get("sources", ())}
    texts = {source.name: _text_of(source, inputs) for source in sources_of(config.corpus)}
    return [
        {
            **part,
            # a source that is read once or more is read whole
            "documents": min(part["documents"], found[part["name"]]["documents"]["train"]),
            "times": max(part["repeats"], 1.0) if part["documents"] else 0.0,
            "text": texts[part["name"]],
            "language": found[part["name"]]["language"] or "",
        }
        for part in inputs["tokens"].facts.get("sources", ())
    ]


def _text_of(source: SourceConfig, inputs: dict[str, Artifact]) -> str:
    """Describes a source without the path of a local file, which means nothing to others."""
    if source.documents == DUMP:
        return f"{_dump_name(inputs)}, SHA-256 `{_dump_facts(inputs)['sha256'][:16]}…`"
    if is_on_hub(source):
        link = f"[{source.documents}](https://huggingface.co/datasets/{source.documents})"
        return f"{link}, `{source.subset}`" if source.subset else link
    return (
        without_secrets(source.documents)
        if is_url(source.documents)
        else "the author's own documents"
    )


def _others(evaluated: Artifact) -> str:
    """The table of the sources besides the first; empty if there are none."""
    path = evaluated.folder / "sources.md"
    return path.read_text(encoding="utf-8").rstrip() if path.exists() else ""


def _wikimedia_dump(inputs: dict[str, Artifact]) -> str | None:
    """Wiki and date of a dump from Wikimedia's host or a mirror, such as ptwiki-20260601."""
    date = _dump_facts(inputs).get("date")
    return f"{inputs['dump'].manifest['section']['wiki']}-{date}" if date else None


def _dump_name(inputs: dict[str, Artifact]) -> str:
    """Describes the dump for the card."""
    if name := _wikimedia_dump(inputs):
        wiki, date = name.rsplit("-", 1)
        return f"the Wikimedia dump `{wiki}` of {date[:4]}-{date[4:6]}-{date[6:]}"
    source = without_secrets(str(_dump_facts(inputs).get("source")))
    if source.startswith("package:"):
        return (
            f"the small encyclopedia `{source.removeprefix('package:')}` shipped with gportuguese"
        )
    return f"the MediaWiki dump `{source.rpartition('/')[2]}`"


def _samples(evaluated: Artifact) -> str:
    """The samples of the report, with headings one level lower."""
    text = (evaluated.folder / "samples.md").read_text(encoding="utf-8")
    return "\n".join(
        f"#{line}" if line.startswith("## ") else line for line in text.splitlines()[2:]
    )
