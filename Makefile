# make demo    the main job on embedded data: five to six minutes on two cores
# make test    the tests
# make help    the rest
SHELL  := /bin/bash
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin

.DEFAULT_GOAL := help
.PHONY: help setup demo serve test test-slow test-vllm check format bench lock clean

help:  ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

setup: $(VENV)/ready  ## a virtual environment in .venv with the locked dependencies

$(VENV)/ready: requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' \
		|| { echo "babelray needs Python 3.11 to 3.13, found: $$($(PYTHON) --version); try make PYTHON=python3.12 …"; exit 1; }
	@echo "setting up $(VENV) (once; a few minutes) …"
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --requirement requirements.lock
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --editable .
	@touch $@

demo: setup  ## translate, distil, index and search the embedded collection, and measure it
	@$(BIN)/python -m pipelines run atlas

serve: setup  ## serve what the demo made: a search page on http://127.0.0.1:8000
	@$(BIN)/python -m serving atlas

# Tests that need a time may miss it on a busy machine: what fails is named and run once more, alone.
again = { code=$$?; [ $$code = 1 ] || exit $$code; echo "what failed is run again, alone:"; \
	$(BIN)/python -m pytest --last-failed --last-failed-no-failures none $(1); }

test: setup  ## the test suite, in two processes
	@$(BIN)/python -m pytest --numprocesses 2 --no-loadscope-reorder || $(call again)

test-slow: setup  ## the tests that take minutes each: runs under kills at random
	@$(BIN)/python -m pytest -m slow --timeout 1800 -rs || $(call again,-m slow --timeout 1800)

test-vllm: setup .venv-vllm/ready  ## the tests with real vLLM on a processor, in an environment of its own
	@BABELRAY_VLLM_PYTHON=$(CURDIR)/.venv-vllm/bin/python $(BIN)/python -m pytest tests/test_vllm.py --timeout 1200

.venv-vllm/ready: tests/vllm_environment.py
	@$(BIN)/python tests/vllm_environment.py .venv-vllm && touch $@

check: setup  ## lint, format and types
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy

format: setup  ## mend lint and format
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

bench: setup  ## the benchmarks of docs/results.md
	@failed=; for file in tests/benchmarks/bench_*.py; do echo "== $$file"; \
		python=$(BIN)/python; [ $$file != tests/benchmarks/bench_llm.py ] || [ ! -x .venv-vllm/bin/python ] || python=.venv-vllm/bin/python; \
		$$python $$file || failed="$$failed $$file"; done; \
		[ -z "$$failed" ] || { echo "below what was expected:$$failed"; exit 1; }

lock:  ## write requirements.lock anew from pyproject.toml
	@$(PYTHON) -m venv $(VENV)-lock
	@$(VENV)-lock/bin/python -m pip install --quiet --disable-pip-version-check '.[demo,gates,lora,nmt,datasets,trace,dev]'
	@head -1 requirements.lock > requirements.new
	@$(VENV)-lock/bin/python -m pip freeze --exclude babelray | sed 's/+cpu$$//' >> requirements.new
	@mv requirements.new requirements.lock && rm -rf $(VENV)-lock

clean:  ## remove the virtual environment (artifacts stay: they may have cost days)
	rm -rf $(VENV) .venv-vllm
