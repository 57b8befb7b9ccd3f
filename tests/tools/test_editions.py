"""The student's editions are the notebooks without the answers to their exercises."""

import editions
import nbformat
import pytest

from course_utils.exercises import check_answer

each_notebook = pytest.mark.parametrize("path", sorted(editions.NOTEBOOKS.glob("*.ipynb")), ids=lambda path: path.stem)


def solution_cells(book: nbformat.NotebookNode) -> list:
    return [cell for cell in book.cells if editions.SOLUTION in cell.metadata.get("tags", [])]


@each_notebook
def test_solutions_are_blank_and_their_checks_stay(path):
    book = nbformat.read(path, as_version=4)
    blanks, solutions = solution_cells(editions.student_edition(book)), solution_cells(book)
    assert book == nbformat.read(path, as_version=4)  # the edition is a copy
    for solution, blank in zip(solutions, blanks, strict=True):
        check = solution.source.splitlines()[-1]
        assert set(blank.metadata) == {"tags"}
        assert blank.source == f"{editions.BLANK}{check}" and blank.outputs == [] != solution.outputs
        with pytest.raises(AssertionError, match="replace the three dots by your answer"):
            exec(blank.source, {"check_answer": check_answer})
    assert len(solutions) == 6


@each_notebook
def test_committed_student_edition_is_up_to_date(path):
    committed, book = editions.STUDENT / path.name, nbformat.read(path, as_version=4)
    same = committed.is_file() and nbformat.read(committed, as_version=4) == editions.student_edition(book)
    assert same, f"{committed.relative_to(editions.ROOT)} is not what is made from {path.name} now: make editions"


def test_solution_without_a_check():
    with pytest.raises(ValueError, match="ends with 'answer = 3', expected check_answer"):
        editions.blank("x = 1\nanswer = 3")
