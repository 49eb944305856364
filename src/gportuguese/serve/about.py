"""Describes a model for the page, from its model card or from the manifests of its run."""

from __future__ import annotations

import json
import logging
import re
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import yaml
from huggingface_hub import ModelCard

from gportuguese import causal_lm
from gportuguese.artifacts import MANIFEST
from gportuguese.generation import Writer

_log = logging.getLogger(__name__)

_SMALL = 50_000_000
"""A model with fewer parameters is a toy."""
_FAR_FROM_FLOOR = 1.5
"""A model with more bits per byte above the floor is a toy."""
_MAX_PROMPTS, _MAX_PROMPT_CHARACTERS = 6, 300


@dataclass(frozen=True, kw_only=True)
class About:
    """Facts about a model, without guesses."""

    name: str
    """The name that clients use in requests."""
    title: str | None = None
    """The name that its author gave it."""
    parameters: int | None = None
    languages: tuple[str, ...] = ()
    prompts: tuple[str, ...] = ()
    """The prompts of its samples."""
    bits_per_byte: float | None = None
    """On the test set, or on the validation set if there is no test set."""
    is_toy: bool = False
    card: str | None = None
    """The text of its model card."""

    def as_json(self) -> dict[str, Any]:
        """All fields; instead of the card's text, whether there is one."""
        return {**asdict(self), "card": self.card is not None}


def describe(folder: Path, writer: Writer) -> About:
    """Reads the facts about a model from the card in its folder, or else from its run's manifests.

    A model is a toy if it has few parameters, or if its held-out bits per byte are far above the
    floor of its vocabulary. The floor is one bit per character (about the entropy of printed English,
    Shannon 1951) divided by the mean bytes per character of the vocabulary. It is about 1 bit per byte
    for Latin script and 0.5 for Cyrillic. If the bits per byte are unknown, only the number of
    parameters counts.
    """
    facts = _from_card(folder / "README.md") or _from_run(folder)
    parameters = causal_lm.count_parameters(writer.model.parameters())
    measured = facts.get("bits_per_byte")
    floor = 1 / writer.texts.bytes_per_character
    is_far = measured is not None and measured > floor + _FAR_FROM_FLOOR
    return About(
        name=model_name(folder),
        parameters=parameters,
        is_toy=parameters < _SMALL or is_far,
        **facts,
    )


def model_name(folder: Path) -> str:
    """The name that clients use: the Hub id, the folder's name, or the stage's name for `model`.

    >>> model_name(Path("artifacts/train-0f3a/model"))
    'train-0f3a'
    """
    cached = folder.parent.parent.name  # models--USER--NAME/snapshots/COMMIT in the Hub's cache
    if cached.startswith("models--"):
        return cached.removeprefix("models--").replace("--", "/")
    return folder.parent.name if folder.name == "model" else folder.name


def _from_card(path: Path) -> dict[str, Any]:
    """The facts in a model card; empty if there is none."""
    try:
        text = path.read_text(encoding="utf-8-sig")
        if not text.startswith("---"):
            return {"card": text}
        card = ModelCard(text, ignore_metadata_errors=True)
        data: Any = card.data
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, TypeError, KeyError, AttributeError, yaml.YAMLError) as error:
        _log.warning("cannot read %s as a model card: %s", path, error)
        return {}
    measured = {
        result.dataset_split: result.metric_value
        for result in data.eval_results or []
        if result.metric_type == "bits_per_byte" and isinstance(result.metric_value, int | float)
    }
    heading = re.search(r"^# (.+)", card.text, re.MULTILINE)
    widget = data.get("widget")
    examples = widget if isinstance(widget, list) else []
    return {
        "card": card.text.strip(),
        "title": data.model_name or (heading[1] if heading else None),
        "languages": _texts(data.language),
        "prompts": _texts([item.get("text") for item in examples if isinstance(item, dict)]),
        "bits_per_byte": measured.get("test", measured.get("validation")),
    }


def _from_run(folder: Path) -> dict[str, Any]:
    """The facts in the manifests of a run, for its `train-.../model`; empty for other folders."""
    root = folder.parent.parent
    training = _manifest(folder.parent, "train")
    if training is None or folder.name != "model":
        return {}
    facts: dict[str, Any] = {"title": training["name"]}
    corpus = _manifest(root / f"corpus-{training['inputs'].get('corpus')}", "corpus")
    if corpus:
        facts["languages"] = _texts(corpus["facts"].get("language"))
    for path in sorted(root.glob("evaluate-*")):
        evaluated = _manifest(path, "evaluate")
        if evaluated and evaluated["inputs"].get("train") == training["digest"]:
            measures = evaluated["facts"]["measures"]
            held_out = measures.get("test") or measures.get("valid") or {}
            facts["prompts"] = _texts(evaluated["facts"]["prompts"])
            facts["bits_per_byte"] = held_out.get("bits_per_byte")
    return facts


def _manifest(folder: Path, stage: str) -> dict[str, Any] | None:
    """The manifest of a stage folder; None if it is missing or belongs to another stage."""
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return manifest if isinstance(manifest, dict) and manifest.get("stage") == stage else None


def _texts(found: object) -> tuple[str, ...]:
    """The values that are non-empty text, cut to our limits; other people's cards may hold anything."""
    items = found if isinstance(found, list) else [found]
    texts = (item for item in items if isinstance(item, str) and item.strip())
    return tuple(text[:_MAX_PROMPT_CHARACTERS] for text in texts)[:_MAX_PROMPTS]
