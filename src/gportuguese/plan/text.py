"""A plan as text for a terminal."""

from __future__ import annotations

from collections.abc import Sequence

from gportuguese.plan import Plan
from gportuguese.plan.devices import CONTEXT_BYTES
from gportuguese.plan.fits import FIRST_STEP_BYTES, HEAP_FACTOR, PROGRAM_BYTES, Fit
from gportuguese.progress import clock


def plan_text(plan: Plan) -> str:
    """Tokens, FLOPs, memory, time and money, and what to change if something does not fit."""
    step = plan.step
    sequences = step.micro_batch_size * step.passes * step.processes
    about = [
        f"{plan.name}: {plan.phases[0].parameters:,} parameters, {plan.precision}",
        f"a step is {sequences} x {step.block_size:,} tokens: {step.passes} x {step.micro_batch_size} "
        "sequences" + (f" on each of {step.processes} processes" if step.processes > 1 else ""),
        f"logits of {step.loss_rows:,} tokens at a time",
    ]
    if step.activation_checkpointing:
        about.append("activation checkpointing")
    if plan.uncounted:
        about.append(f"the speed-up of {' and '.join(plan.uncounted)} is not counted")
    tokens = f"{plan.schedule.epoch_tokens:,} tokens an epoch ({plan.schedule.source})"
    blocks = ["; ".join(about), tokens, _work(plan), _memory(plan), _costs(plan), _fits(plan)]
    return "\n\n".join(blocks)


def _work(plan: Plan) -> str:
    schedule, forward = plan.schedule, plan.phases[0].forward
    validation = schedule.validations * schedule.valid_tokens
    rows = [("phase", "trains", "epochs", "tokens", "steps", "MFLOPs/token", "PFLOPs")]
    for phase, counted in zip(schedule.phases, plan.phases, strict=True):
        flops = phase.tokens * counted.train + phase.steps * plan.step.processes * counted.update
        numbers = f"{phase.epochs}", f"{phase.tokens:,}", f"{phase.steps:,}"
        work = f"{counted.train / 1e6:,.1f}", f"{flops / 1e15:,.1f}"
        most = "<= " if phase.new_rows_only and plan.new_rows is None else ""
        rows.append((phase.name, f"{most}{counted.trainable_parameters:,}", *numbers, *work))
    numbers = f"{schedule.validations}", f"{validation:,}", "-"
    work = f"{forward / 1e6:,.1f}", f"{validation * forward / 1e15:,.1f}"
    rows.append(("validation", "-", *numbers, *work))
    all_flops = f"{plan.flops / 1e15:,.1f}"
    rows.append(("all", "", "", f"{schedule.tokens:,}", f"{schedule.steps:,}", "", all_flops))
    return _table(rows)


def _memory(plan: Plan) -> str:
    rows = [("MB of one process at the peak", "on the CPU", "on a GPU")]
    for label, part in (
        ("weights", "weights"),
        ("optimizer state", "optimizer_state"),
        ("gradients, activations, logits", "rest"),
        ("together", "peak_bytes"),
    ):
        cpu, gpu = (getattr(plan.memory[kind], part) / 1e6 for kind in ("cpu", "cuda"))
        rows.append((label, f"{cpu:,.1f}", f"{gpu:,.1f}"))
    return (
        f"{_table(rows)}\nNot included: on a GPU {CONTEXT_BYTES / 1e9:.1f} GB for CUDA; on the CPU "
        f"{(PROGRAM_BYTES + FIRST_STEP_BYTES) / 1e9:.1f} GB for the program, and gaps on the heap "
        f"({100 * HEAP_FACTOR - 100:.0f} %)."
    )


def _costs(plan: Plan) -> str:
    rows = [("device", "h:mm:ss", "USD", "config", "")]
    for cost in plan.costs:
        hours = "-" if cost.hours is None else clock(3600 * cost.hours)
        usd = "-" if cost.usd is None else f"{cost.usd:,.2f}"
        rows.append((cost.device, hours, usd, cost.config or "-", cost.note))
    return (
        f"{_table(rows, last_left=True)}\n"
        "config: the one that ships for the card. USD: at typical rents of 2025, an assumption.\n"
        "Several processes are assumed to share the work without loss, one device each; on this CPU it "
        "is one process."
    )


def _fits(plan: Plan) -> str:
    """The cards that are large enough on one line; any other memory on its own."""
    lines, large = [], []
    for fit in plan.fits:
        name, needed = f"{fit.device}, {fit.memory_bytes / 1e9:.0f} GB", fit.needed_bytes / 1e9
        if not fit.remedy and fit.remedy is not None and fit.free_bytes is None:
            large.append(name)
            continue
        free = "" if fit.free_bytes is None else f", {fit.free_bytes / 1e9:.1f} GB free now"
        lines.append(f"{name}{free}: needs {needed:.1f} GB, {_verdict(fit)}")
    return "\n".join([*lines, *([f"fits: {'; '.join(large)}"] if large else [])])


def _verdict(fit: Fit) -> str:
    if fit.remedy is None:
        return "does not fit, even with micro-batches of one sequence and activation checkpointing"
    sets = " ".join(
        f"--set runtime.{key}={str(value).lower()}" for key, value in fit.remedy.items()
    )
    return f"does not fit; fits with {sets}" if sets else "fits"


def _table(rows: Sequence[Sequence[str]], last_left: bool = False) -> str:
    """Columns of equal width: the first to the left, numbers to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for row in rows:
        cells = [cell.rjust(width) for cell, width in zip(row, widths, strict=True)]
        cells[0] = row[0].ljust(widths[0])
        if last_left:
            cells[-1] = row[-1]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)
