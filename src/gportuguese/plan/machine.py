"""The memory of this machine: RAM and GPUs, in all and free now."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

import torch

_MEMINFO = Path("/proc/meminfo")


@dataclass(frozen=True)
class Memory:
    """One memory of this machine."""

    kind: str
    """`cpu` or `cuda`."""
    name: str
    total_bytes: int
    free_bytes: int | None
    """What a new process could have; None where the system does not tell."""


def memories() -> list[Memory]:
    """RAM first, then each GPU."""
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    found = [Memory("cpu", "this machine", total, _available_bytes())]
    for index in range(torch.cuda.device_count()):
        free, total = torch.cuda.mem_get_info(index)
        name = f"this machine's {torch.cuda.get_device_name(index)}"
        found.append(Memory("cuda", name, total, free))
    return found


def _available_bytes() -> int | None:
    if not _MEMINFO.exists():  # not on macOS
        return None
    match = re.search(r"^MemAvailable: +(\d+) kB", _MEMINFO.read_text(), re.MULTILINE)
    return 1024 * int(match[1]) if match else None
