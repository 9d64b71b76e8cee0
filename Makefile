# Two commands matter: `make demo` and `make test`. Each installs what it needs into .venv from the lock.
.DEFAULT_GOAL := help
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
PEER := $(VENV)-bench/.installed
# The first interpreter of a supported version that runs.
PYTHON ?= $(shell for each in python3 python3.11 python3.12 python3.13 python; do \
	$$each -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 14))' 2>/dev/null \
	&& echo $$each && break; done)

.PHONY: help install demo ui test e2e lint audit format bench lock clean

help: ## Say what there is to make
	@grep -hE '^[a-z0-9]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z0-9]+):.*## (.*)/  make \1\t\2/' | expand -t 18

install: $(INSTALLED) ## Install everything into .venv from the lock

$(INSTALLED): requirements.lock pyproject.toml
	@test -n "$(PYTHON)" || { echo "No Python 3.11, 3.12 or 3.13 was found. Install one, or say PYTHON=/path/to/python."; exit 2; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "Installing into $(VENV) (a few minutes the first time)"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --requirement requirements.lock
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $(INSTALLED)

demo: $(INSTALLED) ## From a sample crawl to an evaluated model, in minutes on two cores
	@$(BIN)/gristmill demo

ui: $(INSTALLED) ## Show the demo's runs: Prefect on port 4200, MLflow on port 5000, until Ctrl-C
	@$(BIN)/gristmill up

test: $(INSTALLED) $(PEER) ## Run all tests; datatrove, which some compare with, gets an environment of its own
	@$(BIN)/python -m pytest --numprocesses 2 --dist loadfile --no-loadscope-reorder

e2e: $(INSTALLED) ## Run what takes minutes: browsers, kills, Slurm (SLURM_PREFIX), docker-compose.yml as processes
	@$(BIN)/python -m pytest -m e2e $(E2E)

lint: $(INSTALLED) ## Check style, types and layers
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/basedpyright
	@$(BIN)/lint-imports

audit: $(INSTALLED) ## Look for known vulnerabilities in the lock, where PyPI can be asked
	@$(BIN)/python -m tests.audit requirements.lock

format: $(INSTALLED) ## Format the code
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

bench: $(INSTALLED) $(PEER) ## Measure against datatrove, rensa and lm-evaluation-harness; BENCH="--crawl-root ..." says more
	@$(BIN)/python -m tests.benchmarks.compare --peer $(VENV)-bench/bin/python $(BENCH)
	@$(BIN)/python -m tests.benchmarks.evaluation_speed --size 4m --requests 400

$(PEER): tests/benchmarks/requirements.txt
	@test -x $(VENV)-bench/bin/python || $(PYTHON) -m venv $(VENV)-bench
	@echo "Installing the peers into $(VENV)-bench"
	@$(VENV)-bench/bin/python -m pip install --quiet --disable-pip-version-check --requirement tests/benchmarks/requirements.txt
	@touch $(PEER)

lock: $(INSTALLED) ## Write requirements.lock anew from pyproject.toml
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check uv
	@printf 'hatchling\neditables\n' | $(BIN)/uv pip compile pyproject.toml - --group dev --all-extras --universal \
	--python-version 3.11 --no-annotate --no-header --no-emit-index-url --no-emit-find-links --quiet \
	| grep -vE '^(nvidia-|cuda-|triton==)' > requirements.lock  # torch pins its own CUDA libraries, where it wants them

clean: ## Remove the environments and the demo's data
	rm -rf $(VENV) $(VENV)-bench gristmill-data
