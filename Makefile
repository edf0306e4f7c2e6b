# make run   serve on http://127.0.0.1:8000 (the demo checkpoint where Ray finds no GPU)
# make test  run every test
# make quick run the unit tests: no server, no other process, no cluster, no pipeline
# make test-browser run the tests of the page in a real browser: chromium must be installed
# make test-cluster run the tests on a Ray cluster of several nodes: redis-server must be installed
# make docs  build the documentation as a site
# make check format, lint, types, import rules
# make contract try what /openapi.json says on every endpoint, and every property with many examples
# make chaos kill every part of a service under load, and count what became of the renders
# make soak  half an hour (MINUTES) of mixed load: slopes of memory and files of every process
# Each target makes what it needs: a virtual environment in .venv and the packages pinned in constraints.txt.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# Ray makes all its workers nice (15), the API among them. Here only generation on a CPU is: it makes itself so.
NICENESS := 0

# For two cores. Tests with a service wait most of the time: for replicas that start, for leases that run out.
WORKERS := 2

# Where Python is told to keep no compiled files, pytest would compile all tests in each run again.
PYTEST := PYTHONDONTWRITEBYTECODE= $(BIN)/python -m pytest -q

.PHONY: install run test test-service test-own-services test-rest test-browser test-cluster quick check format contract bench chaos soak docs

install: $(VENV)/installed

run: $(VENV)/installed
	@echo "==> serving on http://127.0.0.1:8000 - API documentation at /docs, stop with Ctrl-C"
	RAY_worker_niceness=$(NICENESS) $(BIN)/wan-lora serve serve_config.yaml

test: $(VENV)/installed-dev
	@echo "==> running the tests"
	@$(MAKE) --no-print-directory --jobs=2 --output-sync=target test-service test-rest test-own-services

test-service:
	$(PYTEST) -m service

test-own-services:
	$(PYTEST) -m own_service -n $(WORKERS) --dist loadgroup --no-loadscope-reorder

test-rest:
	$(PYTEST) -m "not service and not own_service and not browser and not cluster" -n $(WORKERS) --dist loadfile

test-browser: $(VENV)/installed-dev
	@echo "==> running the tests of the page in chromium"
	$(PYTEST) -m browser

test-cluster: $(VENV)/installed-dev
	@echo "==> running the tests on a cluster of several nodes"
	$(PYTEST) -m cluster

quick: $(VENV)/installed-dev
	@echo "==> running the unit tests"
	$(PYTEST) -m unit -n $(WORKERS)

check: $(VENV)/installed-dev
	@echo "==> checking format, lint, types and import rules"
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache

format: $(VENV)/installed-dev
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

contract: $(VENV)/installed-dev
	@echo "==> trying what the API's description says, with 300 examples an endpoint"
	$(BIN)/python -m tests.contract
	@echo "==> trying 500 examples of every other property"
	$(PYTEST) -m "hypothesis and unit" --hypothesis-profile=thorough

chaos: $(VENV)/installed-dev
	$(BIN)/python -m tests.chaos

MINUTES := 30

soak: $(VENV)/installed-dev
	$(BIN)/python -m tests.soak --minutes $(MINUTES)

bench: $(VENV)/installed-dev
	$(BIN)/python -m tests.benchmarks.http_load

docs: $(VENV)/installed
	@echo "==> building the documentation into build/site; a link that leads nowhere is an error"
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable ".[docs]"
	$(BIN)/zensical build --strict --config-file mkdocs.yml

$(BIN)/python:
	@echo "==> making a virtual environment in $(VENV)"
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed; set PYTHON=...")'
	$(PYTHON) -m venv $(VENV)

$(VENV)/installed: pyproject.toml constraints.txt | $(BIN)/python
	@echo "==> installing the service's packages into $(VENV) (once; a few minutes)"
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable .
	@touch $@

$(VENV)/installed-dev: $(VENV)/installed
	@echo "==> installing the test and check tools into $(VENV)"
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable ".[dev]"
	@touch $@
