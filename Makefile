# make demo   sets up, then does the whole job small: structures -> corpus -> network -> picks -> score
# make test   sets up, then runs the checks and the fast tests
# Everything goes into this folder: .venv, .tools, .setup and demo/.

SHELL := bash
PY := .venv/bin/python
BIN := .venv/bin
DEMO ?= demo

.PHONY: help setup demo test test-all slow lint docs constraints clean
help:
	@sed -n 's/^# //p' Makefile
	@echo "make test-all  the slow tests too     make lint  the static checks     make docs  the documentation"
	@echo "make setup GPU=1  TensorFlow, JAX with CUDA     make constraints  newer versions of everything"

setup:
	@GPU=$(GPU) scripts/setup.sh

demo: setup
	@scripts/demo.sh $(DEMO)

test: setup lint
	@$(PY) -m pytest -m "not slow"

test-all: setup lint
	@$(PY) -m pytest

slow: setup
	@$(PY) -m pytest --durations=20 -m "slow and not long"

lint: setup
	@$(BIN)/ruff check --quiet . && $(BIN)/ruff format --quiet --check . && $(BIN)/mypy --no-error-summary && PYTHONPATH=. $(BIN)/lint-imports --no-logo >/dev/null \
	  || { echo "lint: the checks above failed (lint-imports: run $(BIN)/lint-imports)"; exit 1; }

docs: setup
	@.tools/bin/uv pip install --quiet --python $(PY) --constraints constraints.txt mkdocs mkdocs-material mkdocs-click mkdocs-jupyter 'mkdocstrings[python]'
	@NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet --strict

constraints: setup
	@scripts/constraints.sh

clean:
	rm -rf demo site .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
