# make setup: a virtual environment with the project in it; make check: everything CI checks;
# make gpu: the tests for CUDA and a step's speed there; make demo: the whole pipeline on what the package carries, offline.
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
	$(BIN)/python -m pytest -m gpu
	$(BIN)/python scripts/bench_step.py --batch 16 --block 1024 --steps 20 --compile --programs ours bare
