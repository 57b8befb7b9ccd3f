"""Prove that a refactoring changes no output: `python tools/run.py --accept` runs the notebooks before and after it.

The trees of a commit and of the working directory are executed with the quick parameters and, where COURSE_TEST_IMAGES
names a folder of images, in reference mode. Each tree uses its own package, one thread, and a clock that advances by
one second with every look at it. A stale cell whose outputs are bit for bit the same gets its new hash, and keeps its
committed output. The outputs of the commit must not be stale themselves.
"""

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import nbformat
import yaml
from execution import execute
from nbformat.v4 import new_code_cell
from results import describe, merge_streams
from sources import PACKAGE
from stamps import STAMP, stale, stamps

from course_utils.runs.lesson import MIME

Outputs = dict[str, list[tuple[str, str]]]  # of each cell, by its id: kinds and contents
SECONDS, WIDTH = 1200, 60  # at most: for a notebook; letters of a difference that are printed
CLOCK = """\
def with_a_clock_of_its_own():
    import importlib.util, itertools, threading, time, timeit

    found = importlib.util.find_spec({package!r}).origin
    assert found.startswith({tree!r}), f"the package is imported from {{found}}"
    ticks, clock, main = itertools.count(), time.perf_counter, threading.main_thread()
    # The kernel may look at the clock in other threads, at any time: these looks do not count.
    time.perf_counter = lambda: float(next(ticks)) if threading.current_thread() is main else clock()
    importlib.reload(timeit)


with_a_clock_of_its_own()
del with_a_clock_of_its_own
"""


def quick_parameters(tree: Path) -> dict:
    """Those of the tree; older ones have the file elsewhere."""
    files = (tree / folder / "quick.yaml" for folder in ("tools", "notebooks"))
    return yaml.safe_load(next(file for file in files if file.is_file()).read_text(encoding="utf-8"))


def modes(tree: Path) -> dict[str, dict]:
    """The parameters of each execution."""
    found = {"quick": quick_parameters(tree)}
    if images := os.environ.get("COURSE_TEST_IMAGES"):
        found["reference"] = {"run": "reference", "dataset": str(Path(images).resolve())}
    return found


def outputs_of(tree: Path, name: str, parameters: dict, folder: Path) -> Outputs | str:
    """What each cell of a notebook of `tree` shows, by its id; or what went wrong."""
    book = nbformat.read(tree / "notebooks" / name, as_version=4)
    book.cells.insert(0, new_code_cell(CLOCK.format(package=PACKAGE, tree=str(tree)), id="clock"))
    folder.mkdir(parents=True, exist_ok=True)
    nbformat.write(book, folder / f"source-{name}")
    variables = {"PYTHONPATH": str(tree), "OMP_NUM_THREADS": "1", "PYTHONHASHSEED": "0"}
    source, target, place = folder / f"source-{name}", folder / name, tree / "notebooks"
    if problem := execute(source, target, parameters, SECONDS, SECONDS, folder=place, variables=variables):
        return problem
    cells = nbformat.read(folder / name, as_version=4).cells
    return {cell.id: shown(cell, tree) for cell in cells if cell.cell_type == "code"}


def shown(cell, tree: Path) -> list[tuple[str, str]]:
    """The kind and the content of each output; a path in it does not tell in which tree it is."""
    found = []
    for output in merge_streams(cell.outputs):
        data = output.get("data") or {output.get("name", output.output_type): output.get("text", "")}
        kept = sorted((kind, content) for kind, content in data.items() if kind != MIME)  # no committed output has it
        found += [(kind, str(content).replace(str(tree), "")) for kind, content in kept]
    return found


def difference(before: list[tuple[str, str]], after: list[tuple[str, str]]) -> str | None:
    """The first one, in words; None if there is none."""
    if (kinds := [kind for kind, _ in before]) != [kind for kind, _ in after]:
        return f"before {', '.join(kinds) or 'nothing'}, now {', '.join(kind for kind, _ in after) or 'nothing'}"
    for (kind, old), (_, new) in zip(before, after, strict=True):
        if old != new and kind.startswith("image/"):
            return f"another {kind}"
        lines = [*zip(old.splitlines(), new.splitlines(), strict=False), (f"{len(old)} letters", f"{len(new)} letters")]
        if old != new:
            first = next(pair for pair in lines if pair[0] != pair[1])
            same = next((at for at, (a, b) in enumerate(zip(*first, strict=False)) if a != b), 0)
            start = max(0, same - 20)  # a long line from just before they part
            return "before {!r}, now {!r}".format(*(line[start : start + WIDTH] for line in first))
    return None


def executions(name: str, base: Path, root: Path) -> tuple[dict[str, tuple[Outputs, Outputs]], list[str]]:
    """What the cells show in both trees, by mode; and what went wrong."""
    found: dict[str, Any] = {}
    problems, build = [], root / "build" / "proof"
    with ThreadPoolExecutor(max_workers=2) as pool:
        for (mode, then), now in zip(modes(base).items(), modes(root).values(), strict=True):
            jobs = [(base, name, then, build / f"before-{mode}"), (root, name, now, build / f"now-{mode}")]
            results = tuple(pool.map(lambda job: outputs_of(*job), jobs))
            for job, result in zip(jobs, results, strict=True):
                problems += [f"{job[-1].name}: {result}"] if isinstance(result, str) else []
            found[mode] = results
    return found, problems


def accept(notebook: Path, base: Path) -> list[str]:
    """Give the stale cells of `notebook` their new hash if they show what they show in the tree `base`.

    Returns one line for each that does not, and for each that cannot be compared; these stay stale.
    """
    book, session, root = nbformat.read(notebook, as_version=4), notebook.stem, notebook.resolve().parents[1]
    if not (old := stale(book, session, root)):
        print(f"{session}: no output is stale", flush=True)
        return []
    committed = base / "notebooks" / notebook.name
    if not committed.is_file():
        return ["the notebook is new"]
    made_from = {cell.id: cell.metadata.get(STAMP) for cell in nbformat.read(committed, as_version=4).cells}
    found, problems = executions(notebook.name, base, root)
    if problems:
        return problems
    new, accepted = stamps(book, session, root), 0
    for cell in (cell for cell in book.cells if cell.id in old):
        if cell.id not in made_from:
            problem = "is new"
        elif made_from[cell.id] != cell.metadata.get(STAMP):
            problem = "was rendered after the commit with which it is compared"
        else:
            seen = {mode: difference(before[cell.id], now[cell.id]) for mode, (before, now) in found.items()}
            problem = next((f"({mode}): {words}" for mode, words in seen.items() if words), None)
        if problem:
            problems.append(f"{describe(cell)} {problem}")
        else:
            cell.metadata[STAMP], accepted = new[cell.id], accepted + 1
    if accepted:
        nbformat.write(book, notebook)
    print(f"{session}: {accepted} of {len(old)} stale cells show the same as before", flush=True)
    return problems
