# The set-up of every target is part of it: Python and make are all that is needed.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check

.PHONY: bench test deep lint peers benchmarks gallery lessons clean

# The main job: every backend of every loss on a problem of CIFAR-10's shape, with plots.
bench: $(VENV)/bench.installed
	$(BIN)/fastloss bench

# Files of tests run side by side. Each process of it uses several threads and compiles: no more.
PARALLEL := -n auto --maxprocesses 2 --dist loadfile

test: lint
	$(BIN)/python -m pytest $(PARALLEL)
	$(BIN)/python -m pytest bench --benchmark-disable

# Also the tests that are marked deep: all combinations, more examples.
deep: $(VENV)/dev.installed
	$(BIN)/python -m pytest $(PARALLEL) -m '' --hypothesis-profile deep

lint: $(VENV)/dev.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# Agreement with PyTorch, JAX and scikit-learn, which are large to install.
peers: $(VENV)/peers.installed
	$(BIN)/python -m pytest -m '' tests/test_peers.py tests/test_peer_contenders.py

# BENCHMARKS.md, docs/benchmarks and the table in README.md, from the stored results. MEASURE: first
# measure the sections of bench/sections.py whose names match, such as '*'; DATA: as below.
benchmarks: $(VENV)/dev.installed $(if $(MEASURE),$(VENV)/peers.installed)
	$(BIN)/python bench/write_benchmarks.py $(if $(MEASURE),--measure '$(MEASURE)') $(if $(DATA),--data-folder '$(DATA)')

# GALLERY.md and its pictures; DATA: a folder with cifar-10-batches-bin and mnist, else synthetic.
gallery: $(VENV)/bench.installed
	$(BIN)/python bench/gallery.py $(if $(DATA),--data-folder '$(DATA)')

# All lessons, one after the other; their figures go to fastloss-lessons.
lessons: $(VENV)/lessons.installed
	$(BIN)/fastloss lesson all --out fastloss-lessons

$(VENV)/%.installed: pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(PIP) --editable '.[$*]'
	touch $@

clean:
	rm -rf .venv build dist fastloss-bench fastloss-train fastloss-lessons .pytest_cache .mypy_cache .ruff_cache .hypothesis
