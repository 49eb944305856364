"""Whether a step fits into a memory, and which settings make it fit."""

from __future__ import annotations

import dataclasses
import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

import torch

from gportuguese.plan.devices import CONTEXT_BYTES, DEVICES
from gportuguese.plan.schedule import Step

PROGRAM_BYTES = 830_000_000
"""Resident set of the program before it has a model: Python, PyTorch, transformers, fastai."""
FIRST_STEP_BYTES = 130_000_000
"""What the libraries load and set up in the first step, with however small a model (torch 2.14)."""
HEAP_FACTOR = 1.3
"""Heap over the tensors on it, on the CPU: freed tensors leave gaps that later ones do not fill, and
`world.keep_freed_memory` gives none back. Measured 1.1 to 1.55 on nine steps of nano to GPT-2 small;
with a mapping for each tensor, at half the speed, there are no gaps (scripts/check_plan.py)."""
_FEWER_ROWS = 1024  # of logits at a time; much less costs time
_MEMINFO = Path("/proc/meminfo")
Count = Callable[[Step], tuple[int, float]]
"""The peak bytes of a step's tensors, and its FLOPs per token."""


@dataclass(frozen=True)
class Remedy:
    """Settings of `runtime` under which a step fits."""

    settings: dict[str, int | bool]
    peak_bytes: int
    flops_ratio: float
    """FLOPs of a step with them over those without."""


@dataclass(frozen=True)
class Fit:
    """Whether a run fits into one size of memory."""

    device: str
    memory_bytes: int
    free_bytes: int | None
    """Free now, of a memory of this machine."""
    needed_bytes: int
    remedies: tuple[Remedy, ...]
    """Ways to make it fit, where it does not."""


def needed_bytes(kind: str, peak_bytes: int) -> int:
    """Memory of one process whose tensors take `peak_bytes`."""
    if kind == "cpu":
        return PROGRAM_BYTES + FIRST_STEP_BYTES + round(HEAP_FACTOR * peak_bytes)
    return CONTEXT_BYTES + peak_bytes


def all_fits(count: Count, steps: dict[str, Step], processes: int) -> list[Fit]:
    """Whether the step of each kind of device fits into every card and into this machine."""
    fits = []
    for kind, name, memory, free in _memories():
        if kind == "cpu":
            memory //= processes
        step = steps[kind]
        needed = needed_bytes(kind, count(step)[0])

        def is_enough(peak: int, kind: str = kind, memory: int = memory) -> bool:
            return needed_bytes(kind, peak) <= memory

        ways = [] if needed <= memory else remedies(count, step, is_enough)
        fits.append(Fit(name, memory, free, needed, tuple(ways)))
    return fits


def remedies(count: Count, step: Step, fits: Callable[[int], bool]) -> list[Remedy]:
    """The ways to bring the peak of `step` to bytes that fit, with the fewest settings changed.

    A smaller micro-batch is the largest that fits and divides the sequences of a step.
    """
    sequences = step.micro_batch_size * step.passes
    levers: dict[str, list[int]] = {
        "micro_batch_size": [
            n for n in range(step.micro_batch_size - 1, 0, -1) if sequences % n == 0
        ]
    }
    if min(step.loss_rows, step.micro_batch_size * step.block_size) > _FEWER_ROWS:
        levers["loss_rows"] = [_FEWER_ROWS]
    if not step.activation_checkpointing:
        levers["activation_checkpointing"] = [True]

    def attempts(names: tuple[str, ...]) -> Iterator[Remedy]:
        first, *others = names
        for value in levers[first]:
            settings: dict[str, Any] = {first: value, **{name: levers[name][0] for name in others}}
            size = settings.get("micro_batch_size", step.micro_batch_size)
            changed = dataclasses.replace(step, passes=sequences // size, **settings)
            peak, flops = count(changed)
            if fits(peak):
                yield Remedy(settings, peak, flops / count(step)[1])

    for number in range(1, len(levers) + 1):
        found = [next(attempts(names), None) for names in combinations(levers, number)]
        if any(found):
            return [remedy for remedy in found if remedy is not None]
    return []


def _memories() -> Iterator[tuple[str, str, int, int | None]]:
    """Kind, name, bytes in all and free now: cards, then the RAM and the GPUs of this machine."""
    for device in DEVICES:
        for gigabytes in device.memory_gb:
            yield "cuda", device.name, 10**9 * gigabytes, None
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    yield "cpu", "this machine", total, _available_bytes()
    for index in range(torch.cuda.device_count()):
        free, total = torch.cuda.mem_get_info(index)
        yield "cuda", f"this machine's {torch.cuda.get_device_name(index)}", total, free


def _available_bytes() -> int | None:
    if not _MEMINFO.exists():  # not on macOS
        return None
    match = re.search(r"^MemAvailable: +(\d+) kB", _MEMINFO.read_text(), re.MULTILINE)
    return 1024 * int(match[1]) if match else None
