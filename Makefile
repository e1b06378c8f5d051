# Each target does all of its own set-up: `make run` and `make test` work on a fresh clone.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: install run test test-slow lint clean

install: $(VENV)/.installed

$(VENV)/.installed: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet torch==2.13.0
	$(BIN)/python -m pip install --quiet --editable '.[tvm,speech,dev]'
	touch $@

run: install
	$(BIN)/python run.py experiment=quickstart

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

# One worker a processor, at most four: each holds PyTorch and TVM (1 GB).
PYTEST := $(BIN)/python -m pytest --numprocesses=logical --maxprocesses=4 --dist=worksteal

test: install lint
	$(PYTEST)

test-slow: install
	$(PYTEST) -m slow

clean:
	rm -rf $(VENV) outputs build *.egg-info
