# `make demo` and `make test` work in a fresh clone: they make .venv and install what they need, torch first, so that
# its build can be chosen with `make TORCH=...`; other packages are content with the one that is there.
PYTHON ?= python3
TORCH ?= torch==2.13.0
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: install demo test lint benchmarks clean

install: $(STAMP)

$(STAMP): setup.cfg pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet $(TORCH)
	$(BIN)/python -m pip install --quiet --editable ".[test]"
	touch $(STAMP)

demo: install
	$(BIN)/neurt demo --output demo_output

test: install lint
	$(BIN)/python -m pytest tests

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

benchmarks: install
	$(BIN)/python benchmarks/neighbour_channels.py
	$(BIN)/python benchmarks/throughput.py
	$(BIN)/python benchmarks/planted_groups.py
	$(BIN)/python benchmarks/build_microns.py
	$(BIN)/python benchmarks/window_stream.py

clean:
	rm -rf $(VENV) demo_output build dist *.egg-info
