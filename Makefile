# make setup: a virtual environment with the project in it
# make check: everything CI checks
# make demo:  the whole pipeline on what the package carries, offline
# make gpu:   tests, speed and a transfer on the GPU of this machine, into docs/results/gpu.md
VENV ?= .venv
PYTHON ?= python3
BIN = $(VENV)/bin

.PHONY: setup check demo gpu

setup: $(BIN)/gpt-pt

$(BIN)/gpt-pt:
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --editable '.[dev]'

check: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m pytest

demo: setup
	$(BIN)/gpt-pt train
	$(BIN)/gpt-pt evaluate

gpu: setup
	$(BIN)/python scripts/gpu_report.py --minutes 9 --out runs/gpu
	$(BIN)/python scripts/gpu_report.py --page runs/gpu/report.json
