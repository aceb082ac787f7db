# Everything runs from .venv, which `setup` makes from requirements.lock. Nothing else on the machine is touched.
SHELL := /bin/bash
.DEFAULT_GOAL := help
VENV := .venv
BIN := $(VENV)/bin
# Else each of the hundreds of processes that the tests start compiles Beam anew, which takes ten times as long as to import it.
export PYTHONDONTWRITEBYTECODE :=
# uv from the machine, or our own copy in .tools.
UV := $(shell command -v uv 2>/dev/null || echo .tools/bin/uv)

.PHONY: help setup lock demo test check bench clean

help: ## list the commands
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

.tools/bin/uv:
	@python3 -m pip --version >/dev/null 2>&1 || { echo "error: python3 has no pip; as root: apt-get install python3-pip" >&2; exit 1; }
	python3 -m pip install --quiet --disable-pip-version-check --target .tools uv

$(VENV)/.synced: requirements.lock pyproject.toml | $(filter .tools/bin/uv,$(UV))
	$(UV) venv --quiet --allow-existing --python 3.11 $(VENV)
	$(UV) pip sync --quiet --python $(BIN)/python --require-hashes requirements.lock
	$(UV) pip install --quiet --python $(BIN)/python --no-deps --editable .
	@touch $@

$(VENV)/.benched: $(VENV)/.synced requirements-bench.lock
	$(UV) pip install --quiet --python $(BIN)/python --require-hashes -r requirements-bench.lock
	@touch $@

setup: $(VENV)/.synced ## make .venv with everything that is locked

lock: | $(filter .tools/bin/uv,$(UV)) ## resolve pyproject.toml anew into the two lock files
	$(UV) lock --upgrade
	$(UV) export --quiet --frozen --no-emit-project --no-header --no-annotate --output-file requirements.lock
	$(UV) export --quiet --frozen --no-emit-project --no-header --no-annotate --only-group bench --output-file requirements-bench.lock

demo: export PENSTOCK_HOME := demo/home
demo: setup ## score the real flights of 2013 to Parquet and to a table
	$(BIN)/python -m examples.flights.prepare demo
	$(BIN)/penstock run examples/flights/to_parquet.yaml
	$(BIN)/penstock run examples/flights/to_table.yaml
	$(BIN)/python -m examples.flights.picture demo

test: setup ## run every test, with the real servers it needs
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder --durations=25

check: setup ## lint and types
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

bench: $(VENV)/.benched ## measure against plain loops and peers, print the ratios
	$(BIN)/python -m benchmarks

clean: ## remove what was made here
	rm -rf $(VENV) .tools demo .bench build dist *.egg-info
