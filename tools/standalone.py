"""Notebooks and snippets that need nothing of this repository: `make standalone` writes them into build/standalone/.

Generated from the package's own source: every helper that a notebook uses stands in a cell of its own, right before the
first cell that uses it, with all that it needs itself; nothing else is in it.
"""

import ast
import re
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import nbformat
import yaml
from nbformat.v4 import new_code_cell
from setup_cell import SETUP

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
NOTEBOOKS = ROOT / "notebooks"
PACKAGE = ROOT / "course_utils"
BUILD = ROOT / "build" / "standalone"


@dataclass
class Module:
    """What a module of the package defines and imports at its top level."""

    definitions: dict[str, str] = field(default_factory=dict)  # name: source, with the comments above it
    uses: dict[str, set[str]] = field(default_factory=dict)  # name: the names that its source mentions
    internal: dict[str, tuple[str, str]] = field(default_factory=dict)  # name: (module, name there)
    external: dict[str, str] = field(default_factory=dict)  # name: the import that brings it


def names_in(tree: ast.AST) -> set[str]:
    return {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}


def add_imports(node: ast.stmt, module: Module) -> None:
    for alias in node.names:
        name = alias.asname or alias.name
        renamed = f" as {alias.asname}" if alias.asname else ""
        if isinstance(node, ast.Import):
            module.external[name.split(".")[0]] = f"import {alias.name}{renamed}"
        elif node.module == PACKAGE.name:
            module.internal[name] = (alias.name, "")  # a module as a whole
        elif node.module.startswith(PACKAGE.name + "."):
            module.internal[name] = (node.module.split(".")[1], alias.name)
        else:
            module.external[name] = f"from {node.module} import {alias.name}{renamed}"


def read(source: str) -> Module:
    module, lines = Module(), source.splitlines()
    for node in ast.parse(source).body:
        if isinstance(node, ast.Import | ast.ImportFrom):
            add_imports(node, module)
            continue
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            names = [node.name]
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            names = sorted(set().union(*map(names_in, targets)))
        else:
            continue  # docstrings, and what only a command needs
        start = min([node.lineno, *(decorator.lineno for decorator in getattr(node, "decorator_list", []))]) - 1
        while start and lines[start - 1].startswith("#"):
            start -= 1
        for name in names:
            module.definitions[name] = "\n".join(lines[start : node.end_lineno])
            module.uses[name] = names_in(node)
    return module


@cache
def package() -> dict[str, Module]:
    return {file.stem: read(file.read_text(encoding="utf-8")) for file in sorted(PACKAGE.glob("[!_]*.py"))}


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
        here = package()[module]
        self.origin[name] = module
        sources = []
        for used in sorted(here.uses[name]):
            if used in here.internal:
                sources += self.need(*here.internal[used])
            elif used in here.definitions and used != name:
                sources += self.need(module, used)
            elif used in here.external:
                self.imports.add(here.external[used])
        source = here.definitions[name]
        return sources if source in sources else [*sources, source]

    def import_lines(self) -> str:
        """The imports, sorted as ruff sorts them but for the groups."""
        return "\n".join(sorted(self.imports, key=lambda line: (line.startswith("from"), line.lower())))


def standalone(book: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """A copy that imports nothing of the package."""
    book, inliner, own = nbformat.from_dict(book), Inliner(), Module()
    cells, first = [], None
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
        whole = [name for name, (_, inside) in own.internal.items() if not inside]
        sources = []
        for name in whole:  # plotting.plot_images becomes plot_images
            for used in re.findall(rf"\b{name}\.(\w+)", cell.source):
                sources += inliner.need(own.internal[name][0], used)
            cell.source = re.sub(rf"\b{name}\.(\w+)", r"\1", cell.source)
        for name in sorted(names_in(tree) & set(own.internal) - set(whole)):
            sources += inliner.need(*own.internal[name])
        cells += [new_code_cell(source) for source in sources] + [cell]
    inliner.imports |= set(own.external.values())
    first.source = inliner.import_lines()
    book.cells = cells
    return book


def snippet(demo: str) -> str:
    """A script that runs alone: what `demo` uses of the package, and then `demo` itself."""
    inliner, asked = Inliner(), read(demo)
    sources = [source for name in asked.internal.values() for source in inliner.need(*name)]
    inliner.imports |= set(asked.external.values())
    rest = "\n".join(line for line in demo.splitlines() if not line.startswith(("from ", "import "))).strip()
    return "\n\n\n".join([inliner.import_lines(), *sources, rest]) + "\n"


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
