# Set-up and checks, for a machine with Python 3.11-3.13, git and make.
#
#   make lab     environment in .venv, then JupyterLab at the first notebook
#   make test    environment in .venv, then everything that is tested
#   make lint    ruff, pyright, and the type check of the widgets' JavaScript (needs npm)
#   make docs    the documentation, in build/docs; EXECUTE=1 runs its notebooks (some minutes)
#   make bench   the table of speed ratios
#   make peers   the same SAEs in SAELens, in an environment of its own
#   make lock    write requirements.lock anew
#   make address the public address into badges, install cells and links; a new notebook gets its
#                badges so. ADDRESS=https://github.com/owner/name changes it
#   make clean   remove what the commands above made
#
#   make lab ARGS="--no-browser --port 8899"     options for `workbench lab`
#   make test ARGS="-k steer"                    options for pytest
#   make lab PYTHON=python3.13                   another interpreter
#   make lab TORCH_INDEX=<address>               take torch from PyTorch's own wheel index
#                                                (the CPU build spares Linux some GB of CUDA)

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DELETE_ON_ERROR:
MAKEFLAGS += --no-builtin-rules --no-print-directory

VENV := .venv
BIN := $(VENV)/bin
ARGS ?=
ADDRESS ?=
EXECUTE ?=
TORCH := 2.13.0
TORCH_INDEX ?=
TYPESCRIPT := typescript@7.0.2
PIP_VERSION := 26.3
PIP_TOOLS := pip-tools==7.6.2
PIP := $(BIN)/python -m pip --disable-pip-version-check

# The first interpreter that runs: the lock was made on 3.11. A name on the path is not enough,
# because version managers leave stubs that only fail.
PYTHON ?= $(shell for name in python3.11 python3.12 python3.13 python3; do \
	if $$name -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' 2>/dev/null; \
	then echo $$name; break; fi; done)

.PHONY: help lab test lint js docs bench peers lock address clean

help:
	@sed -n '3,19s/^# \{0,3\}//p' Makefile

lab: $(VENV)/.lab
	$(BIN)/workbench lab $(ARGS)

test: $(VENV)/.test
	browser=$$($(BIN)/python tests/chromium.py) && \
		WORKBENCH_CHROMIUM="$$browser" $(BIN)/python -m pytest \
			--numprocesses auto --dist loadfile $(ARGS)

lint: $(VENV)/.test js
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright --pythonpath $(BIN)/python

js: .npm/.installed
	.npm/node_modules/.bin/tsc --project tests/tsconfig.json

docs: $(VENV)/.test
	WORKBENCH_DOCS_EXECUTE=$(EXECUTE) $(BIN)/python -m sphinx --quiet --fail-on-warning --keep-going \
		-d build/doctrees .docs build/docs

bench: $(VENV)/.test
	$(BIN)/python -m tests.benchmarks $(ARGS)

peers: $(VENV)/.test .venv-peers/.installed
	$(BIN)/python -m tests.peers .venv-peers/bin/python

.venv-peers/.installed: tests/peers/requirements.txt
	$(PYTHON) -m venv .venv-peers
	.venv-peers/bin/python -m pip --disable-pip-version-check install -r $<
	touch $@

# Stamps: each is made anew when the lock or the metadata changes. The lab installs what it needs
# only, at the locked versions; the tests install every extra.
$(VENV)/.lab: requirements.lock pyproject.toml | $(VENV)/.python
	$(PIP) install --quiet --constraint requirements.lock --editable .
	@touch $@

$(VENV)/.test: requirements.lock pyproject.toml | $(VENV)/.python
	$(PIP) install --quiet --requirement requirements.lock
	$(PIP) install --quiet --no-deps --editable .
	$(PIP) check
	@touch $@ $(VENV)/.lab

$(VENV)/.python:
	@if [ -z "$(PYTHON)" ]; then \
		echo "make: no Python 3.11, 3.12 or 3.13 found. Fix: install one, or make $(MAKECMDGOALS) PYTHON=/path/to/it" >&2; \
		exit 1; fi
	@echo "Environment in $(VENV), with $$($(PYTHON) --version): some minutes the first time."
	@$(PYTHON) -m venv $(VENV) || { \
		echo "make: no virtual environment. Fix on Debian or Ubuntu: apt-get install python3-venv" >&2; exit 1; }
	@# The pip that comes with Python 3.11 takes three times as long over the lock.
	@$(PIP) install --quiet pip==$(PIP_VERSION)
	@if [ -n "$(TORCH_INDEX)" ]; then \
		$(PIP) install --quiet --index-url "$(TORCH_INDEX)" torch==$(TORCH); fi
	@touch $@

.npm/.installed: Makefile
	@command -v npm >/dev/null || { \
		echo "make: the JavaScript check needs npm. Fix: install Node.js 20 or newer" >&2; exit 1; }
	npm install --prefix .npm --no-save --no-audit --no-fund --loglevel=error $(TYPESCRIPT)
	@touch $@

lock: | $(VENV)/.python
	$(PIP) install --quiet $(PIP_TOOLS)
	echo "torch==$(TORCH)" > $(VENV)/torch.txt
	$(BIN)/pip-compile --quiet --upgrade --all-extras --strip-extras --allow-unsafe --no-annotate \
		--no-header --no-emit-options --no-emit-index-url --no-emit-find-links --no-emit-trusted-host \
		--constraint $(VENV)/torch.txt --output-file $(VENV)/pins.txt pyproject.toml
	{ sed -n '/^#/p; /^[^#]/q' requirements.lock; \
		sed -n 's/^\([A-Za-z0-9_.-]*==[^+ ;]*\)[^ ;]*/\1/p' $(VENV)/pins.txt | LC_ALL=C sort; \
	} > $(VENV)/requirements.lock
	cp $(VENV)/requirements.lock requirements.lock

address:
	@$(PYTHON) -m tests.address "$(ADDRESS)"

clean:
	rm -rf $(VENV) .venv-peers .npm build dist .pytest_cache .ruff_cache test-results
	find . -name __pycache__ -type d -not -path './.git/*' -prune -exec rm -rf {} +
