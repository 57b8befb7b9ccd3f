"""What the output of each cell was made from, as a hash: `make render` leaves it with the cell, and a test compares it.

A cell's hash covers its source, the definitions of `course_utils` that it reaches, the statements of earlier cells that
make what it uses (cells.py), and the committed data that it prints. What no output shows is left out (normal_form.py):
the wording of errors, type hints, docstrings, local names. Versions of libraries do not count either.
"""

import ast
import json
import re
from pathlib import Path

import nbformat
import yaml
from cells import Cells
from code_graph import digest
from sources import ROOT

from course_utils.runs.bands import compare_with_band
from course_utils.runs.reference import load_lesson

STAMP = "made_from"  # in the cell's metadata

# The definitions that read committed data, and the files. Of these counts what concerns networks of the session, or all
# of it for a cell that names no network of the session.
DATA = {
    "load_runs": "data/reference/*.json",
    "study_runs": "data/reference/studies/*.json",
    "read_bands": "data/reference/bands.yaml",
    "read_published": "data/reference/published.yaml",
}


def networks_in(entry) -> set[str]:
    """The networks that an entry of a data file names."""
    if isinstance(entry, list):
        return set().union(*map(networks_in, entry))
    if not isinstance(entry, dict):
        return set()
    named = entry.get("network", [])
    return set([named] if isinstance(named, str) else named) | networks_in(list(entry.values()))


def of_session(session: str) -> re.Pattern:
    """What the names of its networks begin with, as S8Net46k for S8_normalization."""
    return re.compile(rf"\b{session.split('_')[0]}(?!\d)")


def data_parts(session: str, pattern: str, root: Path, ours: re.Pattern) -> dict[str, str]:
    """The digest of what the data files have on the networks whose names begin with `ours`, by file.

    Of bands counts what they say of the recorded runs of the session: these are what the outputs show.
    """
    found = {}
    for file in sorted(root.glob(pattern)):
        name = file.relative_to(root).as_posix()
        if file.suffix == ".json" and ours.match(file.name):
            found[name] = digest([name, json.dumps(json.loads(file.read_text(encoding="utf-8")), sort_keys=True)])
        elif file.name == "bands.yaml" and (file.parent / "sessions" / f"{session}.json").exists():
            runs = load_lesson(session, file.parent / "sessions")["runs"].values()
            found[name] = digest([name, *(str(compare_with_band(run, file.parent)) for run in runs)])
        elif file.suffix == ".yaml":
            of_ours = of_session(session).match if file.name == "bands.yaml" else ours.match
            entries = yaml.safe_load(file.read_text(encoding="utf-8"))
            entries = [entry for entry in entries if any(map(of_ours, networks_in(entry)))]
            found[name] = digest([name, json.dumps(entries, sort_keys=True)])
    return found


def parts(cells: Cells, cell: str, session: str, root: Path = ROOT) -> dict[str, str]:
    """What made the output of a cell: a digest for its source, each earlier cell, each definition, each data file."""
    found: dict[str, str] = {}
    statements = cells.closure(cell)
    for other in dict.fromkeys(each.cell for each in statements):
        used = [each.meaning.digest for each in cells.statements[other] if each in statements]
        found["its source" if other == cell else f"cell '{other}'"] = digest(used)
    nodes = (node for each in statements for node in ast.walk(each.node))
    ours = of_session(session)
    if not any(isinstance(node, ast.Constant) and ours.search(str(node.value)) for node in nodes):
        ours = re.compile("")
    others = cells.reached(cell, without=("study_runs", "study_table"))  # which read their own folder by load_runs
    for (module, name), value in sorted(cells.reached(cell).items()):
        found[f"{module}.{name}" if name in found else name] = value
        if name in DATA and (name == "study_runs" or (module, name) in others):
            found |= data_parts(session, DATA[name], root, ours)
    return found


def stamps(book: nbformat.NotebookNode, session: str, root: Path = ROOT) -> dict[str, str]:
    """The hash of every cell that has an output, by id; `session` is the notebook's name."""
    cells = Cells(book, root)
    shown = [cell.id for cell in book.cells if cell.get("outputs")]
    return {cell: digest(sorted(parts(cells, cell, session, root).values())) for cell in shown}


def stamp(book: nbformat.NotebookNode, session: str, root: Path = ROOT) -> None:
    """Leave its hash with every cell that has an output."""
    found = stamps(book, session, root)
    for cell in book.cells:
        cell.metadata.pop(STAMP, None)
        if cell.id in found:
            cell.metadata[STAMP] = found[cell.id]


def stale(book: nbformat.NotebookNode, session: str, root: Path = ROOT) -> list[str]:
    """The ids of the cells whose output was made from something else than what stands there now."""
    found = stamps(book, session, root)
    return [cell.id for cell in book.cells if cell.id in found and cell.metadata.get(STAMP) != found[cell.id]]
