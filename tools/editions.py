"""The student's edition of every notebook, committed in notebooks/student/: `make editions`.

It is made from the notebook of the same name in notebooks/, which has the solutions, and the outputs of the full run.
The student's has no outputs, and in every cell tagged `solution` three dots in place of what stands before the check.
"""

from pathlib import Path

import nbformat

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOKS = ROOT / "notebooks"
STUDENT = NOTEBOOKS / "student"
SOLUTION, CHECK = "solution", "check_answer("
BLANK = "answer = ...  # in place of the dots, or a function of this name\n"


def blank(source: str) -> str:
    """A solution cell without its solution; `ValueError` if it does not end with its check."""
    *_, check = source.splitlines()
    if not check.startswith(CHECK):
        raise ValueError(f"a cell tagged {SOLUTION!r} ends with {check!r}, expected {CHECK}...)")
    return BLANK + check


def student_edition(book: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """A copy to work on."""
    book = nbformat.from_dict(book)
    for cell in book.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
            cell.metadata = {name: value for name, value in cell.metadata.items() if name == "tags"}
            if SOLUTION in cell.metadata.get("tags", []):
                cell.source = blank(cell.source)
    return book


def main() -> None:
    STUDENT.mkdir(exist_ok=True)
    for source in sorted(NOTEBOOKS.glob("*.ipynb")):
        nbformat.write(student_edition(nbformat.read(source, as_version=4)), STUDENT / source.name)
        print(STUDENT / source.name)


if __name__ == "__main__":
    main()
