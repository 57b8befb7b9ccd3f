# Every target sets up .venv if it is missing or older than the lists of dependencies; the stamp file keeps it from
# doing so twice. Works with GNU make on Linux, macOS and Windows (in a POSIX shell).

PYTHON ?= python3
DATASET ?= shapes
export DATASET

ifeq ($(OS),Windows_NT)
BIN := .venv/Scripts
else
BIN := .venv/bin
endif
STAMP := .venv/.complete

# Two notebooks or tests that compute side by side with all threads each wait for one another's threads by spinning:
# several times slower on two cores. Must be set before Python starts.
run test: export OMP_NUM_THREADS := 1

.PHONY: setup run test lab lint render clean

setup: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[dev]"
	$(BIN)/python -c "open('$(STAMP)', 'w').close()"

run: $(STAMP)  ## execute every notebook quickly; DATASET=shapes (built in), cifar10 or a folder of images
	$(BIN)/python notebooks/run.py

test: $(STAMP)  ## all tests, the notebooks' checked outputs included
	$(BIN)/python -m pytest

lab: $(STAMP)  ## JupyterLab in notebooks/
	$(BIN)/jupyter lab --notebook-dir=notebooks

lint: $(STAMP)  ## style of code and notebooks
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

render: $(STAMP)  ## the committed notebooks anew, in full: an hour or more; DATASET=cifar10 or a folder
	$(BIN)/python notebooks/run.py --render

clean:  ## what was built, not .venv and not data/
	$(PYTHON) -c "import shutil; shutil.rmtree('build', ignore_errors=True)"
