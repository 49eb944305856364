"""What a run will take before it starts: tokens, FLOPs, memory, hours and money."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

from gportuguese.artifacts import Artifact
from gportuguese.config import Config, TrainConfig
from gportuguese.plan.cpu import CpuSpeed, cpu_step_seconds, measure_cpu
from gportuguese.plan.devices import DEVICES, Device, parse_prices
from gportuguese.plan.fits import Fit, all_fits, needed_bytes
from gportuguese.plan.flops import StepFlops, count_flops
from gportuguese.plan.memory import StepMemory, count_memory
from gportuguese.plan.schedule import PlanError, Schedule, Step, make_schedule, steps_of
from gportuguese.plan.shape import is_head_last, read_shape
from gportuguese.progress import busy

__all__ = [
    "Plan",
    "PlanError",
    "Step",
    "count_flops",
    "count_memory",
    "cpu_step_seconds",
    "make_plan",
    "make_schedule",
    "measure_cpu",
    "needed_bytes",
    "read_shape",
    "steps_of",
]

KINDS = ("cpu", "cuda")


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
    config: str | None = None
    """The shipped config for the device."""


@dataclass(frozen=True)
class Plan:
    """Everything that `gpt-pt plan` says."""

    name: str
    precision: str
    schedule: Schedule
    step: Step
    """On a GPU, of the phase that takes most memory."""
    phases: tuple[StepFlops, ...]
    memory: dict[str, StepMemory]
    """The most of any phase, by kind of device."""
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
    def memory_of(step: Step) -> StepMemory:
        with busy("counting a step"):
            return count_memory(config, shape, step, head_is_last)

    def count(step: Step) -> tuple[int, float]:
        return memory_of(step).peak_bytes, count_flops(config, shape, step).train

    steps = {kind: steps_of(config, kind, processes) for kind in KINDS}
    # the phase that trains most has the peak: moments that a later one keeps were there before
    largest = {
        kind: max(each, key=lambda step: step.trainable_groups) for kind, each in steps.items()
    }
    phases = tuple(count_flops(config, shape, step) for step in steps["cuda"])
    flops = schedule.validations * schedule.valid_tokens * phases[0].forward + sum(
        phase.tokens * counted.train + phase.steps * processes * counted.update
        for phase, counted in zip(schedule.phases, phases, strict=True)
    )
    with busy("timing this CPU"):
        cpu = measure_cpu(config, shape, largest["cpu"]) if measure else None
    costs = [
        _cost(device, config.train, flops, processes, usd_per_hour[device.name])
        for device in DEVICES
    ]
    unable = {cost.device for cost in costs if cost.hours is None}  # for lack of a precision
    if measure:
        alone = steps_of(config, "cpu")
        costs.append(_cpu_cost(cpu, config.train, schedule, alone, shape))
    return Plan(
        name=config.name,
        precision=config.train.precision,
        schedule=schedule,
        step=largest["cuda"],
        phases=phases,
        memory={kind: memory_of(step) for kind, step in largest.items()},
        flops=flops,
        uncounted=tuple(
            f"runtime.{name}" for name in ("compile", "tf32") if getattr(config.runtime, name)
        ),
        costs=tuple(costs),
        fits=tuple(fit for fit in all_fits(count, largest, processes) if fit.device not in unable),
        cpu=cpu,
    )


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
        return Cost(device.name, note, None, None, None, usd_per_hour, device.config)
    hours, best = (
        flops / processes / device.flops_per_second(precision, is_best) / 3600
        for is_best in (False, True)
    )
    share = device.flops_per_second(precision) / device.peaks[precision]
    source = device.source if precision != "fp32" else "assumed share of its float32 peak"
    note = f"{100 * share:.0f} % of {device.peaks[precision] / 1e12:.0f} TFLOP/s: {source}"
    usd = processes * hours * usd_per_hour
    return Cost(device.name, note, hours, best, usd, usd_per_hour, device.config)


def _cpu_cost(
    cpu: CpuSpeed | None,
    section: TrainConfig,
    schedule: Schedule,
    steps: tuple[Step, ...],
    shape: Any,
) -> Cost:
    if cpu is None:
        how = f"in {section.precision} with {section.optimizer}"
        note = f"not measured: a step {how} would take too long"
        return Cost("this CPU", note, None, None, None, None)
    seconds = sum(
        phase.steps * cpu_step_seconds(cpu, step, shape)
        for phase, step in zip(schedule.phases, steps, strict=True)
    )
    validation = schedule.validations * schedule.valid_tokens
    per_token = cpu.rest_seconds + shape.num_hidden_layers * cpu.block_seconds
    # a forward pass has a third of the FLOPs of a pass that trains everything
    hours = (seconds + validation * per_token / 3) / 3600
    note = (
        f"measured now: one process, {cpu.threads} threads, products at "
        f"{cpu.product_flops / 1e9:.0f} GFLOP/s"
    )
    return Cost("this CPU", note, hours, hours, None, None)
