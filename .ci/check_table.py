"""Checks the demo's epoch table: six rows, and a loss that falls in every epoch."""

import csv
import itertools
import sys
from pathlib import Path

(table,) = Path(sys.argv[1]).glob("evaluate-*/epochs.csv")
with table.open(encoding="utf-8", newline="") as file:
    losses = [float(row["loss"]) for row in csv.DictReader(file)]
print("loss after each epoch:", *losses)
if len(losses) != 6 or any(after >= before for before, after in itertools.pairwise(losses)):
    sys.exit(f"{table}: expected six rows with a falling loss")
for name in ("report.json", "epochs.md", "curves.png", "samples.md"):
    if not (table.parent / name).stat().st_size:
        sys.exit(f"{table.parent / name} is empty")
