"""Notebooks and snippets that need nothing of this repository: `make editions` writes them into build/standalone/.

Generated from the package's own source: every helper that a notebook uses stands in a cell of its own, right before the
first cell that uses it, with all that it needs itself; nothing else is in it.
"""

import ast
import re
from pathlib import Path

import nbformat
import sources
import yaml
from bindings import bound_in
from nbformat.v4 import new_code_cell, new_markdown_cell
from setup_cell import SETUP
from sources import ROOT, Module, Place, add_imports, names_in, read, used_of_package

HERE = Path(__file__).resolve().parent
NOTEBOOKS = ROOT / "notebooks"
# They read the records that ship with the course, and a notebook that stands alone has none.
RECORDS = {"reference_table", "study_runs", "study_table"}
MISSING = "*Here the session shows trainings that the course has recorded. This copy of the notebook has no records.*"
HELPER = "helper"  # marks the cells of helpers while a notebook is put together
BUILD = ROOT / "build" / "standalone"


class Inliner:
    """Gives every definition once, after those that it needs; collects the imports of others on the way."""

    def __init__(self):
        self.origin: dict[str, str] = {}  # what was given, and from which module
        self.imports: set[str] = set()

    def need(self, module: str, name: str) -> list[str]:
        """The sources that have to stand before `name` of `module` can be used, itself last."""
        if self.origin.get(name) == module:
            return []
        if name in self.origin:
            raise ValueError(f"{name} is defined in {self.origin[name]} and in {module}: rename one")
        here = sources.package()[module]
        self.origin[name] = module
        given, source = [], here.definitions[name]
        for used, place in self.used(here, here.uses[name]).items():
            given += self.need(*place)
            source = without_module(source, used)
        for used in sorted(here.uses[name] & set(here.definitions) - {name}):
            given += self.need(module, used)
        self.imports |= {here.external[used] for used in here.uses[name] & set(here.external)}
        return given if source in given else [*given, source]

    def used(self, module: Module, names: set[str]) -> dict[str, Place]:
        """Those of `names` that the package defines, as `module` calls them."""
        return used_of_package(sources.package(), module, names)

    def import_lines(self) -> str:
        """The imports, sorted as ruff sorts them but for the groups."""
        return "\n".join(sorted(self.imports, key=lambda line: (line.startswith("from"), line.lower())))


def without_module(source: str, used: str) -> str:
    """plotting.plot_images becomes plot_images."""
    return re.sub(rf"\b{re.escape(used)}\b", used.rpartition(".")[2], source) if "." in used else source


def renamed(source: str, name: str) -> str:
    """The source of a helper with `_name` in place of the helper `name`; attributes and arguments keep theirs."""
    tree = ast.parse(source)
    nodes = [node for node in ast.walk(tree) if isinstance(node, ast.Name | ast.arg)]
    if any(isinstance(node, ast.arg) and node.arg == name for node in nodes):
        return source  # there it is an argument
    places = {(node.lineno, node.col_offset) for node in nodes if isinstance(node, ast.Name) and node.id == name}
    lines = source.splitlines()
    for row, column in sorted(places, reverse=True):
        before, after = lines[row - 1].encode()[:column].decode(), lines[row - 1].encode()[column:].decode()
        # Inside an f-string, Python 3.11 may give another place.
        lines[row - 1] = f"{before}{'_' if after.startswith(name) else ''}{after}"
    return re.sub(rf"^(def|class) {name}\b", rf"\1 _{name}", "\n".join(lines), flags=re.MULTILINE)


def standalone(book: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """A copy that imports nothing of the package, with a sentence in place of each cell that shows its records.

    A helper that the notebook does not mention gets an underscore if the notebook gives its name to something else.
    """
    book, inliner, own = nbformat.from_dict(book), Inliner(), Module()
    cells, first, bound, mentioned = [], None, set(), set()
    for cell in book.cells:
        if SETUP in cell.metadata.get("tags", []):
            continue  # there is nothing to fetch
        if cell.cell_type != "code":
            cells.append(cell)
            continue
        cell.outputs, cell.execution_count = [], None
        cell.metadata = {name: value for name, value in cell.metadata.items() if name == "tags"}
        tree = ast.parse(cell.source)
        imports = [node for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)]
        for node in imports:
            add_imports(node, own)
        if imports and len(imports) == len(tree.body):
            first = first or cell
            cells += [cell] if cell is first else []
            continue
        helpers, places = [], inliner.used(own, names_in(tree))
        if RECORDS & {name for _, name in places.values()}:
            cells.append(new_markdown_cell(MISSING))
            continue
        for used, place in places.items():
            helpers += inliner.need(*place)
            cell.source = without_module(cell.source, used)
            mentioned.add(place[1])
        bound |= bound_in(tree.body)
        cells += [new_code_cell(source, metadata={"tags": [HELPER]}) for source in helpers] + [cell]
    for cell in cells:
        if cell.metadata.get("tags") == [HELPER]:
            cell.metadata = {}
            for name in sorted(bound & set(inliner.origin) - mentioned):
                cell.source = renamed(cell.source, name)
    inliner.imports |= set(own.external.values())
    if first is None:
        raise ValueError("no cell holds the imports alone, expected one for those of the helpers")
    first.source = inliner.import_lines()
    book.cells = cells
    return book


def snippet(demo: str) -> str:
    """A script that runs alone: what `demo` uses of the package, and then `demo` itself."""
    inliner, asked = Inliner(), read(demo)
    places = inliner.used(asked, set(asked.internal)).values()
    helpers = [source for place in places for source in inliner.need(*place)]
    inliner.imports |= set(asked.external.values())
    rest = "\n".join(line for line in demo.splitlines() if not line.startswith(("from ", "import "))).strip()
    return "\n\n\n".join([inliner.import_lines(), *helpers, rest]) + "\n"


def main() -> None:
    (BUILD / "snippets").mkdir(parents=True, exist_ok=True)
    for source in sorted(NOTEBOOKS.glob("*.ipynb")):
        nbformat.write(standalone(nbformat.read(source, as_version=4)), BUILD / source.name)
        print(BUILD / source.name)
    for name, demo in yaml.safe_load((HERE / "snippets.yaml").read_text(encoding="utf-8")).items():
        (BUILD / "snippets" / f"{name}.py").write_text(snippet(demo), encoding="utf-8")
        print(BUILD / "snippets" / f"{name}.py")


if __name__ == "__main__":
    main()
