import io

from rich.console import Console

from gportuguese.report import epochs_table

MARKDOWN = """\
| after ... epochs | phase | train loss | loss | accuracy (%) | perplexity | bits per byte | time by epoch | cumulative time |
| --- | --- | --- | --- | --- | --- | --- | --- | --- |
| 0 | before | - | 9.9499 | 9.90 | 20950.94 | 3.5747 | - | - |
| 5 | embeddings | 3.2325 | 3.1679 | 37.99 | 23.76 | 0.9875 | 6:16:22 | 30:00:00 |"""


def test_the_table_of_a_terminal_has_every_cell_in_80_columns():
    written = io.StringIO()
    Console(file=written, width=80).print(epochs_table(MARKDOWN))
    lines = [line.rstrip() for line in written.getvalue().splitlines() if line.strip()]
    assert max(map(len, lines)) <= 80
    assert [line.split() for line in lines[-2:]] == [
        [cell.strip() for cell in row.strip("| ").split("|")] for row in MARKDOWN.splitlines()[2:]
    ]
