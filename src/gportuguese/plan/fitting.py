"""Which settings make a step fit into a memory, found by counting it with them."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import combinations

from gportuguese.plan.counting import Step, StepCount

_FEWER_ROWS = 1024  # of logits at a time; much less costs time


@dataclass(frozen=True)
class Remedy:
    """Settings under which a step fits."""

    settings: dict[str, int | bool]
    """Keys of `runtime`."""
    peak_bytes: int
    flops_ratio: float
    """FLOPs of a step with them over those without."""


def remedies(
    count: Callable[[Step], StepCount], step: Step, fits: Callable[[int], bool]
) -> list[Remedy]:
    """The ways to bring the peak of `step` to bytes that fit, with the fewest settings changed.

    A smaller micro-batch is the largest that fits and divides the sequences of a step.
    """
    sequences = step.micro_batch_size * step.passes
    smaller = [n for n in range(step.micro_batch_size - 1, 0, -1) if sequences % n == 0]
    levers: dict[str, int | bool] = {}
    if min(step.loss_rows, step.micro_batch_size * step.block_size) > _FEWER_ROWS:
        levers["loss_rows"] = _FEWER_ROWS
    if not step.activation_checkpointing:
        levers["activation_checkpointing"] = True

    def attempt(size: int, keys: Iterable[str]) -> Remedy | None:
        settings = {key: levers[key] for key in keys}
        if size != step.micro_batch_size:
            settings["micro_batch_size"] = size
        changes: dict[str, int | bool] = {"passes": sequences // size, **settings}
        counted = count(dataclasses.replace(step, **changes))  # type: ignore[arg-type]
        if not fits(counted.peak_bytes):
            return None
        return Remedy(settings, counted.peak_bytes, counted.train_flops / count(step).train_flops)

    for number in range(1, len(levers) + 2):
        found = [
            *(
                next(filter(None, (attempt(size, keys) for size in smaller)), None)
                for keys in combinations(levers, number - 1)
            ),
            *(attempt(step.micro_batch_size, keys) for keys in combinations(levers, number)),
        ]
        if any(found):
            return [remedy for remedy in found if remedy is not None]
    return []
