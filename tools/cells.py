"""The code cells of a notebook as a graph of statements: what each needs of the earlier ones.

An object may change by a statement that mentions it: by every one in the cell that makes it, unless it only shows
something; in later cells by assignments to its parts, by calls of its methods as statements, and by methods of the
package that write to it. What a cell does to an object of an earlier cell in other ways is not followed.
"""

import ast
from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import nbformat
import sources
from bindings import base_name, bound_in, dotted, extended_by, reads_and_binds
from code_graph import Graph, Meaning, digest, meaning_of
from normal_form import parse
from sources import ROOT, Module, Place, add_imports

SHOWING = {"print", "display", "summary"}
PLOTS = "analysis.plotting"  # the module whose functions take finished data


@dataclass(eq=False)
class Statement:
    """`needs`: the earlier statements that made the names it mentions. `state`: those that wrote to an object what its
    methods read here, as `lesson.train` writes what `lesson.table` shows."""

    cell: str
    node: ast.stmt
    meaning: Meaning
    needs: list["Statement"] = field(default_factory=list)
    state: list["Statement"] = field(default_factory=list)


def shows_errors(statements: list[ast.stmt]) -> bool:
    """Does a cell catch an error to show it? Then the wording counts."""
    nodes = [node for each in statements for node in ast.walk(each)]
    caught = {node.name for node in nodes if isinstance(node, ast.ExceptHandler)}
    return any(isinstance(node, ast.Name) and node.id in caught for node in nodes)


class Cells:
    """Reads the code cells of a notebook in their order."""

    def __init__(self, book: nbformat.NotebookNode, root: Path = ROOT):
        self.graph = Graph(sources.package(root))
        self.effects = self.graph.effects()
        self.statements: dict[str, list[Statement]] = {}
        self.wording: dict[str, bool] = {}
        self.imported = Module()
        self.makers: dict[str, list[Statement]] = {}
        self.writers: list[tuple[Statement, str, set[str]]] = []  # who wrote which attributes of which name
        for cell in book.cells:
            if cell.cell_type == "code":
                statements = parse(cell.source)
                self.wording[cell.id], self.statements[cell.id] = shows_errors(statements), []
                for node in statements:
                    self.note_imports(node)
                    if not isinstance(node, ast.Import | ast.ImportFrom):
                        self.read(cell.id, node)

    def note_imports(self, node: ast.stmt) -> None:
        for inner in ast.walk(node):
            if isinstance(inner, ast.Import | ast.ImportFrom):
                add_imports(inner, self.imported)
                for alias in inner.names:
                    self.makers.pop((alias.asname or alias.name).split(".")[0], None)

    def read(self, cell: str, node: ast.stmt) -> None:
        meaning = meaning_of([node], self.graph.finder(self.imported), self.wording[cell])
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            meaning.digest = digest(repr(node.value.value))  # shown, if it is the last
        statement, earlier = Statement(cell, node, meaning), self.statements[cell]
        for name in sorted(meaning.names & reads_and_binds([node])[0]):
            statement.needs += self.makers.get(name, [])
        statement.needs += [each for each in earlier if self.sets_globals(each)]
        self.follow_methods(statement)
        self.note_values(statement)
        earlier.append(statement)

    def only_shows(self, node: ast.stmt) -> bool:
        """Does a statement, with those in it, print and plot and nothing else?"""

        def shows(value: ast.expr) -> bool:
            if not isinstance(value, ast.Call):
                return not any(isinstance(each, ast.Call) for each in ast.walk(value))
            place = self.graph.finder(self.imported)(dotted(value.func) or "")
            if isinstance(place, tuple):
                return place[0] == PLOTS
            if isinstance(value.func, ast.Attribute):
                _, written = self.effects.get(value.func.attr, ((), {"anything"}))
                return not written
            return getattr(value.func, "id", None) in SHOWING

        leaves = [each for each in ast.walk(node) if isinstance(each, ast.stmt) and not hasattr(each, "body")]
        return all(isinstance(each, ast.Expr) and shows(each.value) for each in leaves)

    def sets_globals(self, statement: Statement) -> bool:
        """Does the rest of the cell depend on it without a name, as on a seed?"""
        calls = [ast.unparse(each.func) for each in ast.walk(statement.node) if isinstance(each, ast.Call)]
        nameless = isinstance(statement.node, ast.Expr) and not statement.needs and not self.only_shows(statement.node)
        return nameless or any("seed" in call.split(".")[-1] for call in calls)

    def follow_methods(self, statement: Statement) -> None:
        """Find the earlier statements that wrote what the methods in this one read, and note what it writes."""
        called, bare, nodes = {}, set(), list(ast.walk(statement.node))
        owners = [each.value for each in nodes if isinstance(each, ast.Attribute)]
        for each in nodes:
            if isinstance(each, ast.Attribute) and isinstance(each.value, ast.Name):
                called.setdefault(each.value.id, set()).add(each.attr)
            elif isinstance(each, ast.Name) and each not in owners:
                bare.add(each.id)
        for earlier, name, written in self.writers:
            reads = [self.effects.get(method, ({method}, set()))[0] for method in called.get(name, ())]
            if name in bare or written & set().union(*reads):
                statement.state.append(earlier)
        for name in set(called) & set(self.makers):
            writes = [self.effects.get(method, (set(), set()))[1] for method in called[name]]
            if written := set().union(*writes):
                self.writers.append((statement, name, written))

    def note_values(self, statement: Statement) -> None:
        """Note the names to which a statement gives a value, and the objects that it may change."""
        node, bound = statement.node, bound_in([statement.node])
        read, surely = reads_and_binds([node])
        changed: set[Any] = set()
        for each in ast.walk(node):
            if isinstance(each, ast.Subscript | ast.Attribute) and isinstance(each.ctx, ast.Store):
                changed.add(base_name(each))
            if isinstance(each, ast.Expr) and not self.only_shows(each):
                method = cast(Any, each.value).func.attr if extended_by(each) else None
                changed |= {extended_by(each)} if method not in self.effects else set()
        if not self.only_shows(node):
            own = {
                name
                for name in statement.meaning.names
                for made in self.makers.get(name, [])
                if made.cell == statement.cell
            }
            changed |= own
        changed.discard(None)  # of what has no name
        for name in (changed | bound) & (set(self.makers) | bound):
            anew = name in surely - read
            self.makers[name] = [*([] if anew else self.makers.get(name, [])), statement]
            if anew:
                self.writers = [writer for writer in self.writers if writer[1] != name]
        for known in (self.imported.internal, self.imported.external, self.imported.dotted):
            for name in bound & set(known):
                del known[name]

    def closure(self, cell: str, state: bool = True) -> list[Statement]:
        """The statements of a cell and all that they depend on; without `state`, by names alone."""
        found, pending = {}, list(self.statements[cell])
        while pending:
            each = pending.pop()
            if each not in found:
                found[each] = None
                pending += each.needs + (each.state if state else [])
        return list(found)

    def reached(self, cell: str, without: Collection[str] = ()) -> dict[Place, str]:
        """The definitions of the package that a cell reaches, each with its digest; not by way of `without`."""
        meanings = [each.meaning for each in self.closure(cell)]
        places = {place for meaning in meanings for place in meaning.places if place[1] not in without}
        attributes = set().union(*(meaning.attributes for meaning in meanings))
        return self.graph.reach(places, attributes, self.wording[cell])

    def trained(self, cell: str) -> bool:
        """Does a cell call `lesson.train`, or use what was made with it?"""
        nodes = (node for each in self.closure(cell, state=False) for node in ast.walk(each.node))
        return any(isinstance(node, ast.Call) and dotted(node.func) == "lesson.train" for node in nodes)
