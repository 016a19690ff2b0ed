# Every target does its own set-up: a machine needs Python 3.11 or newer with venv, and nothing else.
PYTHON ?= python3
ROUNDS ?= 20
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: help demo test check unit chaos lock benchmark clean

help: ## list the targets
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

$(READY): requirements.lock pyproject.toml
	@echo "== set-up: $(VENV) from requirements.lock"
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes --requirement requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $(READY)

demo: $(READY) ## Kafka, a SageMaker endpoint and the connector on this machine, with real events and a real model
	$(BIN)/connector demo

test: check ## lint, types, and every test
	@echo "== tests"
	$(BIN)/python -m pytest --numprocesses 2 --dist loadfile

check: $(READY) ## lint, types, and who may import whom
	@echo "== ruff"
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	@echo "== mypy"
	$(BIN)/mypy
	@echo "== imports"
	$(BIN)/lint-imports --no-logo

unit: $(READY) ## the tests that need no Kafka
	$(BIN)/python -m pytest tests/unit tests/contracts -m "not integration" --numprocesses 2 --dist loadfile

chaos: $(READY) ## ROUNDS=N rounds of kills, broken links and faults; each named scenario; what needs each protection (RESUME=1)
	$(BIN)/python -m tests.chaos --rounds $(ROUNDS) --delivery both $(if $(RESUME),--resume)
	$(BIN)/python -m tests.chaos --scenario all --rounds 2 --delivery both $(if $(RESUME),--resume)
	$(BIN)/python -m tests.chaos --proofs

benchmark: $(READY) ## events/s and CPU an event, beside a plain copy loop
	$(BIN)/python -m tests.benchmarks.throughput

lock: $(READY) ## write requirements.lock anew from pyproject.toml
	$(BIN)/python -m pip install --quiet uv
	$(BIN)/uv pip compile pyproject.toml --extra dev --universal --generate-hashes --python-version 3.11 \
	  --no-header --no-emit-index-url --no-emit-find-links --quiet --output-file requirements.lock

clean: ## remove the virtual environment and caches
	rm -rf $(VENV) .import_linter_cache .mypy_cache .ruff_cache .pytest_cache .hypothesis .chaos
