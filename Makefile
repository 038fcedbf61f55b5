# Everything sets itself up: python3 with venv, and make, are enough.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
EXTRAS ?= dev

.PHONY: setup demo test all-tests test-slow test-random coverage lint style types format docs bench clean

setup: $(READY)

# Modules are compiled when they are first imported: compiling all of torch takes as long as installing it.
$(READY): pyproject.toml hatch_build.py
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --upgrade pip
	$(call install,.[$(EXTRAS)])
	@touch $(READY)

# uv installs in a third of the time, but does not read pip's configuration: not where pip has an index of its own. Its cache would
# keep 8 GB.
define install
if $(BIN)/pip config list | grep -q '[.]index-url=' \
	    || ! { $(BIN)/pip install --quiet uv && $(BIN)/uv pip install --quiet --no-cache --python $(BIN)/python --editable '$(1)'; }; then \
	    $(BIN)/pip install --quiet --no-compile --editable '$(1)'; fi
endef

# make demo [MESHES=folder] [OUT=folder]
OUT ?= demo
demo: setup
	$(BIN)/mvr demo --out '$(OUT)' $(if $(MESHES),--meshes '$(MESHES)')

# Modules and rewritten assertions are compiled once, not by every process that a test starts.
unexport PYTHONDONTWRITEBYTECODE

# Types are checked beside the tests, which often wait for other processes.
test: style
	@echo 'The tests take three to seven minutes on two cores; pytest prints the seconds at the end.'
	@$(MAKE) --no-print-directory --jobs 2 types all-tests

all-tests: setup
	$(BIN)/pytest

test-slow: setup
	$(BIN)/pytest -m 'slow or not slow'

# Files and tests in another order each time; the seed is printed, and `make test-random SEED=1234` repeats it.
test-random: setup
	$(BIN)/pytest -p randomly $(if $(SEED),--randomly-seed=$(SEED))

# Which lines of the three packages the tests run.
coverage: setup
	$(BIN)/pytest --cov mvretrieval --cov mvrender --cov mvtrain --cov-report term:skip-covered

lint: style types

style: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/oxlint --deny-warnings mvretrieval

types: setup
	$(BIN)/mypy

format: setup
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# The site, in build/site.
docs: setup
	$(call install,.[docs])
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --site-dir build/site

# make bench [GROUP=collection]
GROUP ?= speed
bench: setup
	$(BIN)/python -m benchmarks $(GROUP)

clean:
	rm -rf $(VENV) demo dist build benchmarks/work
