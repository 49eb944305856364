# make setup:  a virtual environment with the project in it
# make check:  everything CI checks
# make demo:   the whole pipeline on the packaged data, offline
# make docs:   the documentation site, into site/
# make notebooks: executes the notebooks on the demo and writes them with their outputs
# make gpu:    tests, speed and a transfer on this machine's GPU; writes docs/results/gpu.md
# make compat: the tests under the oldest PyTorch of pyproject.toml, in a separate environment (several GB)
VENV ?= .venv
PYTHON ?= python3
BIN = $(VENV)/bin

.PHONY: setup check compat demo docs notebooks gpu

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

# torchvision's minor version is torch's plus 15
OLDEST = $(shell sed -n 's/^  "torch>=2\.\([0-9]*\)".*/\1/p' pyproject.toml)
COMPAT = .venv-compat

compat: $(COMPAT)/bin/gpt-pt
	$(COMPAT)/bin/python -m pytest

$(COMPAT)/bin/gpt-pt:
	$(PYTHON) -m venv $(COMPAT)
	$(COMPAT)/bin/python -m pip install --quiet --upgrade pip
	$(COMPAT)/bin/python -m pip install --quiet --editable '.[dev]' 'torch==2.$(OLDEST).0' "torchvision==0.$$(($(OLDEST) + 15)).0"

demo: setup
	$(BIN)/gpt-pt train
	$(BIN)/gpt-pt evaluate

notebooks: demo
	$(BIN)/python scripts/notebooks.py

docs: setup
	$(BIN)/python -m pip install --quiet --editable '.[docs]'
	$(BIN)/python scripts/docs_pages.py --check
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

gpu: setup
	$(BIN)/python scripts/gpu_report.py --minutes 9 --out runs/gpu
	$(BIN)/python scripts/gpu_report.py --page runs/gpu/report.json
