# Every target sets up .venv if it is missing or older than the lists of dependencies; the stamp file keeps it from
# doing so twice. Works with GNU make on Linux, macOS and Windows (in a POSIX shell).

PYTHON ?= python3
DATASET ?= shapes
STUDY ?= data/reference
export DATASET

ifeq ($(OS),Windows_NT)
BIN := .venv/Scripts
else
BIN := .venv/bin
endif
STAMP := .venv/.complete

# Two notebooks or tests that compute side by side with all threads each wait for one another's threads by spinning:
# several times slower on two cores. Must be set before Python starts.
run test test-broken mutants faults browser colab reference: export OMP_NUM_THREADS := 1

# In JupyterLab two notebooks may well compute at once, and each should have all threads while it is alone; a run of an
# hour should survive company. Threads that sleep while they wait cost 10 to 30 % alone; threads that spin cost a factor
# of 4 to 26 side by side (two cores).
lab render: export OMP_WAIT_POLICY := passive

# A batch's activations are megabytes that are freed and taken again in every step. By default glibc gives such blocks
# back to the system each time and pays for every page anew; kept, training in fp32 is 1.3 to 1.6 times as fast (two
# networks, two runs each). Other C libraries pass these by. Read when a process starts: hence here, from where notebook kernels inherit them too.
export MALLOC_MMAP_MAX_ := 0
export MALLOC_TRIM_THRESHOLD_ := -1
export MALLOC_TOP_PAD_ := 268435456

.PHONY: setup run test test-broken test-lowest test-newest mutants faults browser colab address lab lint links bench render editions standalone reference clean

setup: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[dev]"
	$(BIN)/python -c "open('$(STAMP)', 'w').close()"

run: $(STAMP)  ## execute every notebook quickly; DATASET=shapes (built in), cifar10 or a folder of images
	$(BIN)/python tools/run.py

test: $(STAMP)  ## all tests, the notebooks' checked outputs included; two processes share them
	$(BIN)/python -m pytest -n 2 --dist worksteal

faults: $(STAMP)  ## only the tests that inject faults, and their table in tests/README.md
	$(BIN)/python -m pytest -m fault --fault-table tests/README.md

test-broken: $(STAMP)  ## every mistake of tests/broken/gallery.yaml made in a copy, and noticed; a table of it
	$(BIN)/python -m pytest tests/slow/gallery_check.py

test-lowest test-newest: test-%:  ## all tests with the lowest, or newest, allowed versions, in build/venv-*
	$(PYTHON) tools/versions.py $*

mutants: $(STAMP)  ## small automatic changes of course_utils, and whether its tests notice them; a table of it
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[mutants]"
	$(BIN)/python tools/mutants.py

browser: $(STAMP)  ## the notebooks in JupyterLab in headless Chromium, which must be there; screenshots in build/browser/
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[browser]"
	$(BIN)/python -m pytest tests/slow/browser_check.py

colab: $(STAMP)  ## the notebooks and their standalone versions with Colab's versions on Python 3.13, the course not installed
	$(BIN)/python -m pytest tests/slow/colab_check.py

address: $(STAMP)  ## the first cell and the badges of the notebooks anew, from the address and version in pyproject.toml
	$(BIN)/python tools/setup_cell.py

lab: $(STAMP)  ## JupyterLab in notebooks/
	$(BIN)/jupyter lab --notebook-dir=notebooks

lint: $(STAMP)  ## style of code and notebooks, and whether the workflow is a valid and a safe one
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/check-jsonschema --builtin-schema vendor.github-workflows .github/workflows/tests.yml
	$(BIN)/zizmor --offline --quiet .github

links: $(STAMP)  ## whether the links that lead elsewhere are alive; needs a network
	$(BIN)/python tools/links.py

bench: $(STAMP)  ## training speed against the usual way and against the limit
	$(BIN)/python tools/bench.py

render: $(STAMP)  ## the committed notebooks anew, in full, an hour or two; COURSE_DATA=FOLDER for other images
	$(BIN)/python tools/run.py --render

editions: $(STAMP)  ## the notebooks for students, exercises blank, and for teachers, in build/
	$(BIN)/python tools/editions.py

standalone: $(STAMP)  ## notebooks and snippets that need nothing of this repository, in build/standalone/
	$(BIN)/python tools/standalone.py

reference: $(STAMP)  ## train what data/reference/jobs.yaml lists and has no result yet, hours on a CPU; DATASET=cifar10 or a folder
	$(BIN)/python -m course_utils.runs.reference $(STUDY) --dataset $(if $(filter shapes,$(DATASET)),cifar10,$(DATASET))

clean:  ## what was built, not .venv and not data/
	$(PYTHON) -c "import shutil; shutil.rmtree('build', ignore_errors=True)"
