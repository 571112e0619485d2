# Two commands matter: `make demo` and `make test`. `make help` names the rest.
SHELL := /bin/sh
.DEFAULT_GOAL := help

VENV := .venv
BIN := $(VENV)/bin
ROOMS := rtml streaming serving quality rtml_assets examples benchmarks
INSTALLED := $(VENV)/.installed
LOCK := requirements.lock

# The first Python that runs and is 3.11 or 3.12; `make demo PYTHON=/path/to/python3.12` overrides it.
SUITABLE := import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 12))
PYTHON ?= $(firstword $(foreach p,python3.11 python3.12 python3 python,$(shell $(p) -c '$(SUITABLE)' >/dev/null 2>&1 && echo $(p))))

# Everything comes from the lock, checked by hash, and nothing is fetched beside it: hence --no-deps and
# --no-build-isolation. Modules are compiled when first imported, which is sooner done than all of them now.
PIP := $(BIN)/python -m pip --disable-pip-version-check --no-input
LOCKED := --no-deps --no-compile --no-build-isolation --use-pep517 --require-hashes

.PHONY: help demo up test chaos audit lint types floors format bench lock install clean

help: ## this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-9s %s\n", $$1, $$2 }' Makefile

demo: $(INSTALLED) ## real flights through the whole platform, live until Ctrl-C (ONCE=1: one day, checked, then exit)
	@$(BIN)/rtml demo $(if $(filter-out 0 no false,$(ONCE)),--once)

up: $(INSTALLED) ## all processes of this project, supervised, until Ctrl-C
	@$(BIN)/rtml up

test: lint types floors ## everything a change must pass: style, types, floors, tests and their coverage
	$(BIN)/python -m pytest --cov --numprocesses auto --dist loadfile --no-loadscope-reorder $(PYTEST_ARGS)

lint: $(INSTALLED) ## ruff: rules and layout; bandit: what is unsafe
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/bandit --quiet --configfile pyproject.toml --recursive $(ROOMS)

types: $(INSTALLED) ## mypy, strict
	$(BIN)/mypy

floors: $(INSTALLED) ## who may import whom
	$(BIN)/lint-imports --no-logo

# The faults of docs/reliability.md, one after another, against a running platform: about six minutes.
chaos: $(INSTALLED) ## cause every fault, and assert its alert, what holds meanwhile, and recovery
	$(BIN)/python -m pytest tests/chaos -m chaos -s --no-cov -x $(PYTEST_ARGS)

format: $(INSTALLED) ## put layout and imports in order
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

# Not part of `test`: it asks an advisory service over the network, and what was safe yesterday may not be today.
# --strict: a package that the service does not know was not audited, which is a failure and not a pass.
audit: $(INSTALLED) ## known vulnerabilities of all that is locked, by pip-audit
	$(BIN)/pip-audit --strict --require-hashes --disable-pip --progress-spinner off --requirement $(LOCK)

# ONLY='http in_process' runs those alone; PROFILE=http shows where its time goes; FULL=1 has the largest peers as well.
bench: $(INSTALLED) ## measure, each figure beside a peer's: about ten minutes, written to benchmarks/results.md
	$(BIN)/python -m benchmarks $(ONLY) $(if $(PROFILE),--profile $(PROFILE)) $(if $(FULL),--full)

lock: $(INSTALLED) ## resolve pyproject.toml into requirements.lock (UPGRADE=1: to the newest)
	$(BIN)/uv pip compile pyproject.toml --extra demo --extra tracing --extra dev --output-file $(LOCK) --quiet \
	  --universal --python-version 3.11 --fork-strategy fewest --generate-hashes \
	  --no-emit-index-url --no-emit-find-links --custom-compile-command 'make lock' $(if $(UPGRADE),--upgrade)

install: $(INSTALLED) ## only make .venv and install the lock

clean: ## remove caches, builds and the demo's data (not .venv, not a project's own .rtml)
	rm -rf .rtml/demo .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache .coverage .coverage.* \
	  build dist htmlcov
	find . -name __pycache__ -type d -not -path './$(VENV)/*' -prune -exec rm -rf {} +

$(BIN)/python:
	@test -n "$(PYTHON)" || { echo "rtml needs Python 3.11 or 3.12; name one with PYTHON=…" >&2; exit 1; }
	@$(PYTHON) -c '$(SUITABLE)' || { echo "$(PYTHON) is not Python 3.11 or 3.12" >&2; exit 1; }
	@echo "==> .venv with $$($(PYTHON) --version)"
	@$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); \
	  echo "$(PYTHON) has no venv of its own (on Debian and Ubuntu: apt install python3-venv)" >&2; exit 1; }

# setuptools goes first: it builds the one locked package that has no wheel.
$(INSTALLED): $(LOCK) pyproject.toml hatch_build.py $(wildcard rtml/kernel/_*.[ch]) | $(BIN)/python
	@rm -f $@ $(VENV)/install.log
	@total=$$(grep -c '^[a-z0-9].*==' $(LOCK)); \
	echo "==> $$total locked packages into .venv (once, about a minute)"; \
	awk '/^[a-z0-9]/ { keep = /^setuptools==/ } keep' $(LOCK) > $(VENV)/setuptools.lock; \
	$(PIP) install --quiet $(LOCKED) --only-binary :all: --requirement $(VENV)/setuptools.lock || exit 1; \
	{ $(PIP) install $(LOCKED) --log $(VENV)/install.log --requirement $(LOCK); echo "Exit $$?"; } | { \
	  done=0; code=1; \
	  while read -r word name rest; do \
	    case "$$word" in \
	      Collecting|Requirement) done=$$((done + 1)) ;; \
	      Ignoring) total=$$((total - 1)) ;; \
	      Installing) name="unpacking them all" ;; \
	      Exit) code=$$name; name="" ;; \
	      *) continue ;; \
	    esac; \
	    if [ -t 1 ]; then printf '\r\033[K    %s/%s  %s' "$$done" "$$total" "$$name"; fi; \
	  done; \
	  if [ -t 1 ]; then printf '\r\033[K'; fi; \
	  exit "$$code"; \
	} || { echo "==> not installed; the whole story is in $(VENV)/install.log" >&2; exit 1; }
	@$(PIP) install --quiet --no-deps --no-build-isolation --editable .
	@touch $@
