# Each target does all of its own set-up: `make run` and `make test` work on a fresh clone.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: install run test test-slow lint clean

install: $(VENV)/.installed

# What a machine may lack is asked first, so that it is one line instead of pip's or venv's many.
$(VENV)/.installed: pyproject.toml
	@command -v $(PYTHON) >/dev/null || { \
	  echo "error: there is no $(PYTHON): install Python 3.11 or later, or name one: make PYTHON=PROGRAM" >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "error: $(PYTHON) is $$($(PYTHON) --version), 3.11 or later is needed; name one: make PYTHON=PROGRAM" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
	  echo "error: $(PYTHON) cannot make virtual environments: apt-get install python3-venv" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet torch==2.13.0
	$(BIN)/python -m pip install --quiet --editable '.[train,tvm,speech,dev]'
	touch $@

run: install
	$(BIN)/python run.py experiment=quickstart

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports
	$(BIN)/mypy

# One worker a processor, at most four: each holds PyTorch and TVM (1 GB).  One that dies ends the run: pytest-xdist 3.8
# may wait for ever for another in its place (pytest-dev/pytest-xdist#1323).
PYTEST := $(BIN)/python -m pytest --numprocesses=logical --maxprocesses=4 --dist=loadgroup --max-worker-restart=0 \
	--durations=10

test: install lint
	$(PYTEST)

test-slow: install
	$(PYTEST) -m slow

clean:
	rm -rf $(VENV) outputs build *.egg-info
