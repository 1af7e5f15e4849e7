# One vocabulary for people and CI: demo, test, check, format.
PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin
DEMO ?= demo
DEMO_OPTIONS ?=

.PHONY: help install demo test test-slow bench-featurize bench-store bench-heads bench-memory bench-scale check format clean

help:
	@echo "make demo       the main job on drawn cells, scored (a few minutes after the install)"
	@echo "make test       the test suite, but for the long trials and what needs a GPU"
	@echo "make test-slow  the same with the long trials of the store (pytest -m gpu: what needs a GPU)"
	@echo "make bench-featurize  featurize beside the plain script and the machine's limits, in one table (a quarter of an hour)"
	@echo "make bench-store  what the store survives and costs, in one table"
	@echo "make bench-heads  heads beside scikit-learn on the first challenge's size (half an hour)"
	@echo "make bench-memory  heads on a cache of 8 GB within 2 GB of memory (hours; 16 GB of disk)"
	@echo "make bench-scale  seconds and memory of featurize for 1,000 to 100,000 images, one worker and two (10 minutes)"
	@echo "make check      format, lint, types, layers"
	@echo "make format     mend what the formatter can"

install: $(VENV)/.installed

$(VENV)/.installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "error: $$($(PYTHON) --version); expected Python 3.11 or newer: make PYTHON=python3.12 ..."; exit 2; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	@touch $@

demo: install
	$(BIN)/python examples/demo/demo.py $(DEMO) $(DEMO_OPTIONS)

test: install
	$(BIN)/python -m pytest -m "not slow and not gpu"

test-slow: install
	$(BIN)/python -m pytest -m "not gpu"

bench-featurize: install
	$(BIN)/python -m bench.featurize

bench-store: install
	$(BIN)/python -m bench.store

bench-heads: install
	$(BIN)/python -m bench.heads

bench-memory: install
	$(BIN)/python -m bench.memory

bench-scale: install
	$(BIN)/python -m bench.scale

check: install
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/python -m pytest tests/test_house.py

format: install
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean:
	rm -rf demo build .mypy_cache .ruff_cache .pytest_cache
