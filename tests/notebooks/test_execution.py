"""The notebooks run: by papermill and by nbval, which compares their tagged cells with the committed outputs."""

import json
import os
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import nbformat
import papermill
import pytest
import results
import run
import yaml

import course_utils
from course_utils.runs.reference import load_lesson, load_reference
from course_utils.runs.run import Run, read_record

ROOT = Path(__file__).resolve().parents[2]
QUICK = yaml.safe_load((ROOT / "tools" / "quick.yaml").read_text(encoding="utf-8"))


def code_cells(book) -> list:
    return [cell for cell in book.cells if cell.cell_type == "code"]


def start_nbval(path: Path) -> subprocess.Popen:
    """Execute `path` and compare its tagged cells with the outputs stored in it; the report lands beside it."""
    command = [sys.executable, "-m", "pytest", path, "-c", os.devnull, "--rootdir", path.parent]
    command += ["-p", "no:cacheprovider", "-p", "nbval_record", "--junitxml", path.with_suffix(".xml")]
    command += ["--nbval-lax", "--nbval-kernel-name", "python3", "--nbval-cell-timeout", str(run.CELL_SECONDS)]
    command += ["--nbval-kernel-startup-timeout", "180"]  # starts slowly where the cores are busy
    paths = os.pathsep.join([str(ROOT), str(ROOT / "tools")])
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": paths}  # two notebooks run side by side
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def end_of(process: subprocess.Popen) -> str:
    """What it printed; stopped at the limit for a notebook."""
    try:
        return process.communicate(timeout=run.NOTEBOOK_SECONDS)[0]
    except subprocess.TimeoutExpired:
        process.kill()  # its kernel notices, and ends too
        raise


def failed_cells(path: Path) -> dict[str, str]:
    """The failures in a report of nbval: `{"Cell 3": what was wrong}`."""
    failures = {}
    for case in ElementTree.parse(path.with_suffix(".xml")).iter("testcase"):
        for problem in (*case.iter("failure"), *case.iter("error")):
            failures[case.get("name").split("::")[-1]] = problem.text or ""
    return failures


def inject(source: Path, target: Path, parameters: dict) -> Path:
    """A copy with other parameters that keeps the stored outputs."""
    papermill.execute_notebook(source, target, parameters, prepare_only=True, progress_bar=False)
    return target


def test_quick_run(path, tmp_path):
    """Executed by papermill with the quick parameters, as `make run` does, and held to its bands."""
    assert run.run(path, dataset=None, folder=tmp_path) == []
    assert "data:image/png" in (tmp_path / f"{path.stem}.html").read_text(encoding="utf-8")
    record = read_record(tmp_path / f"{path.stem}.json")
    assert set(record["studies"]) == set(load_lesson(path.stem)["studies"])  # reference mode finds all that is asked
    for made in record["runs"].values():
        first, *_, last = (metrics["train_loss"] for metrics in made["history"]["metrics"])
        assert last < first
    places = {verdict.text: verdict.place for verdict in results.verdicts(record)}
    known = "inside" if path.stem.startswith("S8") else "no band"  # the networks of S9 need more than a hundred steps
    assert len(places) >= 2 and set(places.values()) == {known}, places


def record_by_nbval(path: Path, folder: Path, **parameters) -> dict:
    """Let nbval execute `path` with other parameters and find its committed outputs again; returns the record."""
    copy = inject(path, folder / path.name, parameters | {"checkpoints": str(folder / "checkpoints")})
    text = end_of(start_nbval(copy))
    assert failed_cells(copy) == {}
    count = len(code_cells(nbformat.read(path, as_version=4))) + 1  # and the injected parameters
    assert f"{count} passed" in text, f"{count} cells, but: {text.splitlines()[-1]}"
    return json.loads(copy.with_suffix(".json").read_text(encoding="utf-8"))


@pytest.mark.skipif("COURSE_TEST_IMAGES" in os.environ, reason="nbval runs in reference mode, on the real images")
def test_tiny_run(path, tmp_path):
    """On the built-in data and with trainings of one epoch."""
    record = record_by_nbval(path, tmp_path, **QUICK | {"epochs": 1, "train_size": 200})
    assert len(list((tmp_path / "checkpoints").glob("*.checkpoint"))) == len(record["runs"]) >= 2


def test_reference_mode(path, tmp_path, few_photographs):
    """With run = "reference" nothing is trained, and what is shown comes from the records."""
    record = record_by_nbval(path, tmp_path, run="reference", dataset=str(few_photographs))
    assert not (tmp_path / "checkpoints").exists()
    runs, studies = ({name: Run.from_dict(made) for name, made in record[part].items()} for part in ("runs", "studies"))
    assert studies == load_lesson(path.stem)["studies"]
    assert len({made.epochs for made in runs.values()}) == 1  # what is compared was trained equally long
    for made in runs.values():
        assert made == load_reference(made.job.network, made.job.norm, data=made.data, epochs=made.epochs)


@pytest.fixture(scope="module")
def excerpt() -> nbformat.NotebookNode:
    """S9 as far as its first checked cell: the same check in a few seconds."""
    book = nbformat.read(ROOT / "notebooks" / "S9_dilated_depthwise.ipynb", as_version=4)
    checked = next(cell.id for cell in book.cells if results.CHECKED in cell.metadata.get("tags", []))
    book.cells = [cell for cell in book.cells if cell.id in ("parameters", "setup", "imports", checked)]
    return book


@pytest.mark.fault("two kernels on two cores at once", "four runs, two at a time", "all end, every cell executed")
def test_runs_from_everywhere(tmp_path):
    """Papermill with the kernel in three folders of the repository, and Jupyter's own command, find the package."""
    commands = []
    for place in (".", "notebooks", "notebooks/student"):
        commands.append(["papermill", "source.ipynb", f"{len(commands)}.ipynb", "--cwd", ROOT / place, "-k", "python3"])
    commands.append(["jupyter", "execute", "--kernel_name=python3", "--output=3.ipynb", "source.ipynb"])
    book = nbformat.read(ROOT / "notebooks" / "S8_normalization.ipynb", as_version=4)
    book.cells = [cell for cell in book.cells if cell.id in ("parameters", "setup")]
    book.cells.append(nbformat.v4.new_code_cell("import course_utils\nprint(course_utils.__file__)"))
    nbformat.write(book, tmp_path / "source.ipynb")

    def call(command):
        return subprocess.run([sys.executable, "-m", *command], cwd=tmp_path, capture_output=True, text=True)

    with ThreadPoolExecutor(max_workers=2) as pool:
        runs = list(pool.map(call, commands))
    for number, done in enumerate(runs):
        assert done.returncode == 0, done.stderr[-3000:]
        executed = nbformat.read(tmp_path / f"{number}.ipynb", as_version=4)
        assert all(cell.execution_count for cell in code_cells(executed))
        assert results.shown(executed.cells[-1]) == f"{course_utils.__file__}\n"


def test_check_bites(excerpt, tmp_path):
    # One digit of a checked number is changed; that nbval passes without the change, other tests show.
    checked = excerpt.cells[-1]
    text = checked.outputs[0].text
    checked.outputs[0].text = text.replace("8", "9", 1)
    assert checked.outputs[0].text != text
    nbformat.write(excerpt, tmp_path / "changed.ipynb")
    process = start_nbval(tmp_path / "changed.ipynb")
    text = end_of(process)
    assert process.returncode == 1, text
    ((cell, message),) = failed_cells(tmp_path / "changed.ipynb").items()
    assert cell == f"Cell {len(code_cells(excerpt)) - 1}"
    assert "Cell outputs differ" in message and "(1, 6, 8, 8)" in message and "(1, 6, 9, 8)" in message
