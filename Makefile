# Everything is done in .venv, which is made from $(PYTHON) and filled from the locked requirements.

PYTHON ?= python3
VENV := .venv
PY := $(VENV)/bin/python
PIP := $(PY) -m pip --disable-pip-version-check --no-input
# The command line of `make run` and `make demo`: make run ARGS="--port 9000"
ARGS ?=
# The command line of the tests: make test TESTS="-k refresh"
TESTS ?=

CODE = $(wildcard *.py handlers models tests benchmarks)
COMPILE = CUSTOM_COMPILE_COMMAND="make lock" $(PY) -m piptools compile --quiet --generate-hashes --allow-unsafe \
	--strip-extras --no-emit-index-url --no-emit-trusted-host --no-emit-find-links $(if $(UPGRADE),--upgrade)
PYBABEL = $(PY) -m babel.messages.frontend --quiet
# A file's tests share a server; the browsers' files are the longest and come first.
PYTEST = $(PY) -m pytest --numprocesses=$(shell nproc) --dist=loadfile --no-loadscope-reorder
# What needs nothing but Python and no patience; `make check` runs the rest too. To read these two takes seconds.
QUICK = -m "not long and not postgresql" --ignore=tests/browser --ignore=tests/test_schemathesis.py -p no:schemathesis
TOTAL = $(PY) -m coverage report --format=total --include='handlers/*,models/*'

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help run demo test check lint types templates coverage text browse screenshots audit lock clean

help: ## Print this list
	@echo "make TARGET, where TARGET is one of:"
	@sed -n 's/^\([a-z]*\):[^#]*## \(.*\)/  \1\t\2/p' $(firstword $(MAKEFILE_LIST)) | expand -t 12

run: $(VENV)/.run ## Install into .venv and start the server (ARGS="--port 9000")
	@$(PY) server.py serve $(ARGS)

demo: $(VENV)/.run ## Start on a scratch database full of lifelike accounts
	@$(PY) server.py demo $(ARGS)

test: $(VENV)/.dev ## Install what the tests need and run the quick ones, on SQLite (TESTS="-k refresh")
	$(PYTEST) $(QUICK) $(TESTS)

check: lint types templates coverage ## What CI runs: ruff, mypy --strict, djlint, every test, coverage of 95 %
	@$(PY) -m coverage report
	@echo "handlers/ and models/ together: $$($(TOTAL)) %, at least 95 is needed"
	@$(TOTAL) --fail-under=95 >/dev/null

lint: $(VENV)/.dev
	$(PY) -m ruff check
	$(PY) -m ruff format --check

types: $(VENV)/.dev
	$(PY) -m mypy --strict $(CODE)

templates: $(VENV)/.dev
	$(if $(shell find templates -name '*.html' 2>/dev/null),$(PY) -m djlint --lint templates)

coverage: $(VENV)/.dev
	@rm -f .coverage .coverage.*
	$(subst $(PY),$(PY) -m coverage run,$(PYTEST)) $(TESTS)
	@$(PY) -m coverage combine --quiet

text: $(VENV)/.dev ## Bring the catalogues in locale/ up to date with the texts in code and templates
	$(PYBABEL) extract --mapping=babel.cfg --keyword=N_ --keyword=NN_:1,2 --no-location --sort-output --project=Sessions \
		--output=locale/messages.pot .
	@for language in en ru; do $(PYBABEL) update --input-file=locale/messages.pot --output-dir=locale \
		--locale=$$language --no-fuzzy-matching --ignore-obsolete --width=110; done
	@rm locale/messages.pot

browse: $(VENV)/.dev ## Look at every page in every state, size, light and language, by axe (some minutes)
	BROWSE=all $(PY) -m pytest tests/browser/test_pages.py tests/browser/test_desk.py --numprocesses=$(shell nproc)

screenshots: $(VENV)/.dev ## Take the pictures that the README shows
	$(PY) -m tests.browser.screenshots docs/screenshots

audit: $(VENV)/.dev ## Ask PyPI whether a hole is known in what requirements.txt pins
	@test -x $(VENV)/audit/bin/pip-audit || { $(PYTHON) -m venv $(VENV)/audit && \
		$(VENV)/audit/bin/pip --disable-pip-version-check install -qq pip-audit; }
	$(VENV)/audit/bin/pip-audit --strict --requirement requirements.txt --require-hashes --disable-pip --progress-spinner off

lock: $(VENV)/.dev ## Remake both lock files from pyproject.toml (UPGRADE=1: with the newest versions)
	$(COMPILE) --output-file=requirements.txt pyproject.toml
	$(COMPILE) --extra=dev --constraint=requirements.txt --output-file=requirements-dev.txt pyproject.toml

clean: ## Remove .venv and whatever the tools leave; the data stays
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis .coverage .coverage.* htmlcov tests/postman/node_modules
	find . -name __pycache__ -not -path './.git/*' -prune -exec rm -rf {} +

$(PY):
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "Python 3.11 or newer is needed; $(PYTHON) is not. Try: make $(MAKECMDGOALS) PYTHON=python3.11" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || \
		{ echo "$(PYTHON) cannot make a virtual environment. On Debian: apt install python3-venv" >&2; exit 1; }
	@echo "Making $(VENV) ..."
	@$(PYTHON) -m venv --clear $(VENV)

$(VENV)/.run: requirements.txt | $(PY)
	@echo "Installing what the server needs ..."
	@$(PIP) install -qq --require-hashes --requirement requirements.txt
	@touch $@

$(VENV)/.dev: requirements-dev.txt | $(PY)
	@echo "Installing what the server and its tests need ..."
	@$(PIP) install -qq --require-hashes --requirement requirements-dev.txt
	@touch $@ $(VENV)/.run
