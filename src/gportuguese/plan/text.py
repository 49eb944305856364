"""A plan as text for a terminal."""

from __future__ import annotations

from collections.abc import Sequence

from gportuguese.plan import FIRST_STEP_BYTES, HEAP_FACTOR, KINDS, PROGRAM_BYTES, Fit, Plan
from gportuguese.plan.devices import CONTEXT_BYTES, PRICES
from gportuguese.plan.ledger import PARTS
from gportuguese.progress import clock

_DEVICES = {"cpu": "on the CPU", "cuda": "on a GPU"}


def plan_text(plan: Plan) -> str:
    """Tokens, FLOPs, memory, time and money, and what to change where something does not fit."""
    step = plan.steps["cuda"][0]
    sequences = step.micro_batch_size * step.passes * step.processes
    blocks = [
        f"{plan.name}: {plan.parameters:,} parameters, {plan.precision}; a step is {sequences} x "
        f"{step.block_size:,} tokens: {step.passes} x {step.micro_batch_size} sequences"
        + (f" on each of {step.processes} processes" if step.processes > 1 else "")
        + ("; activation checkpointing" if step.activation_checkpointing else "")
        + f"; loss by {step.loss_rows:,} rows"
        + (f"; what {' and '.join(plan.uncounted)} save is not counted" if plan.uncounted else ""),
        f"{plan.schedule.epoch_tokens:,} tokens an epoch ({plan.schedule.source})",
        _work(plan),
        *(_memory(plan, kind) for kind in KINDS),
        _costs(plan),
        _fits(plan),
    ]
    return "\n\n".join(blocks)


def _work(plan: Plan) -> str:
    schedule = plan.schedule
    rows = [("phase", "trains", "epochs", "tokens", "steps", "MFLOPs/token", "PFLOPs")]
    both = zip(plan.steps["cuda"], plan.counts["cuda"], strict=True)
    for phase, (step, counted) in zip(schedule.phases, both, strict=True):
        flops = counted.train_flops
        updates = phase.steps * step.processes * counted.update_flops
        rows.append(
            (
                phase.name,
                f"{counted.trainable_parameters:,}",
                str(phase.epochs),
                f"{phase.tokens:,}",
                f"{phase.steps:,}",
                f"{flops / 1e6:,.1f}",
                f"{(phase.tokens * flops + updates) / 1e15:,.1f}",
            )
        )
    forward = plan.forward_flops
    measured = schedule.validations * schedule.valid_tokens
    rows.append(
        (
            "validation",
            "-",
            str(schedule.validations),
            f"{measured:,}",
            "-",
            f"{forward / 1e6:,.1f}",
            f"{measured * forward / 1e15:,.1f}",
        )
    )
    rows.append(
        (
            "all",
            "",
            "",
            f"{schedule.tokens:,}",
            f"{schedule.steps:,}",
            "",
            f"{plan.flops / 1e15:,.1f}",
        )
    )
    return _table(rows)


def _memory(plan: Plan, kind: str) -> str:
    counts = plan.counts[kind]
    rows = [("MB at the peak", *(phase.name for phase in plan.schedule.phases))]
    for part in PARTS:
        rows.append((part, *(_megabytes(counted.memory[part]) for counted in counts)))
    rows.append(("together", *(_megabytes(counted.peak_bytes) for counted in counts)))
    rows.append(("in the pass", *(counted.moment for counted in counts)))
    gradients = max(counted.gradient_bytes for counted in counts)
    return (
        f"memory of one process {_DEVICES[kind]}\n{_table(rows)}\n"
        f"Gradients grow as activations go, to {_megabytes(gradients)} MB."
    )


def _costs(plan: Plan) -> str:
    rows = [("device", "h:mm:ss", "at best", "USD", "")]
    for cost in plan.costs:
        hours, best = (
            "-" if value is None else clock(3600 * value) for value in (cost.hours, cost.best_hours)
        )
        usd = "-" if cost.usd is None else f"{cost.usd:,.2f}"
        rows.append((cost.device, hours, best, usd, cost.note))
    return (
        f"{_table(rows, last_left=True)}\n"
        f"prices: {PRICES}. Several processes are taken to share the work without "
        "loss, a device each; on this CPU it is one."
    )


def _fits(plan: Plan) -> str:
    lines = []
    for fit in plan.fits:
        verdict = "fits" if fit.needed_bytes <= fit.memory_bytes else "does not fit"
        free = "" if fit.free_bytes is None else f", {fit.free_bytes / 1e9:.1f} GB free now"
        lines.append(
            f"{fit.device}, {fit.memory_bytes / 1e9:.0f} GB{free}: {verdict}, "
            f"needs {fit.needed_bytes / 1e9:.1f} GB{_ways(fit)}"
        )
    return "\n".join(lines) + (
        f"\nBeside the tensors, {CONTEXT_BYTES / 1e9:.1f} GB on a GPU for CUDA; on the CPU "
        f"{(PROGRAM_BYTES + FIRST_STEP_BYTES) / 1e9:.1f} GB for the program and {100 * HEAP_FACTOR - 100:.0f} % for gaps on "
        "the heap."
    )


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


def _megabytes(count: int) -> str:
    return f"{count / 1e6:,.1f}"


def _table(rows: Sequence[Sequence[str]], last_left: bool = False) -> str:
    """Columns of equal width: the first to the left, numbers to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for row in rows:
        cells = [
            cell.ljust(width)
            if index == 0 or (last_left and index == len(row) - 1)
            else cell.rjust(width)
            for index, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)
