# Two commands are all a newcomer needs: `make demo` and `make test`.
.DEFAULT_GOAL := help
SHELL := /bin/bash
PYTHON ?= python3
BIN := .venv/bin
# A run starts thousands of Python processes: bytecode is kept, whatever the environment says of it elsewhere.
export PYTHONDONTWRITEBYTECODE :=
# Tests with real processes wait more than they compute; units less so.
WORKERS ?= $(shell echo $$((3 * $$(nproc))))
UNIT_WORKERS ?= $(shell echo $$((2 * $$(nproc))))
PYTEST := $(BIN)/pytest -q -n $(WORKERS)
PIP := $(BIN)/pip --disable-pip-version-check --quiet install --constraint constraints.txt

.PHONY: help demo setup check static compiled test torture conformance faults pythons bench pictures run image deb release lock sbom audit clean

help:  ## this list
	@grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 10

.venv/bin/python:
	@$(PYTHON) -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "python3 >= 3.11 with pip and venv is needed (Debian: apt-get install python3-venv)"; exit 1; }
	@$(PYTHON) -m venv .venv

.venv/.demo: pyproject.toml constraints.txt | .venv/bin/python
	@echo "installing into .venv (once) ..."
	@$(PIP) --editable '.[demo]'
	@touch $@

.venv/.ready: pyproject.toml constraints.txt | .venv/bin/python
	@echo "installing into .venv (once) ..."
	@$(PIP) --editable '.[dev]'
	@tests/queue-libraries .venv
	@touch $@ .venv/.demo

demo: .venv/.demo  ## the gateway at work, with everything it needs, on this machine alone
	@$(BIN)/python -m teg.simulator.demo

setup: .venv/.ready  ## .venv with all that run and tests need

check: setup  ## format, lint, types, unit and flow tests
	@$(MAKE) --no-print-directory --jobs 2 static compiled
	$(BIN)/pytest -q -n $(UNIT_WORKERS) tests/unit tests/flows

static:
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

# Once here, instead of once in each process of the run that follows, which also says what cannot be compiled.
compiled:
	@$(BIN)/pytest --quiet --collect-only -n 0 >/dev/null || true

# Other clients of ThingsBoard, which bring libraries that are not ours.
.venv-clients/.ready: tests/other-clients.txt
	@$(PYTHON) -m venv .venv-clients
	@.venv-clients/bin/pip --disable-pip-version-check --quiet install --requirement $<
	@touch $@

test: setup .venv-clients/.ready  ## everything a release needs; installs what the machine lacks (when root)
	@tests/install-system-packages
	@$(MAKE) --no-print-directory --jobs 2 static compiled
	$(PYTEST)

torture: setup  ## the deep fault runs, which take longer than the rest together
	@tests/install-system-packages
	$(PYTEST) -m torture

conformance: setup  ## what we know of ThingsBoard, checked on the server that TB_TEST_URL names (docs/stand-in.md)
	@$(BIN)/python -m tests.support.conformance_target
	@TB_TEST_REPORT=$${TB_TEST_REPORT:-build/conformance} $(BIN)/pytest -v -n 0 --session-timeout=1800 tests/conformance

faults: setup  ## each planted fault, and the first line of `teg check` about it
	@$(BIN)/python -m tests.support.planted_faults

pythons: setup  ## the unit tests on the other supported Pythons of this machine
	@WORKERS=$(UNIT_WORKERS) tests/on-each-python

bench: setup  ## all figures of this machine beside what is meant, as one table and docs/pictures/performance.svg
	$(BIN)/python -m bench.table

pictures: setup  ## the pictures in docs/pictures, of a demo that runs for them
	@tests/install-system-packages
	$(BIN)/python -m bench.pictures

run: setup  ## the gateway in production mode, with the settings of .env or the environment
	$(BIN)/huey_consumer gateway.huey

deb: setup  ## the Debian package, for amd64, arm64 and armhf, in dist/
	@deploy/make-deb dist

image: setup  ## the gateway as a container image; with EXTRAS=redis also what that needs
	@rm -rf dist/wheels && TEG_EXTRAS=$(EXTRAS) deploy/fetch-wheels dist/wheels
	docker build --build-arg EXTRAS=$(EXTRAS) --tag teg-gateway .

release: setup  ## wheel, Debian package, archive for ./install, image context and SBOM, in dist/
	@deploy/make-release dist

# Tools that look at what we install; in an environment of their own, so that they change nothing of it.
.venv-tools/bin/cyclonedx-py:
	@$(PYTHON) -m venv .venv-tools
	@.venv-tools/bin/pip --disable-pip-version-check --quiet install uv cyclonedx-bom pip-audit

lock: .venv-tools/bin/cyclonedx-py  ## requirements.lock from pyproject.toml and constraints.txt: versions and hashes
	@.venv-tools/bin/uv pip compile pyproject.toml --extra dev --extra redis --extra postgresql --universal --python-version 3.11 --generate-hashes \
		--no-annotate --no-header --quiet --constraint constraints.txt --output-file requirements.lock.new
	@{ grep '^# ' requirements.lock | head -2; cat requirements.lock.new; } > requirements.lock.next
	@rm requirements.lock.new && mv requirements.lock.next requirements.lock

sbom: .venv-tools/bin/cyclonedx-py  ## build/sbom.cdx.json: what the lock holds, as CycloneDX
	@mkdir -p build
	@.venv-tools/bin/cyclonedx-py requirements requirements.lock --pyproject pyproject.toml --output-reproducible \
		--output-file build/sbom.cdx.json

audit: .venv-tools/bin/cyclonedx-py  ## known holes in what the lock holds; asks the package index
	@.venv-tools/bin/pip-audit --require-hashes --disable-pip --requirement requirements.lock

clean:
	rm -rf .venv .venv-tools .venv-clients build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache
