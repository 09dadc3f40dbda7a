# The two commands: `make run` does the main job on this machine, `make test` proves it.
# `make help` lists the rest. Everything is installed under .venv/; nothing needs root.
SHELL := /bin/bash
.DEFAULT_GOAL := help

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
SAM := .venv-sam/bin/sam
SCHEMA := docs/configuration.schema.json

export PYTHONPATH := layers/meibo:src:.

.PHONY: help
help: ## list the targets
	@awk -F':.*## ' '/^[a-z0-9-]+:.*## /{printf "  make %-18s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

$(READY): requirements/dev.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "Meibo needs Python 3.11 or newer; $(PYTHON) is $$($(PYTHON) --version 2>&1). Try: make PYTHON=python3.13 $(MAKECMDGOALS)" >&2; exit 1; }
	@echo "setting up $(VENV) (once; a minute or two)"
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/dev.txt
	@# The command meibo, from these folders as they are.
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@

.PHONY: setup
setup: $(READY) ## create .venv with the locked dependencies and the command .venv/bin/meibo

USERS ?= 50000
CYBOZU_USERS ?= 1000
SOURCES ?=

.PHONY: run
run: $(READY) ## archive simulated directories into ./archive/ (USERS=…), or real ones (SOURCES=sources.json)
	@$(BIN)/python -m meibo_local $(if $(SOURCES),--sources '$(SOURCES)',--users '$(USERS)' --cybozu-users '$(CYBOZU_USERS)')

.PHONY: test
test: $(READY) ## unit, integration and template tests
	$(BIN)/python -m pytest -n 2 --dist loadgroup

SEEDS ?= 100
SEED ?=

.PHONY: proof
proof: $(READY) ## every crash point, hostile files, planted secrets, permissions in use, random faults (minutes)
	MEIBO_SOAK_SEEDS='$(SEEDS)' $(BIN)/python -m pytest -n 2 --dist loadgroup tests/fault_injection

.PHONY: soak
soak: $(READY) ## runs and changes under random faults (SEEDS=1000), or one of them again (SEED=17)
	MEIBO_SOAK_SEEDS='$(SEEDS)' MEIBO_SOAK_SEED='$(SEED)' $(BIN)/python -m pytest -n 2 --dist loadgroup tests/fault_injection/test_soak.py

.PHONY: lint
lint: $(READY) ## ruff: rules and format
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

.PHONY: types
types: $(READY) ## mypy --strict
	$(BIN)/mypy

.PHONY: schema
schema: $(READY) ## write the configuration's JSON Schema again from the models
	$(BIN)/python -c '$(PRINT_SCHEMA)' > $(SCHEMA)

.PHONY: schema-check
schema-check: $(READY) ## the configuration's JSON Schema is what the models say
	@$(BIN)/python -c '$(PRINT_SCHEMA)' | diff -u $(SCHEMA) - || \
	  { echo "$(SCHEMA) differs from the models in meibo.configuration. Run: make schema" >&2; exit 1; }
	@echo "$(SCHEMA) is up to date"

PRINT_SCHEMA := import json; from meibo.configuration import configuration_schema; \
  print(json.dumps(configuration_schema(), indent=2, ensure_ascii=False))

# Tools that pin much, each in an environment of its own. The lock names every dependency; --no-deps, because pip does
# not see that a pinned package pins its extras too.
.venv-%/.ready: requirements/%.txt
	@echo "setting up .venv-$* (once; a minute or two)"
	$(PYTHON) -m venv .venv-$*
	.venv-$*/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes -r $<
	@touch $@

.PHONY: validate
validate: .venv-sam/.ready ## sam validate --lint
	SAM_CLI_TELEMETRY=0 $(SAM) validate --lint

.PHONY: scan
scan: .venv-scan/.ready ## checkov on the template, bandit on the code; what is left out says why
	.venv-scan/bin/checkov --config-file .checkov.yaml
	.venv-scan/bin/bandit --quiet --recursive --configfile .bandit.yaml layers/meibo/meibo functions src/meibo_cli

# The database of known vulnerabilities is asked over the network, so this is no part of CI.
.PHONY: audit
audit: .venv-scan/.ready ## pip-audit: known vulnerabilities of what the layer holds (needs the network)
	.venv-scan/bin/pip-audit --strict --disable-pip --require-hashes -r layers/meibo/requirements.txt

# The layer is built by a make of its own, which takes nothing from this one but the Python whose pip fetches wheels.
.PHONY: build
build: .venv-sam/.ready ## sam build: the layers for Lambda's Python and processors
	env -u MAKEFLAGS -u MAKELEVEL -u PYTHONPATH SAM_CLI_TELEMETRY=0 PYTHON=$(abspath .venv-sam)/bin/python $(SAM) build

.PHONY: bench-changes
bench-changes: $(READY) ## drain a queue of changes at the provider's limit, in real time (BENCH_FLAGS="--ids 6000")
	$(BIN)/python -m tests.bench.bench_changes $(BENCH_FLAGS)

.PHONY: e2e
e2e: $(READY) build ## every function in a Lambda container (needs Docker), and sam deploy to a local AWS
	$(BIN)/python -m pytest tests/e2e

.PHONY: browser
browser: $(READY) ## the report's page in headless Chromium, with axe-core (needs Node.js and Chromium)
	cd tests/browser && npm ci --silent --no-audit --no-fund && PYTHON=$(abspath $(BIN))/python PYTHONPATH=$(abspath layers/meibo):$(abspath src):$(abspath .) node --test

.PHONY: bench-read
bench-read: $(READY) ## verify and compare two exports of 1,000,000 users, NDJSON and CSV, each in under a minute and 1 GiB
	$(BIN)/python -m tests.bench.reading $(BENCH_FLAGS)

.PHONY: hooks
hooks: $(READY) ## install the git hooks that run the checks before a commit and a push
	$(BIN)/pre-commit install

.PHONY: lock
lock: ## write the lock files again (needs uv)
	uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header --no-annotate requirements/dev.in -o requirements/dev.txt
	uv pip compile -q --universal --python-version 3.13 --generate-hashes --no-emit-index-url --no-header --no-annotate -c requirements/dev.txt layers/meibo/requirements.in -o layers/meibo/requirements.txt
	uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header --no-annotate requirements/sam.in -o requirements/sam.txt
	uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header --no-annotate requirements/scan.in -o requirements/scan.txt

BENCH := .venv-bench
BENCH_READY := $(BENCH)/.ready

$(BENCH_READY): requirements/bench.txt
	@echo "setting up $(BENCH) (once; a minute or two)"
	$(PYTHON) -m venv $(BENCH)
	$(BENCH)/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/bench.txt
	@touch $@

.PHONY: bench
bench: $(READY) $(BENCH_READY) ## compare the copy with its peers; writes docs/performance.md (BENCH_FLAGS="--size 20")
	PYTHONPATH=. $(BENCH)/bin/python -m tests.bench.bench $(BENCH_FLAGS)
