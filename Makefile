SHELL := bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
.PHONY: help setup check format generate test test-full demo demo-fast bench-overhead bench-simulator bench-fidelity \
	bench-policies-quick bench-policies bench-policies-full bench-failures bench-ablation bench-gap bench-live bench-plan \
	bench-bound bench-headline bench-headline-live bench-etalon bench-search bench-loadtest monitoring-check monitoring-live system-packages wheel clean

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
MONITORING_OUT ?= out/monitoring-live
INSTALL := $(BIN)/python -m pip install -qq --disable-pip-version-check --no-deps

# A plain index answers torch==2.13.0 with the CUDA build; the CPU build is a version of its own.
TORCH := torch==2.13.0+cpu
TORCH_INDEX := https://download.pytorch.org/whl/cpu

help:  ## list what there is to make
	@sed -nE 's/^([a-z-]+):.*  ## (.*)/  make \1\t\2/p' $(firstword $(MAKEFILE_LIST)) | expand -t 25

setup: $(VENV)/.installed  ## create .venv with vLLM (CPU), the plugin and the tools; quick when nothing changed

$(BIN)/pip:
	@$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or newer is needed: make PYTHON=..." if sys.version_info < (3, 11) else 0)'
	@echo "setup 1/4: virtual environment in $(VENV)"
	@$(PYTHON) -m venv $(VENV)

$(VENV)/.$(TORCH): | $(BIN)/pip
	@echo "setup 2/4: $(TORCH)"
	@$(INSTALL) "$(TORCH)" 2>/dev/null || $(INSTALL) --extra-index-url $(TORCH_INDEX) "$(TORCH)"
	@touch $@

$(VENV)/.locked: requirements/cpu.txt | $(VENV)/.$(TORCH)
	@echo "setup 3/4: requirements/cpu.txt"
	@$(INSTALL) -r requirements/cpu.txt
	@touch $@

$(VENV)/.installed: $(VENV)/.locked pyproject.toml packaging/vllm-cpu/pyproject.toml
	@echo "setup 4/4: sarathi-plugin (editable)"
	@$(INSTALL) --no-build-isolation ./packaging/vllm-cpu -e .
	@touch $@

check: setup  ## formatting, lint, types, import directions, generated files
	@echo "ruff format"; $(BIN)/ruff format --check --quiet || { echo "run: make format"; exit 1; }
	@echo "ruff check"; $(BIN)/ruff check --quiet
	@echo "mypy"; $(BIN)/mypy --no-error-summary
	@echo "lint-imports"; $(BIN)/lint-imports --no-logo 2>&1
	@echo "generated files"; $(BIN)/python scripts/generated.py --check
	@PYTHONPATH=. $(BIN)/python scripts/prefill_curves.py --check
	@PYTHONPATH=. $(BIN)/python scripts/monitoring_files.py --check

format: setup  ## format the code and apply safe fixes
	@$(BIN)/ruff format --quiet
	@$(BIN)/ruff check --fix

generate: setup  ## rewrite what is generated (the list: scripts/generated.py)
	@$(BIN)/python scripts/generated.py
	@PYTHONPATH=. $(BIN)/python scripts/prefill_curves.py
	@PYTHONPATH=. $(BIN)/python scripts/monitoring_files.py

test: setup  ## all tests but the slow ones (more arguments for pytest: make test ARGS="-k name")
	$(BIN)/python -m pytest -m "not slow" $(ARGS)

test-full: setup  ## the slow tests
	$(BIN)/python -m pytest -m slow $(ARGS) || [ $$? -eq 5 ]  # 5: none match

monitoring-check: setup  ## rules, their tests, dashboards, provisioning, and all queries against a real server
	@PYTHONPATH=. $(BIN)/python scripts/monitoring_files.py --check
	$(BIN)/python -m pytest tests/unit/monitoring tests/contract/test_monitoring.py tests/e2e/test_monitoring.py $(ARGS)

monitoring-live: setup  ## two servers under load behind a real Prometheus: every query, and pictures of the dashboards
	PYTHONPATH=. $(BIN)/python scripts/monitoring_live.py --out $(MONITORING_OUT) $(ARGS)

demo: setup  ## stock vLLM and sarathi side by side, on a real model
	$(BIN)/sarathi demo --out out/demo $(ARGS)

demo-fast: setup  ## the same on a tiny model with random weights
	$(BIN)/sarathi demo --fast --out out/demo-fast $(ARGS)

bench-overhead: setup  ## what the plugin adds to the time of a scheduling step
	$(BIN)/python benchmarks/overhead.py $(ARGS)

bench-plan: setup  ## what deciding a step costs at 256 running and 1,000 waiting requests
	$(BIN)/python benchmarks/plan_cost.py $(ARGS)

bench-simulator: setup  ## how fast the simulator is, and where its time goes
	$(BIN)/python benchmarks/simulator.py --profile $(ARGS)

bench-fidelity: setup  ## what the simulator predicts against real servers (about half an hour, machine otherwise idle)
	PYTHONPATH=benchmarks $(BIN)/python -m fidelity $(ARGS)

bench-policies-quick: setup  ## fluid capacity of all policies on virtual time: 4 cells
	PYTHONPATH=benchmarks $(BIN)/python -m policies --set quick --seeds 1 --requests 300 $(ARGS)

bench-policies: setup  ## the same: 12 balanced cells, 3 seeds of 1,000 requests; can be resumed
	PYTHONPATH=benchmarks $(BIN)/python -m policies --set balanced $(ARGS)

bench-policies-full: setup  ## the same: all 72 cells
	PYTHONPATH=benchmarks $(BIN)/python -m policies --set full $(ARGS)

bench-failures: setup  ## how many requests fail at a few loads, on the same cells; can be resumed
	PYTHONPATH=benchmarks $(BIN)/python -m policies.failures --set balanced $(ARGS)

bench-ablation: setup  ## what each ingredient of sarathi is worth, in failures at a few loads; can be resumed
	PYTHONPATH=benchmarks $(BIN)/python -m policies.ablation --set balanced $(ARGS)

bench-gap: setup  ## sarathi in gap mode against the best fixed budget: P99 TBT and TTFT; can be resumed
	PYTHONPATH=benchmarks $(BIN)/python -m policies.gap --set balanced $(ARGS)

bench-live: setup  ## the policies on real servers (hours, machine otherwise idle; can be resumed)
	PYTHONPATH=benchmarks $(BIN)/python -m live $(ARGS)

bench-headline: setup  ## Sarathi-Serve's headline: capacity against its baselines, pipeline bubbles; can be resumed
	PYTHONPATH=benchmarks $(BIN)/python benchmarks/headline.py $(ARGS)

bench-headline-live: setup  ## the same on real servers of the tiny model (hours, machine otherwise idle; can be resumed)
	PYTHONPATH=benchmarks $(BIN)/python benchmarks/headline_live.py $(ARGS)

bench-etalon: setup  ## Etalon's figures of every policy in one table
	$(BIN)/python benchmarks/etalon_table.py $(ARGS)

bench-search: setup  ## the configuration search, timed, against eight configurations found by hand
	$(BIN)/python benchmarks/search.py $(ARGS)

bench-bound: setup  ## how tight the bound on any scheduler is, on small instances solved exactly
	$(BIN)/python benchmarks/bound_tightness.py $(ARGS)

bench-loadtest: setup  ## the load client against servers that know better, and beside vllm bench serve (10 minutes)
	PYTHONPATH=benchmarks $(BIN)/python -m loadtest $(ARGS)

system-packages:  ## install Prometheus, Chromium and its driver for the tests that use them
	@bash scripts/system-packages.sh

wheel: setup  ## build dist/*.whl
	@$(BIN)/python -m build --wheel --no-isolation

clean:  ## remove what was built or cached, but not .venv
	@rm -rf dist build out .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache .coverage
	@find src tests scripts benchmarks examples -name __pycache__ -type d -prune -exec rm -rf {} +
