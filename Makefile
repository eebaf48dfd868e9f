# One command each; `make help` lists them. Set PYTHON for another interpreter, TORCH_INDEX for
# another build of torch (for example https://download.pytorch.org/whl/cpu), VENV for another place.
PYTHON ?= python3
VENV ?= .venv
HOME_DIR ?= .nightshift
NIGHTLY_DIR ?= .nightly
ROWS ?= 1200
TIMES ?= 10
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --constraint requirements.lock \
	$(if $(TORCH_INDEX),--extra-index-url $(TORCH_INDEX))

.PHONY: help demo nightly up test unit long explore faults check gpu bench matrix secrets compose-check lock clean

help: ## this list
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 12

demo: $(VENV)/.demo ## set up, classify real text, prove it complete, fine-tune, classify again
	$(BIN)/nightshift demo --home $(HOME_DIR) --rows $(ROWS)

nightly: $(VENV)/.demo ## set up, seven nights of fine-tunes in minutes, with faults; check how each ended
	$(BIN)/nightshift nightly --folder $(NIGHTLY_DIR)

up: $(VENV)/.demo ## set up and run the whole stack in the foreground
	$(BIN)/nightshift up --home $(HOME_DIR)

test: check ## set up and run every check and test; with WORKERS=2 two tests at a time
	$(BIN)/python -m pytest $(if $(WORKERS),-n $(WORKERS) --dist loadgroup)

unit: $(VENV)/.dev ## the fast tests: those that need neither a server nor torch
	$(BIN)/python -m pytest --unit -n logical

long: $(VENV)/.dev ## the tests that take minutes: hosts killed and cut off in the middle of training
	$(BIN)/python -m pytest -m long

explore: $(VENV)/.dev ## the property tests with new random examples; the suite tries the same each time
	$(BIN)/python -m pytest -m hypothesis --hypothesis-profile explore

faults: $(VENV)/.dev ## the tests that kill things, TIMES times in a row
	for time in $$(seq $(TIMES)); do $(BIN)/python -m pytest -m "long or not long" tests/faults || exit 1; done

check: $(VENV)/.dev ## linters, types, import rules, generated documentation
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python docs/generate.py --check

gpu: $(VENV)/.bench ## on a machine with a GPU, in six minutes: every kind right on it, and how fast
	$(BIN)/python -m benchmarks.gpu $(if $(CORPUS),--corpus $(CORPUS))

bench: $(VENV)/.bench ## benchmarks, with CORPUS=labelled.csv more; figures land in benchmarks/results/
	$(BIN)/python -m benchmarks $(CORPUS)

matrix: $(VENV)/.bench ## the cells of the fault matrix that have no result yet, then its page
	$(BIN)/python -m benchmarks.fault_matrix; $(BIN)/python docs/generate.py

secrets: ## random secrets for docker-compose.yml, in secrets/; keeps those that are there
	$(PYTHON) deploy/make_secrets.py secrets

compose-check: $(VENV)/.dev ## as root, without Docker: build the images, run docker-compose.yml, work with it
	$(BIN)/python deploy/check/compose_check.py $(if $(TORCH_INDEX),--torch-index $(TORCH_INDEX))

lock: ## pin anew whatever pyproject.toml allows today
	rm -rf build/lock && $(PYTHON) -m venv build/lock
	build/lock/bin/python -m pip install --quiet torch==2.13.0 ".[bench]"
	build/lock/bin/python -m pip freeze --exclude nightshift-queue \
		| sed 's/+cpu$$//; /^nvidia-/d; /^triton==/d' > requirements.lock
	rm -rf build

clean: ## remove the virtual environment and every cache; data in $(HOME_DIR) stays
	rm -rf $(VENV) build .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.demo: $(BIN)/python pyproject.toml requirements.lock
	$(PIP) --editable ".[demo]"
	touch $@

$(VENV)/.dev: $(BIN)/python pyproject.toml requirements.lock
	$(PIP) --editable ".[dev]"
	touch $@ $(VENV)/.demo

$(VENV)/.bench: $(VENV)/.dev
	$(PIP) --editable ".[bench]"
	touch $@
