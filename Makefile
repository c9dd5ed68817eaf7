# Two commands need nothing before them: `make demo` and `make test`. Each sets the checkout up first.
# ARGS goes to the command, e.g. make demo ARGS=--keep · NAME picks a benchmark, e.g. make bench NAME=append

PYTHON ?= $(firstword $(foreach python,python3 python3.13 python3.12 python3.11,$(shell \
	$(python) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $(python))) python3)
RUN := .venv/bin/python
SOURCES := access app attacks bench bootstrap.py chaos commands console devstack domain eventstore policies projections queries \
	reactions replication tamper tests verifier

.PHONY: setup demo up test faults chaos check audit bench tamper attacks fuzz format

setup:
	@$(PYTHON) bootstrap.py

demo: setup
	@.venv/bin/countroom demo $(ARGS)

up: setup
	@.venv/bin/countroom up $(ARGS)

PYTEST := $(RUN) -m pytest -q -n 3 --dist loadfile

test: setup
	@$(PYTEST) -m "not fault" $(ARGS)

faults: setup
	@$(PYTEST) -m fault $(ARGS)

chaos: setup  # ARGS="--kills 100 --long --json", "--seed 7", "--faults disk-full --kills 0"
	@$(RUN) -m chaos $(ARGS)

check: setup
	@.tools/uv/bin/uv lock --check --quiet --offline
	@.venv/bin/ruff format --check --quiet $(SOURCES)
	@.venv/bin/ruff check --quiet $(SOURCES)
	@.venv/bin/mypy
	@.venv/bin/lint-imports --no-cache
	@.venv/bin/countroom access check

audit: setup  # asks OSV over the network, so CI does not
	@.tools/uv/bin/uv audit --preview-features audit --locked $(ARGS)

bench: setup
	@$(RUN) -m bench $(NAME) $(ARGS)

tamper: setup
	@$(RUN) -m tamper $(ARGS)

attacks: setup  # ARGS="--quick --json", "--only codes"
	@$(RUN) -m attacks $(ARGS)

fuzz: setup  # ARGS="--requests 100000 --minutes 60 --seed 7"
	@$(RUN) -m attacks.fuzz $(ARGS)

format: setup
	@.venv/bin/ruff format $(SOURCES)
	@.venv/bin/ruff check --fix $(SOURCES)
