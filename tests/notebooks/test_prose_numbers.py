"""Numbers in the notebooks' text are those of the outputs: what was seen is still what stands there.

Checked are numbers with decimals and numbers of per cent: each must stand, in full or rounded, in the text output of
one of the four code cells before it or of the one after it. A number after "≈" is the author's own arithmetic or was
read off a figure, and is not compared; neither is what stands in code, formulas, links and citations.
"""

import re

import nbformat
import pytest

NOT_RESULTS = re.compile(
    r"`[^`]*`|\$[^$]*\$|\[[^\]]*\]\([^)]*\)|sections? \d[\d.]*|[A-Z]\w+(?: et al\.)? \d{4}|≈ ?[\d.,]+"
)
RESULT = re.compile(r"(?<![\w.])\d+\.\d+|(?<![\w.,])\d+(?= ?%)|\d+(?=(?:, [\d.]+)* (?:and|or|to) [\d.]+ ?%)")
BEFORE, AFTER = 4, 1


def numbers_shown(cell) -> list[float]:
    """All numbers that a code cell's output shows as text."""
    texts = [output.get("text") or output.get("data", {}).get("text/plain", "") for output in cell.get("outputs", [])]
    return [float(number.replace(",", "")) for number in re.findall(r"\d[\d,]*\.?\d*", "\n".join(texts))]


def stands_in(number: str, shown: list[float]) -> bool:
    decimals = len(number.partition(".")[2])
    return any(abs(value - float(number)) <= 0.5 * 10**-decimals + 1e-9 for value in shown)


def untrue_numbers(book: nbformat.NotebookNode) -> list[str]:
    """One line per number in the text that no output near it shows."""
    problems, code = [], [cell for cell in book.cells if cell.cell_type == "code"]
    position = 0
    for cell in book.cells:
        if cell.cell_type == "code":
            position += 1
            continue
        shown = [n for near in code[max(0, position - BEFORE) : position + AFTER] for n in numbers_shown(near)]
        found = RESULT.findall(NOT_RESULTS.sub(" ", cell.source))
        missing = [number for number in found if not stands_in(number, shown)]
        problems += [f"cell '{cell.id}': {number} stands in no output near it" for number in missing]
    return problems


def test_numbers_in_the_text_are_those_of_the_outputs(path, book):
    problems = untrue_numbers(book)
    assert not problems, f"{path.name}: " + "; ".join(problems)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("81.5 % and 80.91", []),
        ("81.6 %", ["81.6"]),
        ("82 % of the images", []),
        ("83 % of the images", ["83"]),
        ("13 and 14 %", ["13", "14"]),
        ("81, 82 and 84 %", ["84"]),
        ("≈ 0.6 points, `0.7`, $0.8$, [0.9](a), Wu and He 2018, section 3.2", []),
        ("46,202 parameters, 3×3, 20 epochs", []),
    ],
)
def test_what_is_compared(text, found):
    output = nbformat.v4.new_output("stream", text="accuracy 81.54 %, 80.91\n46,202 parameters\n")
    cells = [nbformat.v4.new_code_cell("x", outputs=[output]), nbformat.v4.new_markdown_cell(text, id="text")]
    expected = [f"cell 'text': {number} stands in no output near it" for number in found]
    assert untrue_numbers(nbformat.v4.new_notebook(cells=cells)) == expected
