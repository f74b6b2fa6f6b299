VENV ?= .venv
PYTHON ?= python3
BIN := $(VENV)/bin

.PHONY: demo test test-long test-extras gpu gpu-results check install gallery studies results

demo: install
	$(BIN)/collapse-lab compare

test: install
	$(BIN)/python -m pytest -n 2 --dist loadfile

# Three processes where two are tested, what several refuse, every arm of a study: minutes more.
test-long: install
	$(BIN)/python -m pytest -n 2 --dist loadfile -m long

# Lightning, Transformers, lightly, TensorBoard, Weights & Biases and the compiler, each in a real fit; jobs through
# submitit, and on a Slurm of one node where that is installed. Deprecation warnings are shown and are not errors. Then the toy's page in a headless Chromium, where there is one.
test-extras: $(VENV)/.installed-extras
	$(BIN)/python -m pytest -m extras -W default tests/extras
	$(BIN)/python -m pytest -rs tests/toy/test_phase_portrait.py

# What only a CUDA device shows; every one of these is skipped, with its reason, where there is none.
gpu: install
	$(BIN)/python -m pytest -rs -m gpu tests

# The same, the benchmarks, and runs of CIFAR-10 for their accuracy; see the head of the script for its stages.
gpu-results: install
	PYTHON=$(BIN)/python sh benchmarks/gpu.sh $(CIFAR) $(PHOTOGRAPHS)

check: install
	$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/mypy

install: $(VENV)/.installed

$(VENV)/.installed: setup.cfg pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet torch torchvision
	$(BIN)/python -m pip install --quiet --editable ".[test,check]"
	touch $@

$(VENV)/.installed-extras: $(VENV)/.installed
	$(BIN)/python -m pip install --quiet --editable ".[test,extras]"
	touch $@

# What the gallery reads: a folder in the layout of torchvision, and an npz of uint8 NHWC images.
FASHION ?= .data/fashion
CIFAR ?= .data/cifar10-jpeg-q75.npz
COMPARE := $(BIN)/collapse-lab compare

gallery: install
	$(COMPARE) --name digits
	$(COMPARE) --seeds 8 --name digits-none
	$(COMPARE) --seeds 8 --name digits-affine --network.projector_output_norm affine
	$(COMPARE) --seeds 8 --name digits-non-affine --network.projector_output_norm non-affine
	$(COMPARE) --seeds 3 --name fashion-mnist --data.name fashion-mnist --data.root $(FASHION) --data.download --data.train_images 10000
	$(COMPARE) --seeds 3 --name cifar10 --data.name npz --data.root $(CIFAR) --data.train_images 10000
	$(BIN)/python figures/publish.py runs

# The studies of experiments/ as their own commands run them; a second call goes on where the first was stopped.
HEADLINES := $(patsubst %,experiments/%.py,alternation head mean_input stop_gradient)
ON_DIGITS := experiments/momentum_time.py
OTHERS := $(filter-out $(HEADLINES) $(ON_DIGITS),$(wildcard experiments/*.py))
SETTINGS := --data fashion-mnist --set data.root=$(FASHION) --set data.download=true --set data.train_images=10000 \
	--set network.width=16 --set train.epochs=8
STUDY := $(BIN)/collapse-lab study

studies: install
	$(STUDY) $(HEADLINES) --seeds 8 $(SETTINGS)
	$(STUDY) $(OTHERS) --seeds 3 $(SETTINGS)
	$(STUDY) $(ON_DIGITS) --seeds 8 --data digits --set monitor.every=2
	$(BIN)/python figures/publish_results.py runs

# docs/results.md from the summaries that are committed.
results: install
	$(BIN)/python figures/results_page.py
