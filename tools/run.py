"""Execute the notebooks headlessly: quickly into build/, or in full and in place (--render).

    python tools/run.py [--dataset shapes | cifar10 | FOLDER] [--render [--again]] [NAME ...]

What the cells tagged nbval-check-output print is compared with the committed output: it is the same on any data. The
record that each notebook leaves is kept in a .json file, and its test accuracies are held to their bands. A notebook
that fails stays in build/ as far as it came, with the failed cell's error on top; whole differences stand beside it in
a .diff file.
"""

import argparse
import os
import re
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import nbconvert
import nbformat
import papermill
import yaml
from results import compare, describe, merge_streams, outside_bands
from stamps import stale, stamp

from course_utils.runs.sessions import MIME, SESSIONS

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
NOTEBOOKS, BUILD = ROOT / "notebooks", ROOT / "build"
# A quick run is expected to take a minute; a full one takes what it takes.
CELL_SECONDS, NOTEBOOK_SECONDS, RENDER_SECONDS = 120, 300, 8 * 3600


def parameters_of(notebook: Path, dataset: str | None) -> dict:
    """The quick parameters, checked against those that the notebook declares: papermill passes over unknown ones."""
    parameters = yaml.safe_load((HERE / "quick.yaml").read_text(encoding="utf-8"))
    if dataset:
        parameters["dataset"] = str(Path(dataset).resolve()) if Path(dataset).is_dir() else dataset
    declared = papermill.inspect_notebook(notebook)
    if unknown := set(parameters) - set(declared):
        sys.exit(f"{notebook.name} has no parameter {', '.join(sorted(unknown))}, but {', '.join(declared)}")
    return parameters


def execute(notebook: Path, output: Path, parameters: dict, cell_seconds: int, seconds: int) -> str | None:
    """Run a copy of `notebook` as `output`, within the two limits, and write its HTML; returns what went wrong."""
    command = [sys.executable, "-m", "papermill", notebook, output, "--cwd", NOTEBOOKS, "-k", "python3"]
    command += ["--no-progress-bar", "--execution-timeout", str(cell_seconds), "-y", yaml.safe_dump(parameters)]
    # MPLBACKEND=Agg would leave the notebooks without figures, and without an error.
    environment = {name: value for name, value in os.environ.items() if name != "MPLBACKEND"}
    if folder := environment.get("COURSE_DATA"):
        environment["COURSE_DATA"] = str(Path(folder).resolve())  # the notebooks run in a folder of their own
    output.unlink(missing_ok=True)  # that of an earlier run would be taken for this one's
    try:
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=seconds)
    except subprocess.TimeoutExpired:
        return f"stopped after {seconds} s, the limit for a notebook"
    if not output.exists():
        return failure_of(nbformat.v4.new_notebook(), done.stderr)
    executed = nbformat.read(output, as_version=4)
    if done.returncode:
        return failure_of(executed, done.stderr)
    output.with_suffix(".html").write_text(nbconvert.HTMLExporter().from_notebook_node(executed)[0], encoding="utf-8")
    # A kernel that a cell has ended counts as success for papermill: only the execution counts tell.
    code = [cell for cell in executed.cells if cell.cell_type == "code"]
    skipped = next((index for index, cell in enumerate(code) if cell.execution_count is None), None)
    if skipped is not None:
        return f"the kernel ended with {describe(code[max(0, skipped - 1)])}; what follows was not executed"
    return None


def failure_of(executed, stderr: str) -> str:
    """One line: the cell that papermill started last, and its error; papermill's own where it raised none."""
    raised = re.findall(r"^(?:\w+\.)*(\w+(?:Error|Exception|Interrupt): .+)$", stderr, re.MULTILINE)
    error = raised[-1] if raised else " ".join(stderr.split())[-300:]
    begun = [cell for cell in executed.cells if cell.metadata.get("papermill", {}).get("start_time")]
    if not begun:
        return error
    for output in begun[-1].get("outputs", []):
        if output.output_type == "error" and not error.startswith("CellTimeoutError"):
            error = f"{output.ename}: {' '.join(output.evalue.split())}"
    return f"{describe(begun[-1])}: {error}"


def clean(notebook: Path) -> None:
    """Keep what a reader needs, and hashes of what made the outputs: two runs of a notebook differ in no more."""
    book = nbformat.read(notebook, as_version=4)
    book.metadata = {
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
    }
    for cell in book.cells:
        cell.metadata = {"tags": tags} if (tags := cell.metadata.get("tags")) else {}
        for output in cell.get("outputs", []):
            output.get("metadata", {}).clear()
            output.get("data", {}).pop(MIME, None)  # stands in data/reference/sessions/
        if cell.cell_type == "code":
            cell.outputs = merge_streams(cell.outputs)
    stamp(book)
    nbformat.write(book, notebook)


def run(notebook: Path, dataset: str | None, cell_seconds: int = CELL_SECONDS, folder: Path = BUILD) -> list[str]:
    """Run `notebook` quickly into `folder`: one line per problem."""
    output = folder / notebook.name
    if problem := execute(notebook, output, parameters_of(notebook, dataset), cell_seconds, NOTEBOOK_SECONDS):
        return [problem]
    committed, executed = (nbformat.read(path, as_version=4) for path in (notebook, output))
    problems = compare(committed, executed, output.with_suffix(".diff"))
    return problems + outside_bands(executed, output.with_suffix(".json"))


def render(notebook: Path, again: bool = False) -> list[str]:
    """Run `notebook` in full, with its own parameters; it and its record, cleaned, replace those that are committed.

    Nothing is replaced if there is a problem. Without `again`, nothing is run if all outputs are of today's code.
    """
    if not again and not stale(nbformat.read(notebook, as_version=4)):
        print(f"{notebook.stem}: every output is of the code that stands there, nothing to renew", flush=True)
        return []
    output, record = BUILD / notebook.name, BUILD / f"{notebook.stem}.json"
    if problem := execute(notebook, output, {}, RENDER_SECONDS, RENDER_SECONDS):
        return [problem]
    if problems := outside_bands(nbformat.read(output, as_version=4), record):
        return problems
    clean(output)
    output.replace(notebook)
    SESSIONS.mkdir(exist_ok=True)
    record.replace(SESSIONS / record.name)
    return []


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dataset", default=os.environ.get("DATASET"))
    parser.add_argument("--render", action="store_true", help="in full, with the notebook's own parameters, in place")
    parser.add_argument("--again", action="store_true", help="render also what is up to date: data may have changed")
    parser.add_argument("--cell-seconds", type=int, default=CELL_SECONDS, help="limit for one cell of a quick run")
    parser.add_argument("names", nargs="*", help="notebooks without their suffix; default: all")
    options = parser.parse_args()
    notebooks = [NOTEBOOKS / f"{name}.ipynb" for name in options.names] or sorted(NOTEBOOKS.glob("*.ipynb"))
    BUILD.mkdir(exist_ok=True)

    def job(notebook: Path) -> bool:
        start = time.perf_counter()
        if options.render:
            problems, place = render(notebook, options.again), notebook
        else:
            problems, place = run(notebook, options.dataset, options.cell_seconds), BUILD / notebook.name
        seconds = time.perf_counter() - start
        for problem in problems:
            print(f"FAILED  {notebook.stem}, {problem}", flush=True)
        where = (BUILD / notebook.name if problems else place).relative_to(ROOT)
        print(f"{'failed' if problems else 'ok':6}  {notebook.stem}: {seconds:.0f} s, see {where}", flush=True)
        return not problems

    # Quick runs go side by side, each with one thread (the Makefile says so); a full run has the machine to itself.
    with ThreadPoolExecutor(max_workers=1 if options.render else 2) as pool:
        return 0 if all(list(pool.map(job, notebooks))) else 1


if __name__ == "__main__":
    sys.exit(main())
