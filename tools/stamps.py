"""What the output of each cell was made from, as a hash: `make render` leaves it with the cell, and a test compares it.

A cell's hash covers its source, the helpers of `course_utils` that it uses, with all that they use themselves, and the
earlier cells that define names it uses, with theirs. Comments, docstrings and layout do not count, and neither do the
versions of the libraries, nor what an earlier cell does to an object that it did not make.
"""

import ast
import hashlib

import nbformat
from standalone import Inliner, Module, add_imports, names_in

STAMP = "made_from"  # in the cell's metadata


def meaning(tree):
    """A syntax tree as nested lists of text, the same in every version of Python."""
    if isinstance(tree, ast.AST):
        fields = [[name, meaning(value)] for name, value in ast.iter_fields(tree) if value not in (None, [])]
        return [type(tree).__name__, *sorted(fields, key=lambda field: field[0])]
    if isinstance(tree, list):
        documented = tree and isinstance(tree[0], ast.Expr) and isinstance(tree[0].value, ast.Constant)
        return [meaning(item) for item in (tree[1:] if documented else tree)]
    return repr(tree)


def defined_in(tree: ast.Module) -> set[str]:
    """The names that a cell gives a value to."""
    found = {node.name for node in tree.body if isinstance(node, ast.FunctionDef | ast.ClassDef)}
    return found | {
        node.id for node in ast.walk(tree) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)
    }


def helpers_of(tree: ast.Module, imported: Module) -> set[str]:
    """The sources of the helpers that a cell uses, and of all that those use."""
    inliner, sources = Inliner(), []
    for name in sorted(names_in(tree) & set(imported.internal)):
        module, inside = imported.internal[name]
        if inside:
            sources += inliner.need(module, inside)
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            module, inside = imported.internal.get(node.value.id, ("", "of a module"))
            if module and not inside:  # plotting.plot_images
                sources += inliner.need(module, node.attr)
    return set(sources)


def stamps(book: nbformat.NotebookNode) -> dict[str, str]:
    """The hash of every code cell, by id."""
    imported, made_from, latest, found = Module(), {}, {}, {}
    for cell in book.cells:
        if cell.cell_type != "code":
            continue
        tree = ast.parse(cell.source)
        for node in tree.body:
            if isinstance(node, ast.Import | ast.ImportFrom):
                add_imports(node, imported)
        sources = helpers_of(tree, imported)
        parts = {str(meaning(tree))} | {str(meaning(ast.parse(source))) for source in sources}
        for name in names_in(tree) & set(latest):
            parts |= made_from[latest[name]]
        made_from[cell.id] = parts
        latest |= dict.fromkeys(defined_in(tree), cell.id)
        found[cell.id] = hashlib.sha256("\n".join(sorted(parts)).encode()).hexdigest()[:16]
    return found


def stamp(book: nbformat.NotebookNode) -> None:
    """Leave its hash with every code cell."""
    found = stamps(book)
    for cell in book.cells:
        if cell.id in found:
            cell.metadata[STAMP] = found[cell.id]


def stale(book: nbformat.NotebookNode) -> list[str]:
    """The ids of the cells whose output was made from something else than what stands there now."""
    found = stamps(book)
    return [cell.id for cell in book.cells if cell.id in found and cell.metadata.get(STAMP) != found[cell.id]]
