# Each of the two does everything on a fresh Debian machine with Python 3.11 or newer: make run, make test.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin

.PHONY: run test lint types unit fuzz compiled bench docs reference clean install

# An embedded Jitsi and two bots in it, with each other's media. Ctrl-C ends it: a job of its own on the terminal (set -m),
# so that the key reaches the bots alone and make ends as they do, with 0.
run: $(VENV)/.app
	@if [ -t 0 ]; then set -m; $(BIN)/jitsi-bot run --embedded; else exec $(BIN)/jitsi-bot run --embedded; fi

$(VENV)/.app: pyproject.toml constraints.txt
	.ci/packages ensurepip
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e .
	touch $@

install: $(VENV)/.dev

$(VENV)/.dev: pyproject.toml constraints.txt
	.ci/packages
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	touch $@

lint: install
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/lint-imports

types: install
	$(BIN)/mypy

# Most tests wait for media and clocks, not for the processor: two processes halve the time.
unit: install
	$(BIN)/coverage erase
	$(BIN)/python -m pytest -q -n 2 --dist loadfile --cov --cov-report=term

# A minute of hostile input, guided by coverage; what it finds is in test-output/fuzz and fails the run.
FUZZ_SECONDS ?= 60
fuzz: install
	$(BIN)/python -m tests.fuzz --seconds $(FUZZ_SECONDS)

# The package as it is installed where there is a C compiler: its innermost modules compiled (setup.py).
compiled: install
	$(BIN)/python setup.py --quiet build --build-base build/setup --build-lib build/compiled

# What participants cost, beside aiortc as it is: one table, and build/bench.json. BENCH=--quick shows that it works.
BENCH ?=
bench: compiled
	PYTHONSAFEPATH=1 PYTHONPATH=build/compiled:. $(BIN)/python -m bench $(BENCH)

test: lint types unit fuzz

# The pages of the reference, out of the code.
reference: install
	$(BIN)/python -m docs.pages

docs: install
	$(BIN)/mkdocs build --quiet --clean
	$(BIN)/pdoc -o build/docs/python bot.api bot.events bot.settings bot.errors bot.media.remote bot.media.synthetic
	@echo build/docs/index.html

clean:
	rm -rf $(VENV) build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .coverage*
