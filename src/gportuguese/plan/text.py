"""A plan as text for a terminal."""

from __future__ import annotations

from collections.abc import Sequence

from gportuguese.plan import Plan
from gportuguese.plan.devices import CONTEXT_BYTES, PRICES
from gportuguese.plan.fits import FIRST_STEP_BYTES, HEAP_FACTOR, PROGRAM_BYTES, Fit
from gportuguese.progress import clock


def plan_text(plan: Plan) -> str:
    """Tokens, FLOPs, memory, time and money, and what to change where something does not fit."""
    step = plan.step
    sequences = step.micro_batch_size * step.passes * step.processes
    blocks = [
        f"{plan.name}: {plan.phases[0].parameters:,} parameters, {plan.precision}; a step is "
        f"{sequences} x {step.block_size:,} tokens: {step.passes} x {step.micro_batch_size} sequences"
        + (f" on each of {step.processes} processes" if step.processes > 1 else "")
        + ("; activation checkpointing" if step.activation_checkpointing else "")
        + f"; loss by {step.loss_rows:,} rows"
        + (f"; gains of {' and '.join(plan.uncounted)} are not counted" if plan.uncounted else ""),
        f"{plan.schedule.epoch_tokens:,} tokens an epoch ({plan.schedule.source})",
        _work(plan),
        _memory(plan),
        _costs(plan),
        _fits(plan.fits),
    ]
    return "\n\n".join(blocks)


def _work(plan: Plan) -> str:
    schedule, processes = plan.schedule, plan.step.processes
    rows = [("phase", "trains", "epochs", "tokens", "steps", "MFLOPs/token", "PFLOPs")]
    for phase, counted in zip(schedule.phases, plan.phases, strict=True):
        flops = phase.tokens * counted.train + phase.steps * processes * counted.update
        trains, epochs = f"{counted.trainable_parameters:,}", str(phase.epochs)
        work = f"{counted.train / 1e6:,.1f}", f"{flops / 1e15:,.1f}"
        rows.append((phase.name, trains, epochs, f"{phase.tokens:,}", f"{phase.steps:,}", *work))
    forward, number = plan.phases[0].forward, schedule.validations
    measured = number * schedule.valid_tokens
    work = f"{forward / 1e6:,.1f}", f"{measured * forward / 1e15:,.1f}"
    rows.append(("validation", "-", str(number), f"{measured:,}", "-", *work))
    all_flops = f"{plan.flops / 1e15:,.1f}"
    rows.append(("all", "", "", f"{schedule.tokens:,}", f"{schedule.steps:,}", "", all_flops))
    return _table(rows)


def _memory(plan: Plan) -> str:
    kinds = [plan.memory[kind] for kind in ("cpu", "cuda")]
    parts = {
        "weights": [each.weights for each in kinds],
        "optimizer state": [each.optimizer_state for each in kinds],
        "gradients, activations, logits": [each.rest for each in kinds],
        "together": [each.peak_bytes for each in kinds],
    }
    rows = [("MB of one process at the peak", "on the CPU", "on a GPU")]
    rows += [(part, f"{cpu / 1e6:,.1f}", f"{gpu / 1e6:,.1f}") for part, (cpu, gpu) in parts.items()]
    return (
        f"{_table(rows)}\nBeside the tensors, {CONTEXT_BYTES / 1e9:.1f} GB on a GPU for CUDA; on "
        f"the CPU {(PROGRAM_BYTES + FIRST_STEP_BYTES) / 1e9:.1f} GB for the program and "
        f"{100 * HEAP_FACTOR - 100:.0f} % for gaps on the heap."
    )


def _costs(plan: Plan) -> str:
    rows = [("device", "h:mm:ss", "at best", "USD", "config", "")]
    for cost in plan.costs:
        hours, best = (
            "-" if value is None else clock(3600 * value) for value in (cost.hours, cost.best_hours)
        )
        usd = "-" if cost.usd is None else f"{cost.usd:,.2f}"
        rows.append((cost.device, hours, best, usd, cost.config or "-", cost.note))
    return (
        f"{_table(rows, last_left=True)}\n"
        f"config: the one that ships for the card. Prices: {PRICES}.\n"
        "Several processes share the work without loss, a device each; on this CPU it is one."
    )


def _fits(fits: Sequence[Fit]) -> str:
    """The cards that are large enough on one line; any other memory on its own."""
    lines, large = [], []
    for fit in fits:
        name, needed = f"{fit.device}, {fit.memory_bytes / 1e9:.0f} GB", fit.needed_bytes / 1e9
        is_enough = fit.needed_bytes <= fit.memory_bytes
        if is_enough and fit.free_bytes is None:
            large.append(name)
            continue
        free = "" if fit.free_bytes is None else f", {fit.free_bytes / 1e9:.1f} GB free now"
        verdict = "fits" if is_enough else "does not fit"
        lines.append(f"{name}{free}: {verdict}, needs {needed:.1f} GB{_ways(fit)}")
    return "\n".join([*lines, *([f"fits: {'; '.join(large)}"] if large else [])])


def _ways(fit: Fit) -> str:
    if fit.needed_bytes <= fit.memory_bytes:
        return ""
    if not fit.remedies:
        return "; no setting of runtime makes it fit"
    ways = [
        " ".join(f"--set runtime.{key}={str(value).lower()}" for key, value in way.settings.items())
        + f" (tensors {way.peak_bytes / 1e9:.1f} GB, {way.flops_ratio:.2f} times the FLOPs)"
        for way in fit.remedies
    ]
    return "; it does with\n    " + ", or\n    ".join(ways)


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
