"""The model card: every claim comes from the run's manifests and report, none is typed by hand."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import yaml
from huggingface_hub import EvalResult, ModelCard, ModelCardData

from gportuguese.artifacts import Artifact
from gportuguese.config import METHODS, Config, as_tree
from gportuguese.epochs import epochs_markdown
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
    """The card of a run, from its stages, what the export counted and checked, and its files."""
    corpus, training = inputs["corpus"], inputs["train"]
    measures, prompts = (inputs["evaluate"].facts[key] for key in ("measures", "prompts"))
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
        corpus=corpus.facts,
        corpus_settings=config.corpus,
        own_documents=config.corpus.documents is not None,
        dump=_dump_facts(inputs),
        dump_name=_dump_name(inputs),
        tokens=inputs["tokens"].facts["tokens"],
        token_bytes=inputs["tokens"].facts["bytes"],
        block_size=config.tokens.block_size,
        vocab_size=config.tokenizer.vocab_size,
        align=inputs["align"].facts,
        method_citation=_citation(inputs["align"].facts["method"]),
        measures=measures,
        epochs=epochs_markdown(training),
        settings=yaml.safe_dump(as_tree(config.train), sort_keys=False, width=88).rstrip(),
        training=training.facts,
        time=clock(training.facts["train_seconds"]),
        versions=training.manifest["versions"],
        # as Python and the shell write it
        prompt=json.dumps((*prompts, "")[0], ensure_ascii=False),
        model_type=model_type,
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
    """The metadata that the Hub reads.

    Results are listed only where the data set has a name that others can find it by: `export.dataset`,
    or the wiki and date of a Wikimedia dump.
    """
    section = config.export
    name = section.dataset or _wikimedia_dump(inputs)
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
        # the Hub knows languages by their first part, `be` of `be-tarask`
        language=language.partition("-")[0].lower() if language else None,
        license=section.license,
        library_name="transformers",
        pipeline_tag="text-generation",
        tags=["causal-lm", model_type, "gportuguese", *(["vocabulary-transfer"] if base else [])],
        datasets=[section.dataset] if section.dataset else None,
        base_model=base if isinstance(base, str) and _is_hub_id(base) else None,
        model_name=(section.title or config.name) if results else None,
        eval_results=results or None,
        widget=[{"text": prompt} for prompt in prompts],
    )


def _citation(method: str) -> str:
    return METHODS[method].citation if method in METHODS else ""


def _is_hub_id(base: str) -> bool:
    return _HUB_ID.fullmatch(base) is not None and not Path(base).exists()


def _base(config: Config, inputs: dict[str, Artifact]) -> str | None:
    """The name of the base model; None if training began from random weights."""
    base = config.align.base
    if not isinstance(base, str) or inputs["align"].facts["method"] == "random":
        return None
    # of a folder or file only the name: the rest of its path says nothing to others
    return base if _is_hub_id(base) else Path(base.removeprefix("package:")).name


def _language(config: Config, inputs: dict[str, Artifact]) -> str | None:
    return config.export.language or inputs["corpus"].facts["language"]


def _dump_facts(inputs: dict[str, Artifact]) -> dict[str, Any]:
    """What the dump's manifest says of it; nothing where documents were the user's own."""
    return inputs["dump"].facts if "dump" in inputs else {}


def _wikimedia_dump(inputs: dict[str, Artifact]) -> str | None:
    """Wiki and date of a dump that was found on Wikimedia's host or a mirror, as ptwiki-20260601."""
    date = _dump_facts(inputs).get("date")
    return f"{inputs['dump'].manifest['section']['wiki']}-{date}" if date else None


def _dump_name(inputs: dict[str, Artifact]) -> str:
    """The dump in words."""
    if name := _wikimedia_dump(inputs):
        wiki, date = name.rsplit("-", 1)
        return f"the Wikimedia dump `{wiki}` of {date[:4]}-{date[4:6]}-{date[6:]}"
    source = str(_dump_facts(inputs).get("source"))
    if source.startswith("package:"):
        return (
            f"the small encyclopedia `{source.removeprefix('package:')}` that gportuguese carries"
        )
    return f"the MediaWiki dump `{source.rpartition('/')[2]}`"


def _samples(evaluated: Artifact) -> str:
    """The samples of the report, one heading level lower."""
    text = (evaluated.folder / "samples.md").read_text(encoding="utf-8")
    return "\n".join(
        f"#{line}" if line.startswith("## ") else line for line in text.splitlines()[2:]
    )
