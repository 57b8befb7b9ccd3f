"""Execute the notebooks headlessly: quickly into build/, or in full and in place (--render).

    python notebooks/run.py [--dataset shapes | cifar10 | FOLDER] [--render] [NAME ...]

A notebook that fails stays in build/ as far as it came, with the failed cell's error on top.
"""

import argparse
import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import nbconvert
import nbformat
import papermill
import yaml

HERE = Path(__file__).resolve().parent
BUILD = HERE.parent / "build"
CELL_SECONDS = {False: 300, True: 4 * 3600}  # the limit for one cell, quick and in full


def parameters_of(notebook: Path, dataset: str | None) -> dict:
    """The quick parameters, checked against those that the notebook declares: papermill passes over unknown ones."""
    parameters = yaml.safe_load((HERE / "quick.yaml").read_text(encoding="utf-8"))
    if dataset:
        parameters["dataset"] = str(Path(dataset).resolve()) if Path(dataset).is_dir() else dataset
    declared = papermill.inspect_notebook(notebook)
    if unknown := set(parameters) - set(declared):
        sys.exit(f"{notebook.name} has no parameter {', '.join(sorted(unknown))}, but {', '.join(declared)}")
    return parameters


def execute(notebook: Path, parameters: dict, cell_seconds: int) -> str | None:
    """Run a copy of `notebook` in build/, and write its HTML; returns what went wrong."""
    output = BUILD / notebook.name
    command = [sys.executable, "-m", "papermill", notebook, output, "--cwd", HERE, "-k", "python3"]
    command += ["--no-progress-bar", "--execution-timeout", str(cell_seconds), "-y", yaml.safe_dump(parameters)]
    # MPLBACKEND=Agg would leave the notebooks without figures, and without an error.
    environment = {name: value for name, value in os.environ.items() if name != "MPLBACKEND"}
    if folder := environment.get("COURSE_DATA"):
        environment["COURSE_DATA"] = str(Path(folder).resolve())  # the notebooks run in a folder of their own
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    if done.returncode:
        return done.stderr.strip()[-4000:]
    executed = nbformat.read(output, as_version=4)
    output.with_suffix(".html").write_text(nbconvert.HTMLExporter().from_notebook_node(executed)[0], encoding="utf-8")
    # A kernel that a cell has ended counts as success for papermill: only the execution counts tell.
    skipped = [cell for cell in executed.cells if cell.cell_type == "code" and cell.execution_count is None]
    return f"not executed, from here on:\n{skipped[0].source}" if skipped else None


def merge_streams(outputs: list) -> list:
    """Join neighbouring pieces of printed text: how it came in pieces depends on the second."""
    merged = []
    for output in outputs:
        if merged and output.output_type == "stream" and output.get("name") == merged[-1].get("name"):
            merged[-1].text += output.text
        else:
            merged.append(output)
    return merged


def clean(notebook: Path) -> None:
    """Keep of an executed notebook what a reader needs, so that two runs differ only in their outputs."""
    book = nbformat.read(notebook, as_version=4)
    book.metadata = {
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
    }
    for cell in book.cells:
        cell.metadata = {"tags": tags} if (tags := cell.metadata.get("tags")) else {}
        for output in cell.get("outputs", []):
            output.get("metadata", {}).clear()
        if cell.cell_type == "code":
            cell.outputs = merge_streams(cell.outputs)
    nbformat.write(book, notebook)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dataset", default=os.environ.get("DATASET"))
    parser.add_argument("--render", action="store_true", help="in full, with the notebook's own parameters, in place")
    parser.add_argument("names", nargs="*", help="notebooks without their suffix; default: all")
    options = parser.parse_args()
    notebooks = [HERE / f"{name}.ipynb" for name in options.names] or sorted(HERE.glob("*.ipynb"))
    BUILD.mkdir(exist_ok=True)

    def job(notebook: Path) -> bool:
        start = time.perf_counter()
        parameters = {} if options.render else parameters_of(notebook, options.dataset)
        problem = execute(notebook, parameters, CELL_SECONDS[options.render])
        seconds = time.perf_counter() - start
        output = (BUILD / notebook.name).relative_to(HERE.parent)
        if problem:
            print(f"FAILED  {notebook.stem} after {seconds:.0f} s, see {output}\n{problem}", flush=True)
            return False
        if options.render:
            clean(BUILD / notebook.name)
            (BUILD / notebook.name).replace(notebook)
        shown = ", ".join(f"{name}={value}" for name, value in parameters.items()) or "its own parameters"
        where = notebook.relative_to(HERE.parent) if options.render else f"{output} and .html"
        print(f"ok      {notebook.stem} with {shown}: {seconds:.0f} s, in {where}", flush=True)
        return True

    # Quick runs go side by side, each with one thread (the Makefile says so); a full run has the machine to itself.
    with ThreadPoolExecutor(max_workers=1 if options.render else 2) as pool:
        return 0 if all(list(pool.map(job, notebooks))) else 1


if __name__ == "__main__":
    sys.exit(main())
