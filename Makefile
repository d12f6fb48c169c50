# Everything a newcomer types. `make help` lists it.

PYTHON ?= python3
VENV ?= .venv
PIP_ARGS ?=
# Files of tests run beside each other, one process a core; PYTEST_ARGS= runs them one after the other.
PYTEST_ARGS ?= -n auto --dist loadfile
DATA_DIR ?= ../shared/data

BIN := $(VENV)/bin
PY := $(BIN)/python
INSTALLED := $(VENV)/.splatspace-installed

.DEFAULT_GOAL := help
.PHONY: help setup demo test lint format bench clean

help: ## this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "make %-8s %s\n", $$1, $$2 }' Makefile

setup: $(INSTALLED) ## makes .venv and installs everything that is needed, once

$(INSTALLED): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python %d.%d is too old: SplatSpace needs 3.11 or newer. Type: make $(MAKECMDGOALS) PYTHON=python3.12" % sys.version_info[:2])'
	@test -x $(PY) || $(PYTHON) -m venv $(VENV)
	@echo "Installing SplatSpace into $(VENV) (a few minutes, once) ..."
	@$(PY) -m pip install -qq --disable-pip-version-check $(PIP_ARGS) -c constraints.txt -e ".[dev]"
	@touch $@

demo: $(INSTALLED) ## encodes 1,000 built-in sprites and prints the PSNR report
	@$(BIN)/splatspace encode demo --out out/demo.zarr

lint: $(INSTALLED) ## style, format, types and layers
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright --pythonpath $(PY)
	$(BIN)/lint-imports

test: lint ## the whole suite: make lint, then every test
	$(PY) -m pytest $(PYTEST_ARGS)

format: $(INSTALLED) ## mends style and format
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(INSTALLED) ## measures quality and speed of the encoders
	$(PY) -m benchmarks.encode --data-dir $(DATA_DIR)

clean: ## removes what make made, the environment included
	rm -rf $(VENV) build dist out splatspace.egg-info .pytest_cache .ruff_cache .import_linter_cache .hypothesis
