"""Estimates what a run takes before it starts: tokens, FLOPs, memory, hours and money."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

from gportuguese.artifacts import Artifact
from gportuguese.config import Config, TrainConfig
from gportuguese.plan.cpu import CpuSpeed, cpu_step_seconds, measure_cpu
from gportuguese.plan.devices import DEVICES, Device
from gportuguese.plan.fits import Fit, all_fits, needed_bytes
from gportuguese.plan.flops import StepFlops, count_flops
from gportuguese.plan.memory import StepMemory, count_memory
from gportuguese.plan.schedule import PlanError, Schedule, Step, make_schedule, steps_of
from gportuguese.plan.shape import count_new_rows, is_head_last, read_shape
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
    """Where the speed comes from, or why the device cannot run it."""
    hours: float | None = None
    usd: float | None = None
    """Of all processes."""
    config: str | None = None
    """The shipped config for the device."""


@dataclass(frozen=True)
class Plan:
    """Everything that `gpt-pt plan` prints."""

    name: str
    precision: str
    schedule: Schedule
    step: Step
    """On a GPU, in the phase that needs most memory."""
    phases: tuple[StepFlops, ...]
    memory: dict[str, StepMemory]
    """The most of any phase, by kind of device."""
    flops: float
    """Of the whole run, validation included."""
    new_rows: int | None
    """Rows that alignment will not copy; None if that is not known before it, or if no setting asks."""
    uncounted: tuple[str, ...]
    """Enabled settings whose speed-up the hours do not include."""
    costs: tuple[Cost, ...]
    fits: tuple[Fit, ...]
    cpu: CpuSpeed | None


def make_plan(
    config: Config,
    tokens: Artifact | None = None,
    *,
    assumed_tokens: int | None = None,
    processes: int = 1,
    measure: bool = True,
) -> Plan:
    """The plan of a config; `tokens` is the finished stage, if there is one.

    Builds and fetches nothing. With `measure`, it spends seconds on timing this machine's CPU. Raises
    `PlanError` or `ModelError` for a config that cannot be planned.
    """
    schedule = make_schedule(config, tokens, assumed_tokens)
    with busy("loading transformers"):
        shape = read_shape(config)
        head_is_last = is_head_last(shape)

    @functools.cache
    def memory_of(step: Step) -> StepMemory:
        with busy("counting a step"):
            return count_memory(config, shape, step, head_is_last)

    new_rows = None
    if config.tokenizer.method == "extend" or any(
        phase.trainable == "new_rows" for phase in config.train.phases
    ):
        with busy("reading the base's tokenizer"):
            new_rows = count_new_rows(config)
    steps = {kind: steps_of(config, kind, processes, new_rows) for kind in KINDS}
    # The phase that trains most has the peak: later ones keep the optimizer's state for its groups.
    largest = {
        kind: max(each, key=lambda step: (step.trainable_groups, step.new_rows is not None))
        for kind, each in steps.items()
    }
    phases = tuple(count_flops(config, shape, step) for step in steps["cuda"])
    flops = schedule.validations * schedule.valid_tokens * phases[0].forward + sum(
        phase.tokens * counted.train + phase.steps * processes * counted.update
        for phase, counted in zip(schedule.phases, phases, strict=True)
    )
    costs = [_cost(device, config.train, flops, processes) for device in DEVICES]
    unable = {cost.device for cost in costs if cost.hours is None}  # for lack of a precision
    cpu = None
    if measure:
        with busy("timing this CPU"):
            cpu = measure_cpu(config, shape, largest["cpu"])
        costs.append(_cpu_cost(cpu, config, schedule, shape))
    return Plan(
        name=config.name,
        precision=config.train.precision,
        schedule=schedule,
        step=largest["cuda"],
        phases=phases,
        memory={kind: memory_of(step) for kind, step in largest.items()},
        flops=flops,
        new_rows=new_rows,
        uncounted=tuple(
            f"runtime.{name}" for name in ("compile", "tf32") if getattr(config.runtime, name)
        ),
        costs=tuple(costs),
        fits=tuple(
            fit
            for fit in all_fits(lambda step: memory_of(step).peak_bytes, largest, processes)
            if fit.device not in unable
        ),
        cpu=cpu,
    )


def _cost(device: Device, section: TrainConfig, flops: float, processes: int) -> Cost:
    precision, note = section.precision, ""
    if precision not in device.peaks:
        others = " or ".join(name for name in device.peaks if name != "fp32")
        note = f"has no {precision}; set train.precision={others}"
    elif section.optimizer == "muon" and "bf16" not in device.peaks:
        note = "has no bf16, in which Muon computes; set train.optimizer=adamw"
    if note:
        return Cost(device.name, note, config=device.config)
    speed, peak = device.flops_per_second(precision), device.peaks[precision]
    hours = flops / processes / speed / 3600
    source = device.source if precision != "fp32" else "assumed share of its float32 peak"
    note = f"{100 * speed / peak:.0f} % of {peak / 1e12:.0f} TFLOP/s: {source}"
    return Cost(device.name, note, hours, processes * hours * device.usd_per_hour, device.config)


def _cpu_cost(cpu: CpuSpeed | None, config: Config, schedule: Schedule, shape: Any) -> Cost:
    if cpu is None:
        how = f"in {config.train.precision} with {config.train.optimizer}"
        return Cost("this CPU", f"not measured: a step {how} would take too long")
    seconds = sum(
        phase.steps * cpu_step_seconds(cpu, step, shape)
        for phase, step in zip(schedule.phases, steps_of(config, "cpu"), strict=True)
    )
    validation = schedule.validations * schedule.valid_tokens
    per_token = cpu.rest_seconds + shape.num_hidden_layers * cpu.block_seconds
    # a forward pass has a third of the FLOPs of a pass that trains everything
    hours = (seconds + validation * per_token / 3) / 3600
    speed = f"{cpu.product_flops / 1e9:.0f} GFLOP/s"
    note = f"measured now: one process, {cpu.threads} threads, products at {speed}"
    return Cost("this CPU", note, hours)
