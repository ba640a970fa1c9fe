# The set-up of every target is part of it: Python and make are all that is needed.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check

.PHONY: bench test lint peers benchmarks clean

# The main job: every backend of every loss on a problem of CIFAR-10's shape, with plots.
bench: $(VENV)/bench.installed
	$(BIN)/fastloss bench

test: lint
	$(BIN)/python -m pytest
	$(BIN)/python -m pytest bench --benchmark-disable

lint: $(VENV)/dev.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# Agreement with PyTorch, JAX and scikit-learn, which are large to install.
peers: $(VENV)/peers.installed
	$(BIN)/python -m pytest tests/test_peers.py

# BENCHMARKS.md and its plots, from the stored results.
benchmarks: $(VENV)/dev.installed
	$(BIN)/python bench/write_benchmarks.py

$(VENV)/%.installed: pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(PIP) --editable '.[$*]'
	touch $@

clean:
	rm -rf .venv build dist fastloss-bench .pytest_cache .mypy_cache .ruff_cache .hypothesis
