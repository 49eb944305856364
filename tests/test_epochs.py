import io
import json
import subprocess
import sys

from rich.console import Console

from gportuguese.epochs import EpochRow, epochs_table, read_epochs, write_epochs

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
