# One word per job. Everything runs in .venv, which `make install` fills with the pinned versions.
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed

XLA := .venv-xla

.PHONY: install demo test chaos browser test-xla gpu docs check format sbom ui clean

install: $(INSTALLED)

$(INSTALLED): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV) || python3 -m venv $(VENV)
	# torch by its exact version first: an open range would bring gigabytes of CUDA with it
	$(BIN)/pip install --quiet --constraint constraints.txt torch==2.13.0
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $(INSTALLED)

# Given again, it starts another search, quickstart-2, quickstart-3 and so on, and says so.
demo: $(INSTALLED)
	$(BIN)/hpsearch search search_spaces/quickstart.py --again

# In the order of tests/conftest.py, which begins with the longest files.
test: $(INSTALLED)
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

# Processes, nodes and servers that are killed in the middle of a search.
chaos: $(INSTALLED)
	$(BIN)/python -m pytest -m chaos tests

# The pages of docs/ as a site in build/site, with an API reference; a warning is an error.
docs: $(INSTALLED)
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[docs]'
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet --strict

# MLflow's pages of a search, as headless Chromium shows them.
browser: $(INSTALLED)
	$(BIN)/python -m pytest -m browser tests/end_to_end

# Training on XLA, on PJRT's CPU device where there is no TPU; the environment takes 8 GB.
test-xla: $(XLA)/.installed
	$(XLA)/bin/python -m pytest tests/xla

$(XLA)/.installed: pyproject.toml constraints.txt
	test -x $(XLA)/bin/python || $(PYTHON) -m venv $(XLA) || python3 -m venv $(XLA)
	grep -vE '^(torch|triton)==' constraints.txt > $(XLA)/constraints.txt
	$(XLA)/bin/pip install --quiet --constraint $(XLA)/constraints.txt --editable '.[dev,tpu]'
	touch $(XLA)/.installed

# What a GPU does, in at most eight minutes: benchmarks/gpu.md and .json. It needs torch, numpy,
# pyarrow and pydantic alone, of any Python that has them: make gpu GPU_PYTHON=/opt/torch/bin/python
GPU_PYTHON ?= $(BIN)/python
gpu:
	PYTHONPATH=. $(GPU_PYTHON) benchmarks/gpu.py

check: $(INSTALLED)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/pyright

format: $(INSTALLED)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

# The software bill of materials (CycloneDX) of all that is pinned.
sbom: $(INSTALLED)
	$(BIN)/python .ci/sbom.py build/sbom.json

ui: $(INSTALLED)
	$(BIN)/hpsearch ui

clean:
	rm -rf build *.egg-info .pytest_cache .ruff_cache .hypothesis
