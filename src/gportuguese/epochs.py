"""The epoch table of a run and its loss by step: as CSV, as Markdown and as curves."""

from __future__ import annotations

import csv
from dataclasses import asdict, dataclass, fields
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

from gportuguese.progress import clock

if TYPE_CHECKING:
    from matplotlib.axes import Axes
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


@dataclass(frozen=True)
class StepRow:
    """One line of `steps.csv`: the training loss of a stretch of steps."""

    step: int
    """Optimizer steps of the run at the end of the stretch."""
    epoch: float
    """The same in epochs."""
    train_loss: float
    """Mean nats per token over the stretch."""


def write_epochs(path: Path, rows: list[EpochRow]) -> None:
    """Writes `epochs.csv`."""
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(field.name for field in fields(EpochRow))
        writer.writerows(row.cells() for row in rows)


def write_steps(path: Path, rows: list[StepRow]) -> None:
    """Writes `steps.csv`."""
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(field.name for field in fields(StepRow))
        writer.writerows((row.step, f"{row.epoch:.6g}", f"{row.train_loss:.6g}") for row in rows)


def read_steps(path: Path) -> list[StepRow]:
    """The rows of a `steps.csv`."""
    with path.open(encoding="utf-8", newline="") as file:
        return [
            StepRow(int(row["step"]), float(row["epoch"]), float(row["train_loss"]))
            for row in csv.DictReader(file)
        ]


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


def measures_table(markdown: str) -> Table:
    """Converts the Markdown of the held-out measures, `measures.md`, to a table for a terminal."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table
    from rich.text import Text

    table = Table(box=SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    head, _, *rows = ([c.strip() for c in r.strip("| ").split("|")] for r in markdown.splitlines())
    for name in head:
        table.add_column(name, no_wrap=True)
    for cells in rows:
        table.add_row(*map(Text, cells))  # brackets are no markup
    return table


def draw_curves(rows: list[EpochRow], steps: list[StepRow], title: str, picture: Path) -> None:
    """Losses, accuracy and bits per byte after every epoch, the phases shaded, as a PNG.

    `steps` adds the training loss within the epochs; it may be empty. The picture is 900 pixels wide
    and readable at 600.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.5, 6.4), layout="constrained")
    panels: dict[str, Axes] = figure.subplot_mosaic(
        [["loss", "loss"], ["accuracy", "bits"]], height_ratios=[5, 4]
    )
    figure.suptitle(title)
    if steps:
        panels["loss"].plot(
            [row.epoch for row in steps],
            [row.train_loss for row in steps],
            color="tab:orange",
            alpha=0.5,
            linewidth=1,
            label="training, by step",
        )
    epochs = [row.epoch for row in rows]
    panels["loss"].plot(
        epochs[1:],
        [row.train_loss for row in rows[1:]],
        "s--",
        color="tab:orange",
        markersize=5,
        label="training, mean of the epoch",
    )
    panels["loss"].plot(epochs, losses := [row.loss for row in rows], "o-", label="validation")
    panels["loss"].set(ylabel="loss (nats per token)")
    panels["accuracy"].plot(epochs, accuracies := [100 * row.accuracy for row in rows], "o-g")
    panels["accuracy"].set(ylabel="validation accuracy (%)")
    panels["bits"].plot(epochs, bits := [row.bits_per_byte for row in rows], "o-", color="purple")
    panels["bits"].set(ylabel="validation bits per byte")
    _label_points(panels["loss"], epochs, losses, above=True)
    _label_points(panels["accuracy"], epochs, accuracies, above=False)
    _label_points(panels["bits"], epochs, bits, above=True)
    for axes in panels.values():
        _shade_phases(axes, rows, named=axes is panels["loss"])
    panels["loss"].legend(fontsize=9)
    figure.savefig(picture, dpi=120)


_MOST_LABELS = 8


def _label_points(axes: Axes, epochs: list[int], values: list[float], above: bool) -> None:
    """Writes the values beside their points: all of a short run, of a long one first and last."""
    from matplotlib.patheffects import withStroke

    halo = withStroke(linewidth=2, foreground="white")
    points = list(zip(epochs, values, strict=True))
    for point in points if len(points) <= _MOST_LABELS else (points[0], points[-1]):
        axes.annotate(
            f"{point[1]:.2f}",
            point,
            textcoords="offset points",
            xytext=(3, 5 if above else -13),
            fontsize=9,
            path_effects=[halo],
        )


def _shade_phases(axes: Axes, rows: list[EpochRow], named: bool) -> None:
    """Shades every second phase and draws the epochs as the common axis."""
    from matplotlib.ticker import MaxNLocator

    starts = [n for n in range(1, len(rows)) if n == 1 or rows[n].phase != rows[n - 1].phase]
    for number, (start, after) in enumerate(pairwise([*starts, len(rows)])):
        axes.axvspan(start - 1, after - 1, color="0.5", alpha=0.07 + 0.1 * (number % 2), lw=0)
        if named:
            axes.text(
                (start + after) / 2 - 1,
                1.02,
                rows[start].phase,
                transform=axes.get_xaxis_transform(),
                ha="center",
                fontsize=9,
                style="italic",
            )
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_xlabel("epochs")
    axes.grid(alpha=0.3)
    axes.margins(y=0.15)
    right = 1.08 if named else 1.17  # room for the last label
    last = max(1, rows[-1].epoch)  # a run without a finished epoch has only the first row
    axes.set_xlim(-0.05 * last, right * last)
