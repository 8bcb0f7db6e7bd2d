# Everything installs into .venv; nothing outside this folder is touched.
PYTHON ?= python3.11
PROFILE ?= demo
BIN := .venv/bin
INSTALLED := .venv/.installed

.DEFAULT_GOAL := help
.PHONY: help setup demo ui test test-quick lint format bench readme clean

help: ## list the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

$(INSTALLED): pyproject.toml .ci/constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint .ci/constraints.txt --editable ".[dev]"
	touch $@

setup: $(INSTALLED) ## create .venv and install the pinned packages

demo: setup ## build the demo country: raw files to vectors, scores and a map
	$(BIN)/mobclip demo-data
	$(BIN)/mobclip materialize --profile demo
	$(BIN)/mobclip scores --profile demo
	@echo
	@echo "The whole graph is materialised. The map:  dagster_home/lake/demo/map.png"
	@echo "The tables in SQL:                         dagster_home/lake/demo/catalog.duckdb"
	@echo "Open the graph in the Dagster UI with:     make ui"

ui: setup ## serve the Dagster UI of PROFILE (default demo) on http://127.0.0.1:3000
	$(BIN)/mobclip ui --profile $(PROFILE)

lint: setup ## formatting, lint, types, security
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/bandit --quiet --configfile pyproject.toml --severity-level medium --recursive mobclip_core mobclip_assets

format: setup ## format and fix what can be fixed
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

# two workers on two cores: with two threads each, they wait for one another's at every barrier
test-quick: setup ## the quick tier
	OMP_NUM_THREADS=1 $(BIN)/pytest -n 2 -m "not slow and not real and not gpu"

test: lint ## everything that CI runs
	OMP_NUM_THREADS=1 $(BIN)/pytest -n 2 --dist loadfile --no-loadscope-reorder -m "not gpu" --cov --cov-report=term --cov-fail-under=90

bench: setup ## the benchmarks, one JSON line each
	@for name in $$(ls tests/benchmarks/*.py | xargs -n1 basename | grep -v '^_' | sed 's/\.py$$//'); do \
	  $(BIN)/python -m tests.benchmarks.$$name; done

readme: setup demo ## make every score table of the README again: demo, New York and the United States (about an hour)
	$(BIN)/mobclip materialize --profile new_york
	$(BIN)/mobclip materialize --profile usa
	$(BIN)/python -m tests.readme

clean: ## remove what a build leaves behind: demo data, lake, Dagster's history, caches
	rm -rf dagster_home/demo_data dagster_home/lake dagster_home/instances .pytest_cache .mypy_cache .ruff_cache .hypothesis
