"""What a piece of code reaches in the package: every definition that it mentions, and that those mention in turn."""

import ast
import hashlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from bindings import FUNCTION
from normal_form import Reader, parse
from sources import Module, Place, resolve

Function = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass
class Meaning:
    """A digest of what code means, and what it mentions: places in the package, other names, attributes."""

    digest: str
    places: set[Place]
    names: set[str]
    attributes: set[str]


def digest(value) -> str:
    return hashlib.sha256(str(value).encode()).hexdigest()[:16]


def meaning_of(statements: list[ast.stmt], find: Callable, wording: bool = False) -> Meaning:
    reader = Reader(find, wording)
    return Meaning(digest(reader.block(statements)), reader.places, reader.names, reader.attributes)


def is_property(method: Function) -> bool:
    return any(ast.unparse(each).endswith(("property", ".setter", ".deleter")) for each in method.decorator_list)


class Graph:
    """The definitions of the package by their place; a method that is reached by its name alone has its own place."""

    def __init__(self, modules: dict[str, Module]):
        self.modules, self.known = modules, {}

    def finder(self, module: Module, own: str | None = None) -> Callable:
        """What a name in `module` stands for: a dotted text of another library, a place in the package, or None.

        `own`: the name of the module, whose definitions count too.
        """

        def find(path: str):
            name, _, rest = path.partition(".")
            if own is not None and name in module.definitions:
                return None if rest else (own, name)
            if name in module.internal:
                place = resolve(self.modules, *module.internal[name])
                if not rest:
                    return place
                whole = not place[1] and "." not in rest
                return resolve(self.modules, place[0], rest) if whole else None
            if name in module.dotted:
                return f"{module.dotted[name]}.{rest}".removesuffix(".")
            return None

        return find

    def calls_back(self, module: str, tree: Any) -> bool:
        """Has it a base class of another library, which may call any of its methods?"""
        places = [self.finder(self.modules[module], module)(ast.unparse(base)) for base in tree.bases]
        return not all(isinstance(place, tuple) for place in places) or any(
            self.calls_back(place[0], parse(self.modules[place[0]].definitions[place[1]])[0]) for place in places
        )

    def methods(self, module: str, tree: ast.AST) -> dict[str, Function]:
        """The methods of a class that run only where their name is mentioned."""
        if not isinstance(tree, ast.ClassDef) or self.calls_back(module, tree):
            return {}
        functions = [node for node in tree.body if isinstance(node, FUNCTION)]
        special = ("__", "_repr_", "_ipython_")  # called by Python and by Jupyter
        return {f.name: f for f in functions if not f.name.startswith(special) and not is_property(f)}

    def meaning(self, place: Place, wording: bool = False) -> tuple[Meaning, list[Place]]:
        """The meaning of a definition without its methods, and the places of these."""
        if (place, wording) not in self.known:
            module, _, method = place[0], *place[1].partition(".")[1:]
            tree: Any = parse(self.modules[module].definitions[place[1].split(".")[0]])[0]
            methods = self.methods(module, tree)
            if method:
                tree, methods = methods[method], {}
            elif methods:
                tree.body = [node for node in tree.body if node not in methods.values()]
            find = self.finder(self.modules[module], module)
            places = [(module, f"{place[1]}.{name}") for name in methods]
            self.known[place, wording] = meaning_of([tree], find, wording), places
        return self.known[place, wording]

    def reach(self, places: Iterable[Place], attributes: Iterable[str], wording: bool = False) -> dict[Place, str]:
        """The digests of all definitions that are reached from `places`, methods by `attributes` in what is reached."""
        found, waiting, attributes, pending = {}, set(), set(attributes), list(places)
        while pending:
            module, name = place = pending.pop()
            if place in found:
                continue
            if not name:  # a module as a value: any of its definitions
                pending += [(module, each) for each in self.modules[module].definitions]
                continue
            meaning, methods = self.meaning(place, wording)
            found[place] = meaning.digest
            attributes |= meaning.attributes
            waiting |= set(methods)
            pending += [*meaning.places, *(each for each in waiting if each[1].split(".")[1] in attributes)]
        return found

    def effects(self) -> dict[str, tuple[set[str], set[str]]]:
        """What the methods and properties of that name read from their object, and what they write to it."""
        found: dict[str, tuple[set[str], set[str]]] = {}
        for module in self.modules.values():
            for source in module.definitions.values():
                tree = parse(source)[0]
                for method in tree.body if isinstance(tree, ast.ClassDef) else []:
                    if isinstance(method, FUNCTION):
                        reads, writes = found.setdefault(method.name, (set(), set()))
                        more_reads, more_writes = effects_of(method)
                        reads |= more_reads
                        writes |= more_writes
        changed = True
        while changed:  # until no method learns anything from those that it uses
            changed = False
            for reads, writes in found.values():
                for used in reads & set(found):
                    if not (found[used][0] <= reads and found[used][1] <= writes):
                        reads |= found[used][0]
                        writes |= found[used][1]
                        changed = True
        return found


def effects_of(method: Function) -> tuple[set[str], set[str]]:
    """The attributes of `self` that a method reads, and those that it gives a value or an entry."""
    reads, writes, filled = set(), set(), set()
    for node in ast.walk(method):
        if isinstance(node, ast.Subscript) and isinstance(node.ctx, ast.Store):
            filled.add(node.value)
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "self":
            (reads if isinstance(node.ctx, ast.Load) and node not in filled else writes).add(node.attr)
    return reads, writes
