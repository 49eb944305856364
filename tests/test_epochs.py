import io
import json
import subprocess
import sys

import pytest
from matplotlib.figure import Figure
from matplotlib.image import imread
from rich.console import Console

from gportuguese.epochs import (
    EpochRow,
    StepRow,
    draw_curves,
    epochs_table,
    measures_table,
    read_epochs,
    read_steps,
    write_epochs,
    write_steps,
)

MARKDOWN = """\
| after ... epochs | phase | train loss | loss | accuracy (%) | perplexity | bits per byte | time by epoch | cumulative time |
| --- | --- | --- | --- | --- | --- | --- | --- | --- |
| 0 | before | - | 9.9499 | 9.90 | 20950.94 | 3.5747 | - | - |
| 5 | embeddings | 3.2325 | 3.1679 | 37.99 | 23.76 | 0.9875 | 6:16:22 | 30:00:00 |"""


def test_the_terminal_table_shows_every_cell_in_80_columns():
    written = io.StringIO()
    Console(file=written, width=80).print(epochs_table(MARKDOWN))
    lines = [line.rstrip() for line in written.getvalue().splitlines() if line.strip()]
    assert max(map(len, lines)) <= 80
    assert [line.split() for line in lines[-2:]] == [
        [cell.strip() for cell in row.strip("| ").split("|")] for row in MARKDOWN.splitlines()[2:]
    ]


ROWS = [
    EpochRow(0, "before", float("inf"), 9.9499, 0.0990, 20950.94, 3.5747),
    EpochRow(1, "first, with a comma", 3.2325, 3.16789012345, 0.3799, 23.76, 0.9875),
]


def test_the_csv_keeps_rows_to_nine_digits(tmp_path):
    write_epochs(tmp_path / "epochs.csv", ROWS)
    read = read_epochs(tmp_path / "epochs.csv")
    assert read[0] == ROWS[0]
    assert (read[1].phase, read[1].loss) == ("first, with a comma", 3.16789012)


def test_steps_are_kept_to_six_digits(tmp_path):
    rows = [StepRow(2, 0.5, 7.125), StepRow(4, 1.0, 1 / 3)]
    write_steps(tmp_path / "steps.csv", rows)
    assert read_steps(tmp_path / "steps.csv") == [rows[0], StepRow(4, 1.0, 0.333333)]


@pytest.mark.parametrize("num_epochs", [0, 1, 5, 40])
@pytest.mark.parametrize("steps", [[], [StepRow(1, 0.5, 9.0), StepRow(2, 1.0, 8.0)]])
def test_curves_of_short_and_long_runs_show_all_axes_with_units(
    tmp_path, monkeypatch, num_epochs, steps
):
    figures = []
    real = Figure.savefig
    monkeypatch.setattr(
        Figure, "savefig", lambda self, *a, **k: figures.append(self) or real(self, *a, **k)
    )
    rows = [
        EpochRow(n, "before" if not n else f"phase {n // 10}", 9 - n / 10, 9 - n / 9, 0.1, 8e3, 3.0)
        for n in range(num_epochs + 1)
    ]
    draw_curves(rows, steps, "a run", tmp_path / "curves.png")
    loss, accuracy, bits = figures[0].axes
    assert figures[0].get_suptitle() == "a run"
    assert [axes.get_ylabel() for axes in (loss, accuracy, bits)] == [
        "loss (nats per token)",
        "validation accuracy (%)",
        "validation bits per byte",
    ]
    assert {axes.get_xlabel() for axes in figures[0].axes} == {"epochs"}
    lines = [text.get_text() for text in loss.get_legend().get_texts()]
    assert lines == [
        *(["training, by step"] if steps else []),
        "training, mean of the epoch",
        "validation",
    ]
    phases = list(dict.fromkeys(row.phase for row in rows[1:]))
    assert [text.get_text() for text in loss.texts if "phase" in text.get_text()] == phases
    assert imread(tmp_path / "curves.png").shape == (768, 900, 4)


def test_reading_a_table_loads_neither_fastai_nor_torch(tmp_path):
    write_epochs(tmp_path / "epochs.csv", ROWS)
    program = (
        "import json, sys; from pathlib import Path; from types import SimpleNamespace\n"
        "from gportuguese.epochs import epochs_markdown, epochs_table, read_epochs\n"
        "folder = Path(sys.argv[1])\n"
        "times = [{'epoch': n, 'train_seconds': 50, 'valid_seconds': 15} for n in (0, 1)]\n"
        "markdown = epochs_markdown(SimpleNamespace(folder=folder, facts={'times': times}))\n"
        "loaded = [m for m in ('fastai', 'torch', 'transformers') if m in sys.modules]\n"
        "rows = [len(read_epochs(folder / 'epochs.csv')), epochs_table(markdown).row_count]\n"
        "print(json.dumps([rows, markdown.splitlines()[-1], loaded]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, tmp_path], capture_output=True, text=True, check=True
    )
    rows, last, loaded = json.loads(done.stdout)
    assert rows == [2, 2]
    assert last.endswith("| 0:01:05 | 0:01:05 |")
    assert loaded == []


def test_the_table_of_measures_fits_a_terminal_of_80_columns():
    bits = "-1.1863 [-1.2085, -1.1659]"
    markdown = (
        "| after training | validation | test |\n| --- | --- | --- |\n"
        f"| loss (nats per token) | 5.4908 | 5.4036 |\n| change | {bits} | {bits} |"
    )
    file = io.StringIO()
    Console(file=file, width=80).print(measures_table(markdown))
    lines = file.getvalue().splitlines()
    assert [line.count(bits) for line in lines if line.strip().startswith("change")] == [2]
    assert any("loss (nats per token)" in line for line in lines)
