# Run everything from this folder. `make repro` and `make test` each work on a fresh clone.
SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

PYTHON ?= python3
VENV := .venv
STAMP := $(VENV)/.installed
# `python` below, and the `dvc` that DVC's queue calls, are those of .venv.
export PATH := $(CURDIR)/$(VENV)/bin:$(PATH)

.PHONY: help
help:  ## list the targets
	@awk -F ':.*## *' '/^[a-z]+:.*##/ { printf "%-10s%s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: setup
setup: $(STAMP) .dvc/plots.html  ## create .venv and install requirements.txt (only if it has changed)

$(STAMP): requirements.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "error: found $$($(PYTHON) --version 2>/dev/null || echo no $(PYTHON)); expected Python 3.11 or newer; name one: make setup PYTHON=python3.12" >&2; \
	  exit 1; }
	test -x $(VENV)/bin/pip || $(PYTHON) -m venv $(VENV)
	python -m pip install --disable-pip-version-check -r requirements.txt
	touch $@

.dvc/plots.html: pipeline/reporting/page.py $(STAMP)
	python -m pipeline.reporting.page $@

.PHONY: repro
repro: setup  ## run the whole pipeline (only what has changed), and save the result as the experiment `baseline`
	python -m dvc repro
	python -m dvc exp save --quiet --force --name baseline

.PHONY: plots
plots: setup  ## write dvc_plots/index.html: training curves, bars and pictures
	python -m dvc plots show

.PHONY: report
report: setup  ## write report.html: scores, curves, clips and pictures of the last run
	python -m pipeline.report_page $(ARGS)

.PHONY: ablation
ablation: setup  ## run Table 2 with three seeds and write metrics/ablation.md; other rows: make ablation ARGS='--set NAME'
	python -m pipeline.ablation $(ARGS)

.PHONY: test
test: setup  ## the fast tests
	OMP_NUM_THREADS=1 python -m pytest -q -m "not slow" -n 2 --dist loadfile

.PHONY: smoke
smoke: setup  ## the slow tests: the whole pipeline at toy size
	OMP_NUM_THREADS=1 python -m pytest -q -m slow -n 2 --dist loadfile

.PHONY: lint
lint: setup  ## ruff (rules and format), codespell and mypy
	python -m ruff check .
	python -m ruff format --check .
	python -m codespell_lib
	python -m mypy

.PHONY: clean
clean:  ## remove caches, resume state and dvc_plots; keeps .venv, data, models and the DVC cache
	rm -rf .scratch dvc_plots .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find pipeline tests benchmarks -name __pycache__ -type d -prune -exec rm -rf {} + 2>/dev/null || true
