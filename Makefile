# Everything a newcomer types. `make help` lists it.

PYTHON ?= python3
VENV ?= .venv
PIP_ARGS ?=
# Files of tests run beside each other, one process a core (one more where servers are waited for: tests/conftest.py);
# PYTEST_ARGS= runs them one after the other.
PYTEST_ARGS ?= $(BESIDE)
BESIDE := -n auto --dist loadfile --no-loadscope-reorder
DATA_DIR ?= ../shared/data

# What rounds otherwise on another processor, and what holds torch to the instructions of an older one.
NUMERIC := tests/models tests/pipeline/train tests/pipeline/sample tests/pipeline/export tests/pipeline/evaluate \
	tests/encoders/test_engines.py tests/encoders/test_render.py tests/encoders/test_render_over.py tests/encoders/start
AVX2 := ATEN_CPU_CAPABILITY=avx2 ONEDNN_MAX_CPU_ISA=AVX2 MKL_ENABLE_INSTRUCTIONS=AVX2

BIN := $(VENV)/bin
PY := $(BIN)/python
INSTALLED := $(VENV)/.splatspace-installed

.DEFAULT_GOAL := help
.PHONY: help setup demo check test narrow soak lint format bench clean

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

# The type checker keeps one core busy for a minute: it runs beside the compiler, which does so too where nothing has
# been compiled yet, and beside the first tests. What it says comes at the end.
BESIDE_LINT = @said=$$(mktemp) || exit 1; $(MAKE) --no-print-directory lint >"$$said" 2>&1 & lint=$$!; \
	trap 'kill $$lint 2>/dev/null; rm -f "$$said"' EXIT; trap 'exit 130' INT TERM; \
	$(PY) -m tests.compile_kernels && $(PY) -m pytest $(1); tests=$$?; \
	wait $$lint; linted=$$?; cat "$$said"; exit $$((linted ? linted : tests))

check: $(INSTALLED) ## in between: make lint beside the tests that are neither slow nor need a Prefect server
	$(call BESIDE_LINT,$(BESIDE) -m "not slow and not prefect")

test: $(INSTALLED) ## the whole suite: make lint beside every test
	$(call BESIDE_LINT,$(PYTEST_ARGS))

narrow: $(INSTALLED) ## the numeric tests with torch held to AVX2, where the processor has more
	@if $(PY) -c 'import sys, torch; sys.exit(not torch.backends.cpu.get_cpu_capability().startswith("AVX512"))'; then \
	    $(AVX2) $(PY) -m pytest $(BESIDE) -m "not prefect" $(NUMERIC); \
	else \
	    echo "Not run: torch computes with AVX2 or less on this processor, as in make test."; \
	fi

soak: $(INSTALLED) ## faults at full repetition, every variant, the benchmarks: hours, not minutes
	$(PY) -m pytest $(BESIDE) -m soak

format: $(INSTALLED) ## mends style and format
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(INSTALLED) ## measures quality and speed of the encoders
	$(PY) -m benchmarks.encode --data-dir $(DATA_DIR)

clean: ## removes what make made, the environment included
	rm -rf $(VENV) build dist out splatspace.egg-info .pytest_cache .ruff_cache .import_linter_cache .hypothesis
