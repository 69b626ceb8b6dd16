# make demo | test | check | bench | clean.  Everything happens inside .venv; nothing else needs to be installed.
SHELL := /bin/bash
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
PIP := $(BIN)/python -m pip --disable-pip-version-check

.PHONY: demo test test-all check check-floors lock release-check bench format docs clean

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "error: Python 3.11 or newer is needed"; echo; echo "  hint: make PYTHON=python3.12"; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(PIP) install --quiet --constraint constraints.txt torch
	$(PIP) install --quiet --constraint constraints.txt --editable '.[test,check]'
	touch $@

demo: $(STAMP)
	$(BIN)/tunewright doctor --fetch
	$(BIN)/tunewright demo

test: $(STAMP)
	$(BIN)/python -m pytest -n auto

# The slow tests too; the tests of a GPU run apart (pytest -m gpu).
test-all: $(STAMP)
	$(BIN)/python -m pytest -n auto -m 'not gpu'

check: $(STAMP)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# Long (it downloads the oldest versions that pyproject.toml allows), so it is run by hand before a release.
FLOORS := build/floors
check-floors:
	mkdir -p build
	sed -nE 's/^    "([a-z0-9_-]+)(\[[a-z]+\])?>=([0-9.]+)",$$/\1==\3.*/p' pyproject.toml | sort -u > $(FLOORS).txt
	test -x $(FLOORS)/bin/python || $(PYTHON) -m venv $(FLOORS)
	$(FLOORS)/bin/python -m pip --disable-pip-version-check install --quiet --constraint $(FLOORS).txt --editable . pytest hypothesis python-docx trl
	$(FLOORS)/bin/python -m pytest -q tests/documents tests/models tests/text tests/training/test_loop.py

# Every version of constraints.txt with the hash of its file; after constraints.txt has changed.
lock: $(STAMP)
	$(BIN)/python release/lock.py

# Builds wheel and sdist, checks them, and installs the wheel by pip, pipx, uv tool install and uvx. Long: run by hand.
release-check:
	$(PYTHON) release/check.py

# On a GPU also: gpu.py (speed, memory), equality.py (losses), generation.py; each says in its head what it measures.
bench: $(STAMP)
	$(BIN)/python benchmarks/cpu.py
	$(BIN)/python benchmarks/generation.py
	if $(BIN)/python -c 'import sys, torch; sys.exit(not torch.cuda.is_available())'; then \
	  $(BIN)/python benchmarks/gpu.py && $(BIN)/python benchmarks/equality.py; fi

format: $(STAMP)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

# The generated pages, then the site: build/site/index.html; to search it: python -m http.server -d build/site
docs: $(STAMP)
	$(BIN)/python docs/generate.py
	$(PIP) install --quiet --constraint constraints.txt --editable '.[docs]'
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet

clean:
	rm -rf $(VENV) demo demo-papers build .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
