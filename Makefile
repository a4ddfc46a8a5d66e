# make run     start the app (sets everything up first)
# make test    every test, the browser's included (sets everything up first)
# make quick   the tests that start no process, no browser and no notebook
# make check   format, lint and types
# make bench   timings on this machine
# make soak    100,000 mutations of everything that is parsed, new random examples of every
#              property, 1,000 random convolutions, 2,000 random networks, 200 kills, a hundred
#              random changes of the controls on every page, the export of every architecture of
#              up to 45 million parameters in every form, and fifty sessions at once for ten minutes
# make durations  every test, and how long each file takes into tests/durations.json
# make setup   only the installation that `make run` needs

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# Notebooks run in their own folder and import rsdtr from this one.
export PYTHONPATH := $(CURDIR)
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.DEFAULT_GOAL := run
.PHONY: run test quick durations check bench soak setup setup-dev venv browser

run: setup
	@$(BIN)/python -m rsdtr.ui.server

# A test file is one process's from its beginning to its end; the files that take longest come first.
PYTEST := $(BIN)/python -m pytest --numprocesses auto --maxprocesses 4 \
	--dist loadfile --no-loadscope-reorder

test: setup-dev browser
	@$(PYTEST)

quick: setup-dev
	@$(PYTEST) -m "not process and not browser and not notebook"

durations: setup-dev browser
	@RSDTR_DURATIONS=1 $(PYTEST)

check: setup-dev
	@$(BIN)/python -m ruff format --check .
	@$(BIN)/python -m ruff check .
	@$(BIN)/python -m mypy

bench: setup
	@$(BIN)/python -m rsdtr bench digits_resnet20 --batch 1,16
	@for script in $(filter-out benchmarks/crowd.py,$(wildcard benchmarks/*.py)); do \
		echo "$$script"; $(BIN)/python $$script || exit 1; \
	done

soak: setup-dev
	@$(BIN)/python -m tests.soak.mutations 100000
	@$(BIN)/python -m tests.soak.convolutions 1000
	@$(BIN)/python -m tests.soak.generated_networks 2000
	@$(BIN)/python -m tests.soak.kills 200
	@$(BIN)/python -m tests.soak.parity 45
	@RSDTR_HYPOTHESIS=soak $(BIN)/python -m pytest tests/ring tests/search \
		tests/compressed/test_tr_conv2d.py tests/baselines/test_conv_chain.py
	@RSDTR_WALK=100 $(BIN)/python -m pytest tests/ui/test_walks.py
	@$(BIN)/python benchmarks/crowd.py

# .venv/installed*.txt are copies of what was installed: as long as they equal the
# requirements, setting up is two comparisons and touches neither pip nor the network.
setup:
	@if ! cmp -s requirements.txt $(VENV)/installed.txt || ! $(BIN)/python -c "" 2>/dev/null; then \
		$(MAKE) --no-print-directory venv && \
		echo "Installing requirements.txt (once; torch is large)" && \
		$(BIN)/python -m pip install --quiet --requirement requirements.txt && \
		cp requirements.txt $(VENV)/installed.txt; \
	fi

setup-dev: setup
	@if ! cat requirements.txt requirements-dev.txt requirements-networks.txt | cmp -s - $(VENV)/installed-dev.txt; then \
		echo "Installing requirements-dev.txt (once)" && \
		$(BIN)/python -m pip install --quiet --requirement requirements-dev.txt && \
		$(BIN)/python -m pip install --quiet --no-deps --requirement requirements-networks.txt && \
		cat requirements.txt requirements-dev.txt requirements-networks.txt > $(VENV)/installed-dev.txt; \
	fi

# A folder left behind by an interrupted start has no working pip and is made anew.
venv:
	@$(PYTHON) -c "import sys; sys.exit(sys.version_info < (3, 11))" || { \
		echo "RSDTR Explorer needs Python 3.11 or newer, and $(PYTHON) is not: \
	name another one, as in make run PYTHON=python3.12" >&2; exit 1; }
	@$(BIN)/python -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv --clear $(VENV) || { \
		echo "$(PYTHON) could not create $(VENV): on Debian or Ubuntu, \
	install the package python3-venv first" >&2; exit 1; }

# The browser test drives Debian's chromium; where it cannot be installed, pytest says so.
browser:
	@if ! command -v chromium chromium-browser google-chrome >/dev/null; then \
		root=""; [ "$$(id -u)" = 0 ] || root="sudo -n"; \
		if command -v apt-get >/dev/null && $$root true 2>/dev/null; then \
			echo "Installing chromium for the browser test (once)"; \
			$$root apt-get update -qq && \
			$$root env DEBIAN_FRONTEND=noninteractive apt-get install -qq --yes \
				--no-install-recommends chromium chromium-driver >/dev/null; \
		else \
			echo "No chromium here: install it to run the browser test" >&2; \
		fi; \
	fi
