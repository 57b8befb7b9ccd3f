"""The hash that binds an output to its cell, to the helpers it uses and to the cells before it."""

import nbformat
import pytest
import standalone
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook
from stamps import stale, stamp, stamps

SOURCES = {
    "imports": "import torch\nfrom course_utils import plotting\nfrom course_utils.layers import make_norm",
    "width": "width = 8",
    "layer": "layer = make_norm(width)",
    "pair": "def pair(x):\n    return x, x",
    "shown": "print(pair(layer))",
    "other": "plotting.plot_images(torch.zeros(1))",
}


def book_of(**changed) -> nbformat.NotebookNode:
    cells = [new_code_cell(source, id=name) for name, source in (SOURCES | changed).items()]
    return new_notebook(cells=[new_markdown_cell("# A session", id="title"), *cells])


def changed_by(before, after) -> set[str]:
    return {name for name, value in stamps(after).items() if stamps(before)[name] != value}


@pytest.mark.parametrize(
    ("cell", "source", "expected"),
    [
        ("width", "width = 16", {"width", "layer", "shown"}),
        ("layer", "layer = make_norm(width, 'layer')", {"layer", "shown"}),
        ("pair", "def pair(x):\n    return [x, x]", {"pair", "shown"}),
        ("other", "plotting.plot_images(torch.ones(1))", {"other"}),
        ("width", "width = 8  # channels", set()),
        ("layer", "layer = make_norm(\n    width\n)", set()),
        ("pair", 'def pair(x):\n    """Twice."""\n    return x, x', set()),
    ],
)
def test_what_a_changed_cell_makes_stale(cell, source, expected):
    assert changed_by(book_of(), book_of(**{cell: source})) == expected


@pytest.mark.parametrize(
    ("module", "old", "new", "expected"),
    [
        ("layers", "return nn.Identity()", "return nn.ReLU()", {"layer", "shown"}),
        ("runtime", "if value not in choices", "if value in choices", {"layer", "shown"}),  # make_norm uses choose
        ("plotting", "squeeze=False", "squeeze=True", {"other"}),
        ("layers", "The normalization layer for", "A normalization layer for", set()),  # a docstring
        ("download", "def ", "def  ", set()),  # a module that no cell uses
    ],
)
def test_what_a_changed_helper_makes_stale(module, old, new, expected, monkeypatch):
    before = stamps(book_of())
    source = (standalone.PACKAGE / f"{module}.py").read_text(encoding="utf-8")
    assert old in source
    changed = standalone.package() | {module: standalone.read(source.replace(old, new))}
    monkeypatch.setattr(standalone, "package", lambda: changed)
    assert {name for name, value in stamps(book_of()).items() if before[name] != value} == expected


def test_stale_cells_are_named():
    book = book_of()
    assert stale(book) == list(SOURCES)  # never stamped
    stamp(book)
    assert stale(book) == []
    next(cell for cell in book.cells if cell.id == "width").source = "width = 16"
    assert stale(book) == ["width", "layer", "shown"]
