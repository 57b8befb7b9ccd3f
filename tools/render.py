"""Renew the committed outputs: the stale ones from recorded trainings where that is enough, else all by a full run."""

import os
import subprocess
from pathlib import Path

import nbformat
import papermill
from cells import Cells
from code_graph import digest
from copies import worktree
from execution import execute
from results import merge_streams, outside_bands
from stamps import STAMP, parts, stale, stamp

from course_utils.runs.lesson import MIME

RENDER_SECONDS = 8 * 3600  # a full run takes what it takes
KEPT = ("tags", "alt")  # of a cell's metadata; the second is the text of its figure for who cannot see it
NAMED = 4  # so many reasons are named for a cell


def root_of(notebook: Path) -> Path:
    """The folder of the repository."""
    return notebook.resolve().parents[1]


def clean(book: nbformat.NotebookNode, session: str, root: Path) -> None:
    """Keep what a reader needs, and hashes of what made the outputs: two runs of a notebook differ in no more."""
    book.metadata = {
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
    }
    count = 0
    for cell in book.cells:
        cell.metadata = {name: cell.metadata[name] for name in KEPT if cell.metadata.get(name)}
        if cell.cell_type != "code":
            continue
        cell.outputs = merge_streams(cell.outputs)
        cell.execution_count = count = count + 1
        for output in cell.outputs:
            output.get("metadata", {}).clear()
            output.get("data", {}).pop(MIME, None)  # stands in data/reference/sessions/
            if output.output_type == "execute_result":
                output.execution_count = count
    stamp(book, session, root)


def reasons(notebook: Path, ids: list[str]) -> dict[str, str]:
    """What has changed for each of these cells since the last commit of the notebook."""
    root, session, book = root_of(notebook), notebook.stem, nbformat.read(notebook, as_version=4)
    command: list[str | Path] = ["git", "-C", root, "log", "-1", "--format=%h", "--", notebook]
    base = subprocess.run(command, capture_output=True, text=True).stdout.strip()
    if not base:
        return dict.fromkeys(ids, "it was never rendered")
    with worktree(base, root / "build" / f"before-{os.getpid()}", root) as tree:
        made = nbformat.read(tree / "notebooks" / notebook.name, as_version=4)
        try:
            cells = Cells(made, tree)
            before = {cell.id: parts(cells, cell.id, session, tree) for cell in made.cells if cell.id in ids}
        except ValueError:  # the commit has a notebook and a package that do not fit
            before = {}
    cells, found = Cells(book, root), {}
    stored = {cell.id: cell.metadata.get(STAMP) for cell in book.cells}
    for cell in ids:
        now, then = parts(cells, cell, session, root), before.get(cell, {})
        if digest(sorted(then.values())) != stored[cell]:
            found[cell] = f"a change before {base}" if stored[cell] else "it was never rendered"
            continue
        changed = [name for name in now if name in then and now[name] != then[name]] or sorted(set(now) ^ set(then))
        more = f" and {len(changed) - NAMED} more" if len(changed) > NAMED else ""
        found[cell] = ", ".join(changed[:NAMED]) + more
    return found


def render(notebook: Path, again: bool = False) -> list[str]:
    """Renew the outputs of `notebook` in place: one line per problem, and then nothing is replaced.

    Only the stale ones, from an execution in which recorded trainings stand in for trainings; where one of them needs
    trained weights, and with `again`, all of them by a full run with the notebook's own parameters.
    """
    book, root = nbformat.read(notebook, as_version=4), root_of(notebook)
    if again:
        return render_in_full(notebook)
    old = stale(book, notebook.stem, root)
    old += [cell.id for cell in book.cells if cell.get("execution_count", 0) is None and cell.id not in old]
    if not old:
        print(f"{notebook.stem}: every output is of the code that stands there, nothing to renew", flush=True)
        return []
    cells, why = Cells(book, root), reasons(notebook, old)
    trained = [cell for cell in old if cells.trained(cell)]
    for cell in old:
        needs = ", and it needs trained weights" if cell in trained else ""
        print(f"{notebook.stem}, cell '{cell}' is stale: {why[cell]}{needs}", flush=True)
    if trained or "run" not in papermill.inspect_notebook(notebook):
        print(f"{notebook.stem}: a full run is needed", flush=True)
        return render_in_full(notebook)
    print(f"{notebook.stem}: no stale cell needs trained weights, recorded trainings are enough", flush=True)
    return renew(notebook, old)


def renew(notebook: Path, ids: list[str]) -> list[str]:
    """Take over the outputs of these cells from an execution in which nothing is trained."""
    output = root_of(notebook) / "build" / notebook.name
    limits = RENDER_SECONDS, RENDER_SECONDS
    if problem := execute(notebook, output, {"run": "recorded"}, *limits, folder=notebook.parent):
        return [problem]
    book = nbformat.read(notebook, as_version=4)
    outputs = {cell.id: cell.get("outputs", []) for cell in nbformat.read(output, as_version=4).cells}
    for cell in book.cells:
        if cell.id in ids:
            cell.outputs = outputs[cell.id]
    clean(book, notebook.stem, root_of(notebook))
    nbformat.write(book, notebook)
    return []


def render_in_full(notebook: Path) -> list[str]:
    """Run `notebook`; it and its record, cleaned, replace those that are committed."""
    root = root_of(notebook)
    output, record = root / "build" / notebook.name, root / "build" / f"{notebook.stem}.json"
    if problem := execute(notebook, output, {}, RENDER_SECONDS, RENDER_SECONDS, folder=notebook.parent):
        return [problem]
    book = nbformat.read(output, as_version=4)
    if problems := outside_bands(book, record):
        return problems
    clean(book, notebook.stem, root)
    nbformat.write(book, output)
    output.replace(notebook)
    sessions = root / "data" / "reference" / "sessions"
    sessions.mkdir(exist_ok=True, parents=True)
    record.replace(sessions / record.name)
    return []
