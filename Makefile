# Two commands do everything on a fresh machine with Python and pip: `make demo` and `make test`.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
TORCH ?=
DEMO_OUT ?= runs/demo

export RAY_USAGE_STATS_ENABLED = 0
export RAY_AUTH_MODE ?= disabled

.PHONY: demo test lint types imports unit install install-test bench study attack clean

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e .
	touch $@

$(VENV)/.installed-test: pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[test]' $(TORCH)
	touch $(VENV)/.installed $@

install: $(VENV)/.installed
install-test: $(VENV)/.installed-test

# The main job for about two minutes: a better transaction scheduler than its seed.
demo: install
	rm -rf $(DEMO_OUT)
	$(BIN)/adrs run txn_offline --islands 2 --max-candidates 100000 --max-wall-s 90 --seed 1 --out $(DEMO_OUT)

test: install-test lint types imports unit

lint:
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types:
	$(BIN)/mypy

imports:
	$(BIN)/lint-imports

# Two at a time; then, on an otherwise idle machine, those that start a Ray cluster.
unit:
	$(BIN)/python -m pytest -q -n 2 --dist loadfile -m "not ray"
	$(BIN)/python -m pytest -q -m ray

bench: install
	$(BIN)/python -m tests.benchmarks.jail_overhead
	$(BIN)/python -m tests.benchmarks.exchange
	$(BIN)/python -m tests.benchmarks.journal
	$(BIN)/python -m tests.benchmarks.txn_kernel
	$(BIN)/python -m tests.benchmarks.orchestration --ray
	$(BIN)/python -m tests.benchmarks.model_client

# Which archives, parent rules and adaptations are worth having: docs/search_results.md, about an hour on two cores.
study: install
	$(BIN)/python -m tests.benchmarks.search --out runs/search_study.jsonl

# The whole red-team battery against every built-in task.
attack: install
	for task in tasks/*/task.yaml; do $(BIN)/adrs task attack $$(basename $$(dirname $$task)) || exit 1; done

clean:
	rm -rf $(VENV) runs .pytest_cache .mypy_cache .ruff_cache
