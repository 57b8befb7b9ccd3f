"""The source of course_utils as a graph: what each module defines and imports, and where imported names are defined."""

import ast
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = "course_utils"

Place = tuple[str, str]  # a module, by its dotted name below course_utils, and a name in it; "" for the whole module


@dataclass
class Module:
    """What a module defines at its top level, and what it imports anywhere."""

    definitions: dict[str, str] = field(default_factory=dict)  # name: source, with the comments above it
    uses: dict[str, set[str]] = field(default_factory=dict)  # name: the names that its source mentions
    internal: dict[str, Place] = field(default_factory=dict)  # name: what it imports of the package
    external: dict[str, str] = field(default_factory=dict)  # name: the import line that brings it
    dotted: dict[str, str] = field(default_factory=dict)  # name: what it stands for, np: numpy


def names_in(tree: ast.AST) -> set[str]:
    """The names that a piece of code mentions, and those of a module's content in the form plotting.plot_images."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Name):
            found.add(node.id)
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            found.add(f"{node.value.id}.{node.attr}")
    return found


def is_internal(node: ast.AST) -> bool:
    """True for an import of the package."""
    return isinstance(node, ast.ImportFrom) and f"{node.module}.".startswith(f"{PACKAGE}.")


def add_imports(node: ast.Import | ast.ImportFrom, module: Module) -> None:
    """Note in `module` what an import statement brings."""
    for alias in node.names:
        name = alias.asname or alias.name
        renamed = f" as {alias.asname}" if alias.asname else ""
        if isinstance(node, ast.Import):
            bound = name if alias.asname else name.split(".")[0]
            module.external[bound] = f"import {alias.name}{renamed}"
            module.dotted[bound] = alias.name if alias.asname else bound
        elif is_internal(node):
            module.internal[name] = ((node.module or "").removeprefix(PACKAGE).removeprefix("."), alias.name)
        else:
            module.external[name] = f"from {node.module} import {alias.name}{renamed}"
            module.dotted[name] = f"{node.module}.{alias.name}"


def read(source: str) -> Module:
    """A module from its source. Imports of the package inside functions are left out of the definitions."""
    module, lines, inside = Module(), source.splitlines(), Module()
    tree = ast.parse(source)
    left_out = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            add_imports(node, module if node in tree.body or is_internal(node) else inside)
            if is_internal(node):
                left_out |= set(range(node.lineno - 1, node.end_lineno or node.lineno))
    module.dotted = inside.dotted | module.dotted  # the import lines in functions stay where they are
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            names = [node.name]
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            names = sorted(set().union(*map(names_in, targets)))
        elif isinstance(node, ast.AugAssign):
            names = sorted(names_in(node.target))
        else:
            continue  # docstrings, and what only a command needs
        start = min([node.lineno, *(decorator.lineno for decorator in getattr(node, "decorator_list", []))]) - 1
        while start and lines[start - 1].startswith("#"):
            start -= 1
        text = "\n".join(lines[number] for number in range(start, node.end_lineno or start) if number not in left_out)
        for name in names:
            if isinstance(node, ast.AugAssign):  # one of the statements that make it
                module.definitions[name] += f"\n{text}"
                module.uses[name] |= names_in(node)
            else:
                module.definitions[name], module.uses[name] = text, names_in(node)
    return module


@cache
def package(root: Path = ROOT) -> dict[str, Module]:
    """Every module of the package that lies in `root`, by its dotted name below course_utils; "" is the package."""
    modules = {}
    for file in sorted((root / PACKAGE).rglob("*.py")):
        parts = file.relative_to(root / PACKAGE).with_suffix("").parts
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        modules[name] = read(file.read_text(encoding="utf-8"))
    return modules


def resolve(modules: dict[str, Module], module: str, name: str) -> Place:
    """Where `name`, as `module` offers it, is defined; ("data.augment", "") if it is a module.

    Raises `ValueError` if the module has no such name.
    """
    here = modules.get(module, Module())
    if name in here.definitions:
        return module, name
    if name in here.internal:
        return resolve(modules, *here.internal[name])
    if (below := f"{module}.{name}".removeprefix(".")) in modules:
        return below, ""
    if not name and module in modules:
        return module, ""
    raise ValueError(f"{PACKAGE}.{module} has no {name or 'such module'}")


def used_of_package(modules: dict[str, Module], module: Module, names: set[str]) -> dict[str, Place]:
    """Those of `names`, as `module` knows them, that the package defines: {"plotting.plot_images": place}."""
    found = {}
    for text in sorted(names):
        name, _, attribute = text.partition(".")
        if name in module.internal:
            place, inside = resolve(modules, *module.internal[name])
            if attribute and not inside:
                found[text] = resolve(modules, place, attribute)
            elif inside and not attribute:
                found[text] = (place, inside)
    return found
