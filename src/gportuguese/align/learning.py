"""Learns rows before training, if the config asks for it: distillation, then the fit of the head."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from gportuguese import artifacts, causal_lm
from gportuguese.align.distillation import Windows, distill
from gportuguese.align.head_fit import fit_head
from gportuguese.align.resources import Resources
from gportuguese.align.saved_state import SavedState
from gportuguese.config import Config
from gportuguese.world import World

if TYPE_CHECKING:
    from transformers import PreTrainedModel

log = logging.getLogger("gportuguese")


def learn_rows(
    model: PreTrainedModel,
    source_VD: torch.Tensor,
    is_copied_V: np.ndarray,
    resources: Resources,
    out: Path,
    config: Config,
    world: World,
) -> dict[str, list[float]]:
    """Distils the new embedding rows and fits the head, if asked to; the losses, ten means of each.

    Each keeps its state in the scratch folder, so that an interrupted stage continues.
    """
    section, minutes = resources.section, config.runtime.checkpoint_minutes
    learnt: dict[str, list[float]] = {}
    if not (section.distill_tokens or section.head_tokens):
        return learnt
    model.to(world.device)
    if section.distill_tokens:
        end_of_text = int(resources.tokens.facts["end_of_text"])
        positions = causal_lm.num_positions(model)
        losses = distill(
            model,
            source_VD,
            resources.shuffled_blocks("distill_tokens"),
            Windows(resources.vocabularies, end_of_text, positions),
            is_copied_V,
            SavedState(out / artifacts.SCRATCH / "distillation.pt", minutes),
        )
        learnt["distillation"] = _tenths(losses)
        log.info("align: distance of hidden states %s", _first_and_last(learnt["distillation"]))
    if section.head_tokens:
        losses = fit_head(
            model,
            resources.shuffled_blocks("head_tokens", skipped=section.distill_tokens),
            resources.target_counts,
            SavedState(out / artifacts.SCRATCH / "head.pt", minutes),
        )
        learnt["head"] = _tenths(losses)
        log.info("align: nats per token %s", _first_and_last(learnt["head"]))
    model.to("cpu")
    return learnt


def _tenths(losses: list[float]) -> list[float]:
    """The mean of each tenth of the losses; fewer than ten losses as they are."""
    parts = np.array_split(np.array(losses), min(10, len(losses))) if losses else []
    return [round(float(part.mean()), 4) for part in parts]


def _first_and_last(means: list[float]) -> str:
    return f"{means[0]:.3f} -> {means[-1]:.3f}" if means else "not changed"
