"""Whether a step fits into a memory, and which settings make it fit."""

from __future__ import annotations

import bisect
import dataclasses
import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch

from gportuguese.plan.devices import CONTEXT_BYTES, DEVICES
from gportuguese.plan.schedule import Step

PROGRAM_BYTES = 830_000_000
"""Resident set of the program before it has a model: Python, PyTorch, transformers, fastai."""
FIRST_STEP_BYTES = 130_000_000
"""What the libraries load and set up in the first step, however small the model (torch 2.14)."""
HEAP_FACTOR = 1.3
"""Heap in relation to the tensors on it, on the CPU. Freed tensors leave gaps that later ones do not
fill, and `world.keep_freed_memory` keeps them. Measured 1.1 to 1.55 on nine steps of nano to GPT-2 small;
with a mapping for each tensor, at half the speed, there are no gaps (scripts/check_plan.py)."""
_MEMINFO = Path("/proc/meminfo")
PeakBytes = Callable[[Step], int]
"""The peak bytes of a step's tensors."""


@dataclass(frozen=True)
class Fit:
    """Whether a run fits into one size of memory."""

    device: str
    memory_bytes: int
    free_bytes: int | None
    """Free now; only known for memory of this machine."""
    needed_bytes: int
    remedy: dict[str, int | bool] | None
    """Settings of `runtime` with which it fits; empty if it fits anyway, None if nothing helps."""


def needed_bytes(kind: str, peak_bytes: int) -> int:
    """Memory of one process whose tensors take `peak_bytes`."""
    if kind == "cpu":
        return PROGRAM_BYTES + FIRST_STEP_BYTES + round(HEAP_FACTOR * peak_bytes)
    return CONTEXT_BYTES + peak_bytes


def all_fits(peak_bytes: PeakBytes, steps: dict[str, Step], processes: int) -> list[Fit]:
    """Whether the step of each kind of device fits into every card and into this machine."""
    fits = []
    for kind, name, memory, free in _memories():
        room, step = memory // processes if kind == "cpu" else memory, steps[kind]

        def is_enough(step: Step, kind: str = kind, room: int = room) -> bool:
            return needed_bytes(kind, peak_bytes(step)) <= room

        needed = needed_bytes(kind, peak_bytes(step))
        fits.append(
            Fit(name, room, free, needed, {} if needed <= room else remedy(step, is_enough))
        )
    return fits


def remedy(step: Step, fits: Callable[[Step], bool]) -> dict[str, int | bool] | None:
    """The largest micro-batch that fits, with activation checkpointing only if it has to be.

    A smaller micro-batch takes more passes for the same step. Checkpointing computes the blocks twice.
    """
    sequences = step.micro_batch_size * step.passes
    sizes = [n for n in range(1, step.micro_batch_size + 1) if sequences % n == 0]
    for again in sorted({step.activation_checkpointing, True}):

        def is_too_large(size: int, again: bool = again) -> bool:
            smaller = dataclasses.replace(step, micro_batch_size=size, passes=sequences // size)
            return not fits(dataclasses.replace(smaller, activation_checkpointing=again))

        if number := bisect.bisect_left(sizes, True, key=is_too_large):
            settings = {"micro_batch_size": sizes[number - 1], "activation_checkpointing": again}
            return {key: value for key, value in settings.items() if value != getattr(step, key)}
    return None


def _memories() -> Iterator[tuple[str, str, int, int | None]]:
    """Kind, name, bytes in all and bytes free now: cards, then the RAM and the GPUs of this machine."""
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
