"""The epoch table of a run: its rows and times, as CSV, as Markdown and as curves."""

from __future__ import annotations

import csv
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING

from gportuguese.progress import clock

if TYPE_CHECKING:
    from rich.table import Table

    from gportuguese.artifacts import Artifact

_SHORT_TITLES = {
    "after ... epochs": "epochs",
    "phase": "phase",
    "train loss": "train\nloss",
    "loss": "loss",
    "accuracy (%)": "acc.\n(%)",
    "perplexity": "perpl.",
    "bits per byte": "bits/\nbyte",
    "time by epoch": "time",
    "cumulative time": "total",
}
"""Column titles: in full, and shortened for a terminal of 80 columns."""


@dataclass(frozen=True)
class EpochRow:
    """One line of `epochs.csv`: the columns of the published table, and bits per byte."""

    epoch: int
    """Epochs finished; 0 is before training."""
    phase: str
    train_loss: float
    """Mean nats per token over the epoch's training steps; nan before training."""
    loss: float
    accuracy: float
    perplexity: float
    bits_per_byte: float

    def cells(self) -> list[str]:
        """The values as text, floats to nine digits."""
        return [f"{v:.9g}" if isinstance(v, float) else str(v) for v in asdict(self).values()]


@dataclass(frozen=True)
class EpochTime:
    """Seconds of one epoch; not in `epochs.csv`, which is identical in every run of a config."""

    epoch: int
    train_seconds: float
    valid_seconds: float


def write_epochs(path: Path, rows: list[EpochRow]) -> None:
    """Writes `epochs.csv`."""
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(field.name for field in fields(EpochRow))
        writer.writerows(row.cells() for row in rows)


def read_epochs(path: Path) -> list[EpochRow]:
    """The rows of an `epochs.csv`."""
    with path.open(encoding="utf-8", newline="") as file:
        return [
            EpochRow(
                epoch=int(row.pop("epoch")),
                phase=row.pop("phase"),
                **{name: float(value) for name, value in row.items()},
            )
            for row in csv.DictReader(file)
        ]


def epochs_markdown(artifact: Artifact) -> str:
    """The epoch table of a `train` or `evaluate` stage as Markdown."""
    kept = artifact.folder / "epochs.md"
    if kept.exists():
        return kept.read_text(encoding="utf-8").rstrip()
    times = {time["epoch"]: time for time in artifact.facts["times"]}
    header = f"| {' | '.join(_SHORT_TITLES)} |"
    lines, total = [header, "| --- " * len(_SHORT_TITLES) + "|"], 0.0
    for row in read_epochs(artifact.folder / "epochs.csv"):
        seconds = times[row.epoch]["train_seconds"] + times[row.epoch]["valid_seconds"]
        total += seconds if row.epoch else 0.0
        train_loss = f"{row.train_loss:.4f}" if row.epoch else "-"
        lines.append(
            f"| {row.epoch} | {row.phase} | {train_loss} | {row.loss:.4f} | "
            f"{100 * row.accuracy:.2f} | {row.perplexity:.2f} | {row.bits_per_byte:.4f} | "
            + (f"{clock(seconds)} | {clock(total)} |" if row.epoch else "- | - |")
        )
    return "\n".join(lines)


def epochs_table(markdown: str) -> Table:
    """Converts the Markdown table to one that fits a terminal of 80 columns."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    table = Table(box=SIMPLE_HEAD, pad_edge=False, padding=0, collapse_padding=True)
    for short in _SHORT_TITLES.values():
        if short == "phase":
            table.add_column(short, overflow="fold")
        else:
            table.add_column(short, justify="right", no_wrap=True)
    for line in markdown.splitlines()[2:]:
        table.add_row(*(cell.strip() for cell in line.strip("| ").split("|")))
    return table


def draw_curves(rows: list[EpochRow], picture: Path) -> None:
    """Draws loss and accuracy on the validation set after every epoch, as a PNG."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    figure = Figure(figsize=(9, 3.6))
    epochs = [row.epoch for row in rows]
    panels = (
        # labels are offset to the outer side of each curve's bend
        ("loss (nats per token)", "tab:blue", [row.loss for row in rows], (4, 6)),
        ("accuracy (%)", "tab:green", [100 * row.accuracy for row in rows], (2, -13)),
    )
    for axes, (label, color, values, offset) in zip(figure.subplots(1, 2), panels, strict=True):
        axes.plot(epochs, values, marker="o", color=color)
        axes.set(xlabel="epochs", ylabel=label)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.grid(alpha=0.3)
        for epoch, value in zip(epochs, values, strict=True):
            axes.annotate(
                f"{value:.2f}",
                (epoch, value),
                textcoords="offset points",
                xytext=offset,
                fontsize=8,
            )
        axes.margins(x=0.14, y=0.15)
    figure.tight_layout()
    figure.savefig(picture, dpi=120)
