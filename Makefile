# Everything below sets itself up: a machine needs Python 3.11 or newer (with venv) and make.
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
PYTEST := $(BIN)/pytest

# A lock is installed as it is: every distribution by its hash, and --no-deps, so that pip resolves nothing and no later
# release can change or break what is installed. tests/deploy/test_locks.py proves that the locks leave nothing out.
# Build tools come first: they build the package itself, and the one dependency that has no wheel (--use-pep517: the pip
# of Debian 12 would run its setup.py, and warn of that).
# Other users run what root installs, whatever root's umask is.
READABLE := umask 022 &&
PIP    := $(READABLE) $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --use-pep517
LOCKED := $(PIP) --require-hashes

.PHONY: help demo install test quick coverage check bench mutants model chaos side-by-side simulate drill stops soak failovers env-example manifests pictures sbom contract lock clean
.DEFAULT_GOAL := test

help: ## print this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "%-14s%s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

demo: $(VENV)/.run ## the main job: emulator, Valkey, worker and a crowd, compared with the truth at the end; ARGS='--seconds 15m'
	$(BIN)/tally demo $(ARGS)

install: $(VENV)/.built ## the worker as its locks have it, into VENV: a copy, for a server (make install VENV=/opt/tally)
	$(LOCKED) -r requirements.lock
	$(PIP) ./client
	$(PIP) .
	@$(BIN)/tally --version
	@rm -f $(VENV)/.dev $(VENV)/.run # in a checkout's own .venv, make demo and make test put the sources back

test: $(VENV)/.dev check ## formatting, lint, types, import contracts, then every test
	$(PYTEST) -n 3 --dist worksteal

QUICK := $(addprefix tests/,fundamentals domain settings store source applying live history reconciliation reading service cli \
    commands telemetry web api emulator simulation test_documentation.py)
quick: $(VENV)/.dev ## about a minute: the tests that start no command and no worker
	$(PYTEST) -n 3 --dist worksteal -m "not processes" $(QUICK)

coverage: $(VENV)/.dev ## every test, and which lines none of them comes to
	$(PYTEST) -n 3 --dist worksteal --cov --cov-report=term

check: $(VENV)/.dev ## formatting, lint, types, import contracts
	$(BIN)/ruff format --check --quiet .
	$(BIN)/ruff check --quiet .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo

RUNS ?= 5
bench: $(VENV)/.dev ## how fast, beside what a team would write instead; BENCH=… for some of them, ARGS=--json or --save
	$(BIN)/python -m tests.benchmarks $(BENCH) --runs $(RUNS) $(ARGS)

mutants: $(VENV)/.dev ## would a test notice? change the rule a little at a time; each change must make one fail
	$(BIN)/python -m tests.mutants $(MUTANTS)

KILLS    ?= 200
RESTARTS ?= 20
chaos: $(VENV)/.dev ## kills of the worker and restarts of Redis under load, until the arithmetic is right; SEED=… repeats one
	$(BIN)/python -m tests.chaos --kills $(KILLS) --restarts $(RESTARTS) $(if $(SEED),--seed $(SEED))

side-by-side: $(VENV)/.dev ## the same with a worker of another release beside today's, in both orders; OLD=v0.2.0 (default: the last release), RUNS=…
	$(BIN)/python -m tests.chaos --old $(OLD) --runs $(RUNS) --kills 20 --restarts 3 $(if $(SEED),--seed $(SEED))

drill: $(VENV)/.dev ## a day in a worker's life: new lists, tokens, a proxy, a full Redis, restarts, kills and alerts under load; ARGS=--without-prometheus
	$(BIN)/python -m tests.drill $(ARGS)

TIMES ?= 50
stops: $(VENV)/.dev ## SIGTERM under full load, again and again: is an event lost, and how long does it take
	$(BIN)/python -m tests.drill stops --times $(TIMES)

MINUTES ?= 30
RATE    ?= 2000
soak: $(VENV)/.dev ## a worker under a steady load for half an hour: do memory, file descriptors and lag stay as they are
	$(BIN)/python -m tests.drill soak --minutes $(MINUTES) --rate $(RATE)

SERVERS ?= cluster
failovers: $(VENV)/.dev ## a worker on several servers that are killed, failed over, moved and lag; SERVERS=sentinels, SEED=…, ARGS="--wait-replicas 1"
	$(BIN)/python -m tests.drill $(if $(SEED),--seed $(SEED)) $(SERVERS) --rate $(RATE) $(ARGS)

SEEDS  ?= 10000
FIRST  ?= 0
FAULTS ?= all
simulate: $(VENV)/.dev ## thousands of histories in memory, each from one seed, all ending with the truth; SEED=… tells one
	$(BIN)/python -m tests.simulation --seeds $(SEEDS) --first $(FIRST) --faults $(FAULTS) $(if $(SEED),--seed $(SEED))

model: $(VENV)/.dev ## every order of steps of the protocol, by Spin; ONLY="tallies OVERFLOWS=1" for one configuration
	$(BIN)/python -m tests.model $(ONLY)

env-example: $(VENV)/.dev ## write deploy/.env.example anew, from the settings
	$(BIN)/python -m tests.env_example > deploy/.env.example

manifests: $(VENV)/.dev ## write the manifests of the Prometheus operator anew, from deploy/prometheus
	$(BIN)/python -m tests.operator_manifests

pictures: $(VENV)/.dev ## draw deploy/pictures anew (needs chromium)
	$(BIN)/python -m tests.pictures

sbom: $(VENV)/.dev ## print a bill of materials (CycloneDX) of what make install installs, from the lock, without a network
	@$(BIN)/python -m tests.sbom

contract: $(VENV)/.dev ## write tests/contract.json anew: schema, settings, exit codes and metrics of this version
	$(BIN)/python -m tests.contract

COMPILE := uv pip compile -q -U --universal --python-version 3.11 --generate-hashes --no-header --no-annotate --no-emit-package reaction-tally
lock: ## rewrite the lock files from pyproject.toml (needs uv); they carry hashes and no addresses
	$(COMPILE) --group build -o requirements-build.lock
	$(COMPILE) --extra embedded pyproject.toml -o requirements.lock
	$(COMPILE) --extra embedded --group dev pyproject.toml -o requirements-dev.lock

clean: ## delete VENV and the caches
	rm -rf $(VENV) .coverage* .mypy_cache .ruff_cache .import_linter_cache .hypothesis

# pip, and not python: where Debian's python3-venv is missing, a folder with a python and without pip stays behind.
$(BIN)/pip:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Python 3.11 or newer is needed: make PYTHON=python3.12 …"; exit 1; }
	$(READABLE) $(PYTHON) -m venv $(VENV)

$(VENV)/.built: requirements-build.lock | $(BIN)/pip
	$(LOCKED) -r $<
	@touch $@

$(VENV)/.dev: requirements-dev.lock pyproject.toml client/pyproject.toml $(VENV)/.built
	$(LOCKED) -r $<
	$(PIP) --editable ./client
	$(PIP) --editable .
	@echo "$(VENV) runs the sources in this folder now. For a copy of them: make install."
	@touch $@

$(VENV)/.run: requirements.lock pyproject.toml client/pyproject.toml $(VENV)/.built
	$(LOCKED) -r $<
	$(PIP) --editable ./client
	$(PIP) --editable .
	@echo "$(VENV) runs the sources in this folder now. For a copy of them: make install."
	@touch $@
