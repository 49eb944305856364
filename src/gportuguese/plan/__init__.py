"""What a run will take before it starts: tokens, FLOPs, memory, hours and money."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

import numpy as np

from gportuguese import causal_lm
from gportuguese.artifacts import Artifact
from gportuguese.config import Config, TrainConfig
from gportuguese.plan.counting import Step, StepCount, count_forward, count_step
from gportuguese.plan.cpu import CpuSpeed, measure_cpu
from gportuguese.plan.devices import CONTEXT_BYTES, DEVICES, Device, parse_prices
from gportuguese.plan.fitting import Remedy, remedies
from gportuguese.plan.machine import Memory, memories
from gportuguese.plan.schedule import PlanError, Schedule, make_schedule
from gportuguese.plan.shape import is_head_last, num_layers, read_shape
from gportuguese.progress import busy

__all__ = [
    "FIRST_STEP_BYTES",
    "PROGRAM_BYTES",
    "Plan",
    "PlanError",
    "Step",
    "StepCount",
    "count_forward",
    "count_step",
    "cpu_step_seconds",
    "make_plan",
    "make_schedule",
    "measure_cpu",
    "needed_bytes",
    "read_shape",
    "steps_of",
]

KINDS = ("cpu", "cuda")
PROGRAM_BYTES = 830_000_000
"""Resident set of the program before it has a model: Python, PyTorch, transformers, fastai."""
FIRST_STEP_BYTES = 130_000_000
"""What the libraries load and set up in the first step, with however small a model (torch 2.14)."""
HEAP_FACTOR = 1.3
"""Heap over the tensors on it, on the CPU: freed tensors leave gaps that later ones do not fill, and
`world.keep_freed_memory` gives none back. Measured 1.1 to 1.55 on nine steps of nano to GPT-2 small;
with a mapping for each tensor, at half the speed, there are no gaps (scripts/check_plan.py)."""


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


@dataclass(frozen=True)
class Cost:
    """What a run costs on one kind of device."""

    device: str
    note: str
    """Where the rate comes from, or why the device cannot run it."""
    hours: float | None
    best_hours: float | None
    usd: float | None
    """Of all processes."""
    usd_per_hour: float | None


@dataclass(frozen=True)
class Plan:
    """Everything that `gpt-pt plan` says."""

    name: str
    precision: str
    parameters: int
    schedule: Schedule
    steps: dict[str, tuple[Step, ...]]
    """By kind of device, one per phase."""
    counts: dict[str, tuple[StepCount, ...]]
    """The same."""
    forward_flops: float
    """Per token of the validation set."""
    flops: float
    """Of the whole run, validation included."""
    uncounted: tuple[str, ...]
    """Settings that are on and make a run cheaper than is said here."""
    costs: tuple[Cost, ...]
    fits: tuple[Fit, ...]
    cpu: CpuSpeed | None


def make_plan(
    config: Config,
    tokens: Artifact | None = None,
    *,
    assumed_tokens: int | None = None,
    processes: int = 1,
    prices: tuple[str, ...] = (),
    measure: bool = True,
) -> Plan:
    """The plan of a config; `tokens` is the finished stage, if it is there.

    Nothing is built or fetched. With `measure`, seconds go into timing this machine's CPU.
    Raises `PlanError` or `ModelError` for what cannot be planned.
    """
    usd_per_hour = parse_prices(list(prices))
    schedule = make_schedule(config, tokens, assumed_tokens)
    with busy("loading transformers"):
        shape = read_shape(config)
        head_is_last = is_head_last(shape)

    @functools.cache
    def count(step: Step) -> StepCount:
        with busy("counting a step"):
            return count_step(config, shape, step, head_is_last)

    steps = {kind: steps_of(config, kind, processes) for kind in KINDS}
    counts = {kind: tuple(count(step) for step in steps[kind]) for kind in KINDS}
    forward_flops = count_forward(config, shape, steps["cuda"][0], head_is_last)
    flops = schedule.validations * schedule.valid_tokens * forward_flops + sum(
        phase.tokens * counted.train_flops + phase.steps * processes * counted.update_flops
        for phase, counted in zip(schedule.phases, counts["cuda"], strict=True)
    )
    with busy("timing this CPU"):
        cpu = measure_cpu(config, shape, steps["cpu"][-1]) if measure else None
    costs = [
        _cost(device, config.train, flops, processes, usd_per_hour[device.name])
        for device in DEVICES
    ]
    if cpu is not None:
        costs.append(_cpu_cost(cpu, schedule, steps_of(config, "cpu"), shape))
    elif measure:
        how = f"in {config.train.precision} with {config.train.optimizer}"
        note = f"not measured: a step {how} would take too long"
        costs.append(Cost("this CPU", note, None, None, None, None))
    places = [
        *(Memory("cuda", each.name, 10**9 * gb, None) for each in DEVICES for gb in each.memory_gb),
        *memories(),
    ]
    fits = []
    for place in places:
        kind, memory = place.kind, place.total_bytes
        if kind == "cpu":
            memory //= processes
        worst = max(steps[kind], key=lambda step: count(step).peak_bytes)
        needed = needed_bytes(kind, count(worst).peak_bytes)

        def is_enough(peak: int, kind: str = kind, memory: int = memory) -> bool:
            return needed_bytes(kind, peak) <= memory

        ways = [] if needed <= memory else remedies(count, worst, is_enough)
        fits.append(Fit(place.name, memory, place.free_bytes, needed, tuple(ways)))
    return Plan(
        name=config.name,
        precision=config.train.precision,
        parameters=counts["cpu"][0].parameters,
        schedule=schedule,
        steps=steps,
        counts=counts,
        forward_flops=forward_flops,
        flops=flops,
        uncounted=tuple(
            f"runtime.{name}" for name in ("compile", "tf32") if getattr(config.runtime, name)
        ),
        costs=tuple(costs),
        fits=tuple(fits),
        cpu=cpu,
    )


def needed_bytes(kind: str, peak_bytes: int) -> int:
    """Memory of one process whose tensors take `peak_bytes`."""
    if kind == "cpu":
        return PROGRAM_BYTES + FIRST_STEP_BYTES + round(HEAP_FACTOR * peak_bytes)
    return CONTEXT_BYTES + peak_bytes


def steps_of(config: Config, device: str, processes: int = 1) -> tuple[Step, ...]:
    """The step of each phase on one of `processes` devices of a kind.

    Raises `PlanError` if the sequences of a step do not divide among them.
    """
    section, runtime = config.train, config.runtime
    at_once = runtime.micro_batch_size * processes
    if processes < 1 or section.global_batch_size % at_once:
        raise PlanError(
            f"--processes {processes}: train.global_batch_size={section.global_batch_size} does not "
            f"divide by {processes} x runtime.micro_batch_size={runtime.micro_batch_size}"
        )
    seen = 0
    steps = []
    for phase in section.phases:
        seen = max(seen, phase.trainable_groups)
        steps.append(
            Step(
                device=device,
                precision=section.precision,
                block_size=config.tokens.block_size,
                micro_batch_size=runtime.micro_batch_size,
                passes=section.global_batch_size // at_once,
                trainable_groups=phase.trainable_groups,
                state_groups=seen,
                vocab_multiple=runtime.vocab_multiple,
                processes=processes,
                loss_rows=runtime.loss_rows,
                activation_checkpointing=runtime.activation_checkpointing,
            )
        )
    return tuple(steps)


def _cost(
    device: Device, section: TrainConfig, flops: float, processes: int, usd_per_hour: float
) -> Cost:
    precision, note = section.precision, ""
    if precision not in device.peaks:
        others = " or ".join(name for name in device.peaks if name != "fp32")
        note = f"has no {precision}; set train.precision={others}"
    if section.optimizer == "muon" and "bf16" not in device.peaks:
        note = "has no bf16, in which Muon computes; set train.optimizer=adamw"
    if note:
        return Cost(device.name, note, None, None, None, usd_per_hour)
    hours, best = (
        flops / processes / device.flops_per_second(precision, is_best) / 3600
        for is_best in (False, True)
    )
    share = device.flops_per_second(precision) / device.peaks[precision]
    source = device.source if precision != "fp32" else "assumed share of its float32 peak"
    note = f"{100 * share:.0f} % of {device.peaks[precision] / 1e12:.0f} TFLOP/s: {source}"
    usd = processes * hours * usd_per_hour
    return Cost(device.name, note, hours, best, usd, usd_per_hour)


def _cpu_cost(cpu: CpuSpeed, schedule: Schedule, steps: tuple[Step, ...], shape: Any) -> Cost:
    seconds = sum(
        phase.steps * cpu_step_seconds(cpu, step, shape)
        for phase, step in zip(schedule.phases, steps, strict=True)
    )
    per_token = cpu.rest_seconds + num_layers(shape) * cpu.block_seconds
    validation = schedule.validations * schedule.valid_tokens
    hours = (seconds + validation * cpu.forward_share * per_token) / 3600
    note = (
        f"measured now: one process, {cpu.threads} threads, products at "
        f"{cpu.product_flops / 1e9:.0f} GFLOP/s"
    )
    return Cost("this CPU", note, hours, hours, None, None)


def cpu_step_seconds(cpu: CpuSpeed, step: Step, shape: Any) -> float:
    """Seconds of an optimizer step of one process on this machine's CPU."""
    blocks = num_layers(shape)
    runs = np.array_split(np.arange(blocks), causal_lm.NUM_GROUPS - 1)
    trained = sum(len(run) for run in runs[causal_lm.NUM_GROUPS - step.trainable_groups :])
    return cpu.step_seconds(step, blocks, trained)
