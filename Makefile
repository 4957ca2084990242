# What a newcomer and a maintainer run. The first target makes .venv and installs into it, with
# the versions of constraints.txt; later ones reuse it. PYTHON=... picks another interpreter.

SHELL := bash
.DEFAULT_GOAL := help

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PYTEST ?= -n 2

# An install is repeated only when something that it depends on has changed.
BUILD_FILES := pyproject.toml constraints.txt $(wildcard CMakeLists.txt native/*)

RUN_EXTRAS := tabular
DEV_EXTRAS := tabular,tensorboard,analysis,estimators,selection,export,transformers,lightning,test,docs,dev

define install
@echo "==> installing regrow[$(1)] into $(VENV); the first time fetches torch and takes minutes"
@set -o pipefail; $(BIN)/pip install --disable-pip-version-check -c constraints.txt -e '.[$(1)]' \
	| awk '/^ *(Downloading|Processing) / { n = split($$2, path, "/"); split(path[n], part, "-"); say(part[1] " " part[2]) } \
	       /Building editable.*started/ { say("building the C++ kernels") } \
	       /^Installing collected/ { say("installing " NF - 3 " packages") } \
	       function say(text) { print "    " text; fflush() }'
@$(BIN)/python -c 'from regrow.kernels import native; print("    kernels:", native.isa() if native.available() else native.reason())'
endef

.PHONY: help
help:  ## list the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "make %-8s %s\n", $$1, $$2 }' Makefile

$(BIN)/python:
	@echo "==> making $(VENV) with $(PYTHON)"
	@$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit(f"Python must be 3.11 or newer, got {sys.version.split()[0]}: say PYTHON=python3.11 or the like")'
	@$(PYTHON) -m venv $(VENV)

$(VENV)/.run: $(BUILD_FILES) | $(BIN)/python
	$(call install,$(RUN_EXTRAS))
	@touch $@

$(VENV)/.dev: $(BUILD_FILES) | $(BIN)/python
	$(call install,$(DEV_EXTRAS))
	@touch $(VENV)/.run $@

.PHONY: demo
demo: $(VENV)/.run  ## train a sparse network on digits next to its dense twin, and write a report
	@$(BIN)/regrow train digits --compare dense static --seeds 3 --threads 1

.PHONY: test
test: $(VENV)/.dev  ## run the tests and the examples in docstrings, README and docs
	@$(BIN)/pytest $(PYTEST)

.PHONY: lint
lint: $(VENV)/.dev  ## check style, types and the direction of imports
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports

.PHONY: sanitize
sanitize: $(VENV)/.dev  ## run the tests of the C++ code with AddressSanitizer and UBSan
	@.ci/sanitize/run

.PHONY: bench
bench: $(VENV)/.dev  ## run all benchmarks, 40 minutes on an idle machine; REFERENCE=folder of published code
	@$(BIN)/pip install --disable-pip-version-check -q -c constraints.txt -e '.[bench]'
	@$(BIN)/python benchmarks/everything.py $(if $(REFERENCE),--reference $(REFERENCE))

.PHONY: docs
docs: $(VENV)/.dev  ## build the site into docs/_build/html
	$(BIN)/sphinx-build -W --keep-going -q -b html docs docs/_build/html
	@echo "docs: docs/_build/html/index.html"

.PHONY: clean
clean:  ## remove builds and caches (.venv and runs stay)
	rm -rf build dist docs/_build .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache
	find src tests benchmarks -name __pycache__ -type d -prune -exec rm -rf {} +
