"""The notebooks read like lessons: the figures of their size and rhythm, and what every figure and cell needs."""

import ast
import base64
import io
import re
from itertools import groupby
from statistics import median

from PIL import Image
from website import alternative_text

OUTLINE = ["What you will learn", "Set-up", "Look at the data", "The idea", "The experiment", "What we see"]
OUTLINE += ["Where it fails", "Recap", "Exercises", "References"]

OWN = ("SmallNet", "train_by_hand")  # the network and the training that a lesson is about, shown whole
EMBEDDED = re.compile(r"data:image/png;base64,[\w+/=]*")
ABSOLUTE_PATH = re.compile(r"(?<![\w.:/<])/[\w.-]+/[\w.-]+|[A-Z]:\\\w|~/")


def cells(book, kind: str) -> list:
    return [cell for cell in book.cells if cell.cell_type == kind]


def test_outline(book):
    titles = re.findall(r"^#+ (.*)$", "\n".join(cell.source for cell in cells(book, "markdown")), re.MULTILINE)
    assert titles[0].endswith("?")
    found = [next((i for i, title in enumerate(titles) if title.startswith(part)), None) for part in OUTLINE]
    assert None not in found and found == sorted(found), dict(zip(OUTLINE, found, strict=True))


def test_size(book):
    code, text = cells(book, "code"), cells(book, "markdown")
    lines = [len(cell.source.splitlines()) for cell in code if cell.id != "imports"]  # a line for each module
    titles = ("exercise", "references")
    words = sum(len(cell.source.split()) for cell in text if not cell.id.startswith(titles))
    # An hour's lesson: half of it is reading, at 150 words a minute.
    assert 20 <= len(code) <= 48 and 1.0 <= len(text) / len(code) <= 1.4
    assert 3 <= median(lines) <= 8 and max(lines) <= 25
    assert 1500 <= words <= 4500


def test_claim_and_cell_alternate(book):
    runs = [len(list(group)) for kind, group in groupby(cell.cell_type for cell in book.cells) if kind == "code"]
    assert max(runs) <= 2


def test_long_functions_live_in_the_package(book):
    for cell in cells(book, "code"):
        for node in ast.walk(ast.parse(cell.source)):
            if isinstance(node, ast.FunctionDef | ast.ClassDef) and node.name not in OWN:
                assert node.end_lineno - node.lineno < 12, f"{node.name} has more than 12 lines"


def test_nothing_is_swallowed(book):
    """A cell that catches its error counts as executed, and what it should have done was not."""
    for cell in cells(book, "code"):
        for node in ast.walk(ast.parse(cell.source)):
            caught = isinstance(node, ast.Try) or (isinstance(node, ast.Name) and node.id == "suppress")
            assert not caught, f"cell '{cell.id}' catches exceptions, expected that the run ends with them"


def test_figures(book):
    """PNG at 80 to 100 dots per inch or less than 1,200 pixels wide, and described in the text around them."""
    count = 0
    for index, cell in enumerate(book.cells):
        for output in cell.get("outputs", []):
            if picture := output.get("data", {}).get("image/png"):
                count += 1
                image = Image.open(io.BytesIO(base64.b64decode(picture)))
                assert max(image.size) <= 1200 and round(image.info.get("dpi", (90, 90))[0]) <= 100
                alternative_text(book, index)  # raises where no text describes it
    assert count >= 5


def test_nothing_is_unix_only_or_tied_to_a_machine(book):
    for cell in book.cells:
        found = re.search(r"^\s*[!%].*|/tmp|/home/|/root/|[A-Z]:\\\\", cell.source, re.MULTILINE)
        assert not found, f"cell '{cell.id}' has something that is not for every machine: {found[0]}"
        for output in cell.get("outputs", []):
            shown = {kind: text for kind, text in output.get("data", {}).items() if kind.startswith("text/")}
            text = "".join([output.get("text", ""), *shown.values(), *output.get("traceback", [])])
            found = ABSOLUTE_PATH.search(EMBEDDED.sub("", text))
            assert not found, f"cell '{cell.id}' shows a path of one machine: {found[0]}"
