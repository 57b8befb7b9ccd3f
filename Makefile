# Every target sets up .venv if it is missing or older than the lists of dependencies; the stamp file keeps it from
# doing so twice. Works with GNU make on Linux, macOS and Windows (in a POSIX shell).

PYTHON ?= python3
STUDY ?= data/reference

ifeq ($(OS),Windows_NT)
BIN := .venv/Scripts
else
BIN := .venv/bin
endif
STAMP := .venv/.complete
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt

# DATASET has no default of its own, so that every target can tell a wish from a default. Programs get it as an argument.
unexport DATASET
# $(call folder,VARIABLE,NAME): where DATASET is not NAME, it must be a folder, which goes into the VARIABLE.
folder = $(if $(filter-out $(2),$(DATASET)),$(1)=$$(cd "$(DATASET)" && pwd) || { \
	echo "unknown DATASET: expected $(2) or a folder of images" >&2; exit 2; }; export $(1); )

# Two notebooks or tests that compute side by side with all threads each wait for one another's threads by spinning:
# several times slower on two cores. Must be set before Python starts.
run test reference slow-gallery slow-faults slow-mutants slow-browser slow-site slow-colab: export OMP_NUM_THREADS := 1

# In JupyterLab two notebooks may well compute at once, and each should have all threads while it is alone; a run of an
# hour should survive company. Threads that sleep while they wait cost 10 to 30 % alone; threads that spin cost a factor
# of 4 to 26 side by side (two cores).
lab render: export OMP_WAIT_POLICY := passive

# A batch's activations are megabytes that are freed and taken again in every step. By default glibc gives such blocks
# back to the system each time and pays for every page anew; kept, training in fp32 is 1.3 to 1.6 times as fast (two
# networks, two runs each). Other C libraries ignore these. They are read when a process starts: hence here, from where
# notebook kernels inherit them too.
export MALLOC_MMAP_MAX_ := 0
export MALLOC_TRIM_THRESHOLD_ := -1
export MALLOC_TOP_PAD_ := 268435456

.PHONY: help setup lab run test lint editions site render reference bench address clean
.PHONY: slow-gallery slow-faults slow-mutants slow-browser slow-site slow-colab slow-lowest slow-newest slow-links

help:
	@echo "DATASET=NAME, or DATASET=FOLDER with {train,test}/<class>/*.png or .jpg, names the images for a target."
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-13s %s\n", $$1, $$2 }' Makefile

setup: $(STAMP)  ## install what the course needs into .venv; all other targets do so by themselves

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(PIP) -e ".[dev]"
	$(BIN)/python -c "open('$(STAMP)', 'w').close()"

lab: $(STAMP)  ## open JupyterLab in notebooks/
	$(BIN)/jupyter lab --notebook-dir=notebooks

run: $(STAMP)  ## execute every notebook quickly into build/; DATASET=shapes unless given
	$(BIN)/python tools/run.py --dataset "$(or $(DATASET),shapes)"

test: $(STAMP)  ## run all tests; DATASET=FOLDER of CIFAR-10 (PNG) adds those that need real images
	$(call folder,COURSE_TEST_IMAGES,shapes)$(BIN)/python -m pytest -n 2 --dist worksteal

lint: $(STAMP)  ## check style, types, the direction of imports, and the workflows
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports --no-cache
	$(BIN)/mypy
	$(BIN)/check-jsonschema --builtin-schema vendor.github-workflows .github/workflows/*.yml
	$(BIN)/check-jsonschema --builtin-schema vendor.github-issue-forms .github/ISSUE_TEMPLATE/*.yml
	$(BIN)/check-jsonschema --builtin-schema vendor.citation-file-format CITATION.cff
	$(BIN)/zizmor --offline --quiet .github

editions: $(STAMP)  ## renew notebooks/student/; write notebooks that need nothing else into build/
	$(BIN)/python tools/editions.py
	$(BIN)/python tools/standalone.py

site: $(STAMP)  ## write the web site into build/site/
	$(PIP) -e ".[site]"
	$(BIN)/python tools/website.py

render: $(STAMP)  ## renew the committed outputs, up to two hours; DATASET=cifar10 unless given
	$(call folder,COURSE_DATA,cifar10)$(BIN)/python tools/run.py --render
	$(BIN)/python tools/picture.py

reference: $(STAMP)  ## train the jobs of data/reference/ without a result, hours; DATASET=cifar10 unless given
	$(BIN)/python -m course_utils.runs "$(STUDY)" --dataset "$(or $(DATASET),cifar10)"

bench: $(STAMP)  ## measure the speed of training
	$(BIN)/python tools/bench.py

address: $(STAMP)  ## write the repository's address (ADDRESS, or that of origin) into notebooks and badges
	$(BIN)/python tools/setup_cell.py $(if $(ADDRESS),"$(ADDRESS)")

clean:  ## delete build/, not .venv and not data/
	$(PYTHON) -c "import shutil; shutil.rmtree('build', ignore_errors=True)"

# Slow checks, none of them part of `make test`. What not everybody needs every week is called slow-…: a test wants at
# most twelve other targets, so that `make help` can be read.

slow-gallery: $(STAMP)  ## make every mistake of tests/slow/gallery.yaml in a copy of the course; each must be noticed
	$(BIN)/python -m pytest tests/slow/gallery_check.py

slow-faults: $(STAMP)  ## run the tests that inject faults, and write their table into tests/FAULTS.md
	$(BIN)/python -m pytest -m fault --fault-table tests/FAULTS.md

slow-mutants: $(STAMP)  ## change small things of course_utils by program; its tests must notice them
	$(PIP) -e ".[mutants]"
	$(BIN)/python tools/mutants.py

slow-browser: $(STAMP)  ## run the notebooks in JupyterLab in headless Chromium, which must be installed
	$(PIP) -e ".[browser]"
	$(BIN)/python -m pytest tests/slow/browser_check.py

slow-site: $(STAMP)  ## build the web site and use it in headless Chromium, which must be installed
	$(PIP) -e ".[site,browser]"
	$(BIN)/python -m pytest tests/slow/site_check.py

slow-colab: $(STAMP)  ## run the notebooks with Colab's versions on Python 3.13
	$(BIN)/python -m pytest tests/slow/colab_check.py

slow-lowest:  ## run all tests with the lowest allowed versions, in build/venv-lowest
slow-newest:  ## run all tests with the newest allowed versions, in build/venv-newest
slow-lowest slow-newest: slow-%:
	$(PYTHON) tools/versions.py $*

slow-links: $(STAMP)  ## ask whether the links that lead elsewhere are alive; needs a network
	$(BIN)/python tools/links.py
