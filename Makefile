# `make demo` and `make test` work in a fresh clone: they make .venv and install what they need, torch first, so that
# its build can be chosen with `make TORCH=...`; other packages are content with the one that is there.
PYTHON ?= python3
TORCH ?= torch==2.13.0
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: install demo weights test lint benchmarks clean

install: $(STAMP)

$(STAMP): setup.cfg pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet $(TORCH)
	$(BIN)/python -m pip install --quiet --editable ".[test]"
	touch $(STAMP)

demo: install
	$(BIN)/neurt demo --output demo_output

# The shipped weights, from simulated recordings alone; under two hours on two cores. Interrupted, it goes on. On GPUs:
# make weights LAUNCH="$(BIN)/accelerate launch -m neurt.train" PRECISION=bf16
LAUNCH ?= $(BIN)/neurt
PRECISION ?= no
# Freed memory is kept for the next step instead of being given back to the system: faster training where malloc is glibc's.
weights: export MALLOC_MMAP_MAX_ := 0
weights: export MALLOC_TRIM_THRESHOLD_ := 100000000000

weights: install
	test -d weights/corpus || $(BIN)/neurt simulate-corpus --recordings 5000 --seed 1 --output weights/corpus
	$(LAUNCH) pretrain weights/corpus --output weights/model --resume --seed 1 --test corpus1-00 --missing-neighbours mask \
	    --validation-fraction 0.02 --epochs 1 --batch-size 32 --mixed-precision $(PRECISION)
	cd weights/model && cp config.json model.safetensors processor_config.json reconstruction_errors.json ../..

test: install lint
	$(BIN)/python -m pytest tests

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

benchmarks: install
	$(BIN)/python benchmarks/neighbour_channels.py
	$(BIN)/python benchmarks/throughput.py
	$(BIN)/python benchmarks/reconstruction.py
	$(BIN)/python benchmarks/architecture_trials.py
	$(BIN)/python benchmarks/resume_after_kill.py
	$(BIN)/python benchmarks/planted_groups.py --jobs 2
	$(BIN)/python benchmarks/null_studies.py --jobs 2
	$(BIN)/python benchmarks/planted_explanations.py --jobs 2
	$(BIN)/python benchmarks/published_explanations.py
	$(BIN)/python benchmarks/real_groups.py
	$(BIN)/python benchmarks/build_microns.py
	$(BIN)/python benchmarks/window_stream.py

clean:
	rm -rf $(VENV) demo_output weights build dist *.egg-info
