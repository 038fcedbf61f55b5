# Everything sets itself up: python3 with venv, and make, are enough.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
EXTRAS ?= dev

.PHONY: setup demo test test-slow lint format docs bench clean

setup: $(READY)

$(READY): pyproject.toml hatch_build.py
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --upgrade pip
	$(BIN)/pip install --quiet --editable '.[$(EXTRAS)]'
	@touch $(READY)

# make demo [MESHES=folder] [OUT=folder]
OUT ?= demo
demo: setup
	$(BIN)/mvr demo --out '$(OUT)' $(if $(MESHES),--meshes '$(MESHES)')

test: lint
	$(BIN)/pytest

test-slow: setup
	$(BIN)/pytest -m 'slow or not slow'

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/oxlint --deny-warnings mvretrieval
	$(BIN)/mypy

format: setup
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# The site, in build/site.
docs: setup
	$(BIN)/pip install --quiet --editable '.[docs]'
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --site-dir build/site

# make bench [GROUP=collection]
GROUP ?= speed
bench: setup
	$(BIN)/python -m benchmarks $(GROUP)

clean:
	rm -rf $(VENV) demo dist build benchmarks/work
