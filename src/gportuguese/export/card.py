"""The model card, from the run's own manifests and report: nothing in it is typed by hand."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import yaml
from huggingface_hub import EvalResult, ModelCard, ModelCardData

from gportuguese.artifacts import Artifact
from gportuguese.config import Config, as_tree
from gportuguese.report import clock, epochs_markdown

_TEMPLATE = Path(__file__).parent / "card.jinja"
_METRICS = {
    "loss": "Loss (nats per token)",
    "accuracy": "Accuracy (next token)",
    "perplexity": "Perplexity (per token)",
    "bits_per_byte": "Bits per byte",
}
_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+|[\w-]+")


def make(
    config: Config, inputs: dict[str, Artifact], checks: dict[str, Any], files: list[str]
) -> ModelCard:
    """The card of a run; `inputs` are its stages, `checks` what was compared of the formats."""
    corpus, training = inputs["corpus"], inputs["train"]
    measures, prompts = (inputs["evaluate"].facts[key] for key in ("measures", "prompts"))
    base = config.align.base
    section = config.export
    architecture = json.loads((inputs["align"].folder / "config.json").read_text(encoding="utf-8"))
    made: ModelCard = ModelCard.from_template(
        _data(config, measures, _language(config, inputs), architecture["model_type"], prompts),
        template_path=str(_TEMPLATE),
        title=section.title or config.name,
        repo=section.repo or f"user/{config.name}",
        base=base if isinstance(base, str) else "none: random weights",
        language=_language(config, inputs),
        corpus=corpus.facts,
        corpus_settings=config.corpus,
        own_documents=config.corpus.documents is not None,
        dump=_dump_of(inputs),
        tokens=inputs["tokens"].facts["tokens"],
        token_bytes=inputs["tokens"].facts["bytes"],
        block_size=config.tokens.block_size,
        vocab_size=config.tokenizer.vocab_size,
        align=inputs["align"].facts,
        measures=measures,
        epochs=epochs_markdown(training),
        settings=yaml.safe_dump(as_tree(config.train), sort_keys=False, width=88).rstrip(),
        training=training.facts,
        time=clock(training.facts["train_seconds"]),
        versions=training.manifest["versions"],
        prompts=prompts,
        samples=_samples(inputs["evaluate"]),
        checks=checks["differences"],
        files=files,
    )
    return made


def _data(
    config: Config,
    measures: dict[str, dict[str, float]],
    language: str | None,
    model_type: str,
    prompts: list[str],
) -> ModelCardData:
    """The metadata that the Hub reads, with a `model-index` of what was measured."""
    section, base = config.export, config.align.base
    is_own = config.corpus.documents is not None
    dataset = section.dataset or (None if is_own else "wikimedia/wikipedia")
    results = [
        EvalResult(
            task_type="text-generation",
            task_name="Text Generation",
            dataset_type=dataset or "text",
            dataset_name=f"{dataset or 'own documents'} ({split}, split by document)",
            dataset_split="validation" if split == "valid" else split,
            metric_type=metric,
            metric_name=name,
            metric_value=round(values[metric], 6),
        )
        for split, values in measures.items()
        for metric, name in _METRICS.items()
    ]
    return ModelCardData(
        language=language,
        license=section.license,
        library_name="transformers",
        pipeline_tag="text-generation",
        tags=["causal-lm", model_type, "gportuguese", "vocabulary-transfer"],
        datasets=[dataset] if dataset else None,
        base_model=base if isinstance(base, str) and _is_hub_id(base) else None,
        model_name=section.title or config.name,
        eval_results=results or None,
        widget=[{"text": prompt} for prompt in prompts],
    )


def _is_hub_id(base: str) -> bool:
    return _HUB_ID.fullmatch(base) is not None and not Path(base).exists()


def _language(config: Config, inputs: dict[str, Artifact]) -> str | None:
    return config.export.language or inputs["corpus"].facts["language"]


def _dump_of(inputs: dict[str, Artifact]) -> dict[str, Any]:
    """What the dump's manifest says of it; nothing where documents were the user's own."""
    return inputs["dump"].facts if "dump" in inputs else {}


def _samples(evaluated: Artifact) -> str:
    """The samples of the report, one heading level lower."""
    text = (evaluated.folder / "samples.md").read_text(encoding="utf-8")
    return "\n".join(
        f"#{line}" if line.startswith("## ") else line for line in text.splitlines()[2:]
    )
