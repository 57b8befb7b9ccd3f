"""The notebooks: executed by papermill and by nbval, their tagged cells compared with the committed outputs."""

import json
import os
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import editions
import nbformat
import papermill
import pytest
import results
import run
import yaml
from render import KEPT
from stamps import STAMP, stale

import course_utils
from course_utils.exercises import check_answer
from course_utils.runs.reference import SESSIONS, load_lesson, load_reference
from course_utils.runs.run import Run, read_record

ROOT = Path(__file__).resolve().parents[2]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
QUICK = yaml.safe_load((ROOT / "tools" / "quick.yaml").read_text(encoding="utf-8"))

each_notebook = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


def code_cells(book) -> list:
    return [cell for cell in book.cells if cell.cell_type == "code"]


def tagged(book, tag: str) -> list:
    return [cell for cell in book.cells if tag in cell.metadata.get("tags", [])]


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


@each_notebook
def test_parameters_are_declared(path):
    declared = papermill.inspect_notebook(path)
    missing = ", ".join(sorted(set(QUICK) - set(declared)))
    assert not missing, f"{path.name} does not declare {missing}, which papermill would pass over"
    (cell,) = tagged(nbformat.read(path, as_version=4), "parameters")
    assert len(declared) == len(cell.source.splitlines()), f"{path.name}: expected one parameter per line, nothing else"


@each_notebook
def test_checked_cells_have_something_to_compare(path):
    cells = tagged(nbformat.read(path, as_version=4), results.CHECKED)
    assert len(cells) >= 5, f"{path.name}: {len(cells)} cells are tagged {results.CHECKED!r}, expected at least 5"
    for cell in cells:
        nothing = not cell.outputs or cell.execution_count is None
        assert not nothing, f"{path.name}, cell '{cell.id}': no output or no count, so nbval passes without a look"
        picture = any("data:image" in output.get("data", {}).get("text/html", "") for output in cell.outputs)
        assert not picture, f"{path.name}, cell '{cell.id}': pictures in HTML, which other machines draw differently"


@each_notebook
def test_committed_outputs_are_whole_and_clean(path):
    book = nbformat.read(path, as_version=4)
    counts = [cell.execution_count for cell in code_cells(book)]
    in_one_go = counts == list(range(1, len(counts) + 1))
    assert in_one_go, f"{path.name}: the execution counts are {counts}, expected 1, 2, 3 ...: make render"
    for cell in code_cells(book):
        kinds = {kind for output in cell.outputs for kind in output.get("data", {})}
        kinds |= {"an error" for output in cell.outputs if output.output_type == "error"}
        kinds |= {"standard error" for output in cell.outputs if output.get("name") == "stderr"}
        unclean = kinds & {"an error", "standard error", "image/svg+xml", "application/vnd.jupyter.widget-view+json"}
        assert not unclean, f"{path.name}, cell '{cell.id}': {', '.join(unclean)} in the committed output"
    assert set(book.metadata) == {"kernelspec", "language_info"}, f"{path.name}: other metadata, make render cleans it"
    marked = [cell.id for cell in book.cells if not set(cell.metadata) <= {*KEPT, STAMP}]
    assert not marked, f"{path.name}: other metadata in {', '.join(marked)}, make render cleans them"


@each_notebook
def test_outputs_are_of_what_stands_there_now(path):
    cells = stale(nbformat.read(path, as_version=4), path.stem)
    assert not cells, (
        f"{path.name}: the outputs of {', '.join(cells)} were made from other code or data. `make render` renews them. "
        "After a refactoring, `python tools/run.py --accept` proves that they are the same, and keeps them."
    )


@each_notebook
def test_record_is_that_of_the_committed_run(path):
    book, record = nbformat.read(path, as_version=4), read_record(SESSIONS / f"{path.stem}.json")
    (shown,) = (results.shown(cell) for cell in book.cells if cell.id == "results")
    for verdict in results.verdicts(record):
        assert verdict.place == "inside", verdict
        assert verdict.text.split(" is inside")[0] in shown, f"{path.name} shows another run than {verdict}"


@each_notebook
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


@each_notebook
@pytest.mark.skipif("COURSE_TEST_IMAGES" in os.environ, reason="nbval runs in reference mode, on the real images")
def test_tiny_run(path, tmp_path):
    """On the built-in data and with trainings of one epoch."""
    record = record_by_nbval(path, tmp_path, **QUICK | {"epochs": 1, "train_size": 200})
    assert len(list((tmp_path / "checkpoints").glob("*.checkpoint"))) == len(record["runs"]) >= 2


@each_notebook
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
    keep = [cell.id for cell in (*tagged(book, "parameters"), tagged(book, results.CHECKED)[0])]
    book.cells = [cell for cell in book.cells if cell.id in (*keep, "setup", "imports")]
    return book


@pytest.mark.fault("two kernels on two cores at once", "four runs, two at a time", "all end, every cell executed")
def test_runs_from_everywhere(tmp_path):
    """Papermill with the kernel in three folders of the repository, and Jupyter's own command, find the package."""
    commands = []
    for place in (".", "notebooks", "notebooks/student"):
        commands.append(["papermill", "source.ipynb", f"{len(commands)}.ipynb", "--cwd", ROOT / place, "-k", "python3"])
    commands.append(["jupyter", "execute", "--kernel_name=python3", "--output=3.ipynb", "source.ipynb"])
    book = nbformat.read(NOTEBOOKS[0], as_version=4)
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
    (checked,) = tagged(excerpt, results.CHECKED)
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


@each_notebook
def test_student_edition(path):
    book = nbformat.read(path, as_version=4)
    solutions = tagged(book, editions.SOLUTION)
    blanks = tagged(editions.student_edition(book), editions.SOLUTION)
    assert len(solutions) == len(blanks) == len(tagged(nbformat.read(path, as_version=4), editions.SOLUTION))
    for solution, blank in zip(solutions, blanks, strict=True):
        check = solution.source.splitlines()[-1]
        assert set(blank.metadata) == {"tags"}
        assert blank.source == f"{editions.BLANK}{check}" and blank.outputs == [] != solution.outputs
        with pytest.raises(AssertionError, match="replace the three dots by your answer"):
            exec(blank.source, {"check_answer": check_answer})
    assert len(solutions) == 6


@each_notebook
def test_committed_student_edition_is_up_to_date(path):
    committed, book = editions.STUDENT / path.name, nbformat.read(path, as_version=4)
    same = committed.is_file() and nbformat.read(committed, as_version=4) == editions.student_edition(book)
    assert same, f"{committed.relative_to(ROOT)} is not what is made from {path.name} now: make editions"


def test_solution_without_a_check():
    with pytest.raises(ValueError, match="ends with 'answer = 3', expected check_answer"):
        editions.blank("x = 1\nanswer = 3")
