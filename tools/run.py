"""Execute the notebooks headlessly: quickly into build/, or renew their committed outputs (--render, --accept).

    python tools/run.py [--dataset shapes | cifar10 | FOLDER] [NAME ...]
    python tools/run.py --render [--again] [NAME ...]
    python tools/run.py --accept [--base REV] [NAME ...]

What the cells tagged nbval-check-output print is compared with the committed output: it is the same on any data. The
record that each notebook leaves is kept in a .json file, and its test accuracies are held to their bands. A notebook
that fails stays in build/ as far as it came, with the failed cell's error on top; whole differences stand beside it in
a .diff file.
"""

import argparse
import os
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import nbconvert
import nbformat
import papermill
import yaml
from copies import worktree
from execution import BUILD, NOTEBOOKS, execute
from proof import accept
from render import render
from results import compare, outside_bands
from sources import ROOT

HERE = Path(__file__).resolve().parent
# A quick run takes a minute or two.
CELL_SECONDS, NOTEBOOK_SECONDS = 300, 600


def parameters_of(notebook: Path, dataset: str | None) -> dict:
    """The quick parameters, checked against those that the notebook declares: papermill passes over unknown ones."""
    parameters = yaml.safe_load((HERE / "quick.yaml").read_text(encoding="utf-8"))
    if dataset:
        parameters["dataset"] = str(Path(dataset).resolve()) if Path(dataset).is_dir() else dataset
    declared = papermill.inspect_notebook(notebook)
    if unknown := set(parameters) - set(declared):
        sys.exit(f"{notebook.name} has no parameter {', '.join(sorted(unknown))}, but {', '.join(declared)}")
    return parameters


def run(notebook: Path, dataset: str | None, cell_seconds: int = CELL_SECONDS, folder: Path = BUILD) -> list[str]:
    """Run `notebook` quickly into `folder`: one line per problem."""
    output = folder / notebook.name
    if problem := execute(notebook, output, parameters_of(notebook, dataset), cell_seconds, NOTEBOOK_SECONDS):
        return [problem]
    committed, executed = (nbformat.read(path, as_version=4) for path in (notebook, output))
    output.with_suffix(".html").write_text(nbconvert.HTMLExporter().from_notebook_node(executed)[0], encoding="utf-8")
    problems = compare(committed, executed, output.with_suffix(".diff"))
    return problems + outside_bands(executed, output.with_suffix(".json"))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dataset", help="shapes, cifar10 or a folder; default: that of quick.yaml")
    parser.add_argument("--render", action="store_true", help="renew the stale outputs of the committed notebooks")
    parser.add_argument("--again", action="store_true", help="with --render: a full run, also of what is up to date")
    parser.add_argument("--accept", action="store_true", help="keep stale outputs that are the same before and after")
    parser.add_argument("--base", default="HEAD", help="with --accept: the commit to compare with, default HEAD")
    parser.add_argument("--cell-seconds", type=int, default=CELL_SECONDS, help="limit for one cell of a quick run")
    parser.add_argument("names", nargs="*", help="notebooks without their suffix; default: all")
    options = parser.parse_args()
    notebooks = sorted(NOTEBOOKS.glob("*.ipynb"))
    if options.names:
        wanted = [Path(name).stem for name in options.names]
        if unknown := set(wanted) - {notebook.stem for notebook in notebooks}:
            sys.exit(f"there is no notebook {', '.join(sorted(unknown))}, but {', '.join(n.stem for n in notebooks)}")
        notebooks = [NOTEBOOKS / f"{name}.ipynb" for name in wanted]
    BUILD.mkdir(exist_ok=True)
    base: AbstractContextManager = (
        worktree(options.base, BUILD / f"base-{os.getpid()}", ROOT) if options.accept else nullcontext()
    )

    def job(notebook: Path) -> bool:
        start = time.perf_counter()
        if options.accept:
            problems, place = accept(notebook, tree), notebook
        elif options.render:
            problems, place = render(notebook, options.again), notebook
        else:
            problems, place = run(notebook, options.dataset, options.cell_seconds), BUILD / notebook.name
        seconds = time.perf_counter() - start
        for problem in problems:
            print(f"FAILED  {notebook.stem}, {problem}", flush=True)
        where = (BUILD / notebook.name if problems and not options.accept else place).relative_to(ROOT)
        print(f"{'failed' if problems else 'ok':6}  {notebook.stem}: {seconds:.0f} s, see {where}", flush=True)
        return not problems

    # Quick runs go side by side, each with one thread (the Makefile says so); the others have the machine alone.
    with base as tree, ThreadPoolExecutor(max_workers=1 if options.render or options.accept else 2) as pool:
        return 0 if all(list(pool.map(job, notebooks))) else 1


if __name__ == "__main__":
    sys.exit(main())
