# make demo     sets up .venv and takes EfficientNet-Lite0 from weights to a report
# make test     sets up the same and runs the tests; make test-all those too that take minutes each
# make check    what CI runs: lint, format, types, tests
# make fuzz     feeds damaged files to every reader for an hour: SECONDS=60 for each, CASES=10000 instead, SEED=another
# make axe      installs axe-core, make mlflow-server a server of MLflow, both below build/ for the tests that need them
# make audit    asks PyPI which installed packages have known weaknesses; make sbom writes build/sbom.json
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
OUT ?= demo
# The tests start Python often: what it has compiled is kept, whatever the shell says.
export PYTHONDONTWRITEBYTECODE :=
# Files of tests side by side: most tests wait for one core, or for a process.
WORKERS ?= --numprocesses 2 --dist loadfile

.PHONY: demo test test-all test-fast check lint types docs python-versions fuzz audit sbom setup mlflow-server axe clean

setup: $(VENV)/.installed

$(VENV)/.installed: pyproject.toml
	@command -v $(PYTHON) >/dev/null || { echo "$(PYTHON) is missing: install Python 3.11 or set PYTHON=..."; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	# MediaPipe asks for a newer absl-py than tensorflow-model-optimization takes; both work with the older one.
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps mediapipe==1.2.2 opencv-contrib-python-headless==5.0.0.93
	$(BIN)/python -m pip install --quiet --disable-pip-version-check sounddevice==0.5.6
	@touch $@

demo: setup
	$(BIN)/edgenet run efficientnet-lite0 --images sample --out $(OUT)
	@echo "Open $(OUT)/report.html"

test: setup
	$(BIN)/python -m pytest -m "not device and not long" $(WORKERS)

test-all: setup
	$(BIN)/python -m pytest -m "not device" $(WORKERS)

test-fast: setup
	$(BIN)/python -m pytest -m "not device and not slow and not long" $(WORKERS)

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

# Type checkers cannot follow the mapping of the source folders in an editable install: check an installed copy.
types: setup
	rm -rf build/types && $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-compile --target build/types .
	cd build/types && ../../$(BIN)/mypy --config-file ../../pyproject.toml -p edgenet

check: lint types test

docs: setup
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict
	@echo "Open build/site/index.html"

python-versions: setup
	$(BIN)/python tests/helpers/python_versions.py

# 25 readers, 144 s each. What is found lies in build/fuzz; mended, it goes to tests/corpus.
SECONDS ?= 144
SEED ?= 0
fuzz: setup
	cd tests && ../$(BIN)/python -m fuzz.run --seed $(SEED) $(if $(CASES),--cases $(CASES),--seconds $(SECONDS)) $(READERS)

# Tools that look at the environment stand in one of their own, so that they are no part of what they look at.
AUDIT := build/audit/bin
$(AUDIT)/.installed: Makefile
	$(PYTHON) -m venv build/audit
	$(AUDIT)/python -m pip install --quiet --disable-pip-version-check pip-audit==2.10.1 cyclonedx-bom==7.5.0
	@touch $@

# --strict: a package that PyPI does not answer for is a failure, not a package without a weakness.
audit: setup $(AUDIT)/.installed
	$(BIN)/python -m pip --disable-pip-version-check freeze --exclude-editable > build/installed.txt
	$(AUDIT)/pip-audit --strict --disable-pip --no-deps --requirement build/installed.txt

sbom: setup $(AUDIT)/.installed
	$(AUDIT)/cyclonedx-py environment $(BIN)/python --pyproject pyproject.toml --no-validate \
		--output-reproducible --output-format JSON --output-file build/sbom.json

# What some tests drive, and skip without, in places of their own: an MLflow server (it wants an older pyarrow than the
# tests have), and axe-core, which looks for what keeps people from reading a page.
MLFLOW := build/mlflow-venv
AXE := build/node/node_modules/axe-core

mlflow-server: $(MLFLOW)/.installed

$(MLFLOW)/.installed: Makefile
	$(PYTHON) -m venv $(MLFLOW)
	$(MLFLOW)/bin/python -m pip install --quiet --disable-pip-version-check mlflow==3.17.2
	@touch $@

axe: $(AXE)/.installed

$(AXE)/.installed: Makefile
	npm install --prefix build/node --no-save --no-audit --no-fund --silent axe-core@4.14.1
	@touch $@

clean:
	rm -rf build $(OUT) .pytest_cache .ruff_cache .mypy_cache
