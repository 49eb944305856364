"""What the page says of a model, from what lies beside it: its card, or its run's manifests."""

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
from gportuguese.generate import Writer

_log = logging.getLogger(__name__)

_SMALL = 50_000_000
"""Parameters below which a model is called a toy."""
_FAR_FROM_FLOOR = 1.5
"""Bits per byte above the floor beyond which it is called one."""
_MAX_PROMPTS, _MAX_PROMPT_CHARACTERS = 6, 300


@dataclass(frozen=True, kw_only=True)
class About:
    """What is known of a model; nothing is guessed."""

    name: str
    """What clients call it."""
    title: str | None = None
    """What its maker calls it."""
    parameters: int | None = None
    languages: tuple[str, ...] = ()
    prompts: tuple[str, ...] = ()
    """Those of its run's samples."""
    bits_per_byte: float | None = None
    """On held-out text: the test set, or else the validation set."""
    is_toy: bool = False
    card: str | None = None
    """The text of its model card."""

    def as_json(self) -> dict[str, Any]:
        """All but the card's text, of which only the existence is told."""
        return {**asdict(self), "card": self.card is not None}


def describe(folder: Path, writer: Writer) -> About:
    """What the card in a model folder says, or the manifests of the run that it belongs to.

    A model is a toy if it has few parameters, or if its held-out bits per byte are far above the
    floor of its vocabulary. The floor is one bit per character, the order of the entropy of printed
    English (Shannon 1951), divided by the mean bytes per character of the vocabulary. It is about
    1 bit per byte for Latin script and 0.5 for Cyrillic. A model whose bits per byte are not known
    is judged by its parameters alone.
    """
    known = _of_card(folder / "README.md") or _of_run(folder)
    parameters = causal_lm.count_parameters(writer.model.parameters())
    measured = known.get("bits_per_byte")
    floor = 1 / writer.texts.bytes_per_character
    is_far = measured is not None and measured > floor + _FAR_FROM_FLOOR
    return About(
        name=model_name(folder),
        parameters=parameters,
        is_toy=parameters < _SMALL or is_far,
        **known,
    )


def model_name(folder: Path) -> str:
    """What clients call the model: its Hub id, its folder's name, or the stage's for `model`.

    >>> model_name(Path("artifacts/train-0f3a/model"))
    'train-0f3a'
    """
    cached = folder.parent.parent.name  # models--USER--NAME/snapshots/COMMIT in the Hub's cache
    if cached.startswith("models--"):
        return cached.removeprefix("models--").replace("--", "/")
    return folder.parent.name if folder.name == "model" else folder.name


def _of_card(path: Path) -> dict[str, Any]:
    """What a model card holds; empty if there is none."""
    try:
        text = path.read_text(encoding="utf-8-sig")
        if not text.startswith("---"):
            return {"card": text}
        card = ModelCard(text, ignore_metadata_errors=True)
        data: Any = card.data
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, TypeError, KeyError, AttributeError, yaml.YAMLError) as error:
        _log.warning("%s is not a model card: %s", path, error)
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


def _of_run(folder: Path) -> dict[str, Any]:
    """What the stages around `train-.../model` hold; empty if there are none."""
    root = folder.parent.parent
    training = _manifest(folder.parent, "train")
    if training is None or folder.name != "model":
        return {}
    known: dict[str, Any] = {"title": training["name"]}
    corpus = _manifest(root / f"corpus-{training['inputs'].get('corpus')}", "corpus")
    if corpus:
        known["languages"] = _texts(corpus["facts"].get("language"))
    for path in sorted(root.glob("evaluate-*")):
        evaluated = _manifest(path, "evaluate")
        if evaluated and evaluated["inputs"].get("train") == training["digest"]:
            measures = evaluated["facts"]["measures"]
            held_out = measures.get("test") or measures.get("valid") or {}
            known["prompts"] = _texts(evaluated["facts"]["prompts"])
            known["bits_per_byte"] = held_out.get("bits_per_byte")
    return known


def _manifest(folder: Path, stage: str) -> dict[str, Any] | None:
    """The manifest of a stage folder; None if there is none."""
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return manifest if isinstance(manifest, dict) and manifest.get("stage") == stage else None


def _texts(found: object) -> tuple[str, ...]:
    """The usable ones of what should be texts: a card from elsewhere may hold anything."""
    items = found if isinstance(found, list) else [found]
    texts = (item for item in items if isinstance(item, str) and item.strip())
    return tuple(text[:_MAX_PROMPT_CHARACTERS] for text in texts)[:_MAX_PROMPTS]
