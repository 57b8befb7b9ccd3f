"""What executing a notebook says when something is wrong with it, on small notebooks that are."""

import time

import execution
import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook


def book_of(*sources: str) -> nbformat.NotebookNode:
    cells = [new_code_cell(source, id=f"cell-{number}") for number, source in enumerate(sources)]
    return new_notebook(cells=[new_markdown_cell("# A session", id="title"), *cells])


@pytest.fixture
def execute(tmp_path):
    """Execute cells with these sources; returns what went wrong, and the notebook as far as it came."""

    def of(*sources: str, cell_seconds: int = 60, seconds: int = 90):
        notebook, output = tmp_path / "book.ipynb", tmp_path / "executed.ipynb"
        nbformat.write(book_of(*sources), notebook)
        problem = execution.execute(notebook, output, {}, cell_seconds, seconds)
        return problem, nbformat.read(output, as_version=4)

    return of


def test_whole(execute):
    problem, book = execute("x = 6", "print(7 * x)")
    assert problem is None
    assert book.cells[-1].outputs[0].text == "42\n"


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("# halves\n1 / 0", "cell 'cell-1' (# halves): ZeroDivisionError: division by zero"),
        ("import sys\nsys.exit(0)", "the kernel ended with cell 'cell-1' (import sys); what follows was not executed"),
        ("import no_such_package", "cell 'cell-1' (import no_such_package): ModuleNotFoundError: No module named "),
    ],
    ids=["error", "exit with status 0", "missing package"],
)
def test_what_went_wrong(execute, source, message):
    problem, book = execute("print('before')", source, "print('after')")
    assert problem.startswith(message) and "\n" not in problem
    texts = [output.get("text") for cell in book.cells for output in cell.get("outputs", [])]
    assert "before\n" in texts and "after\n" not in texts


def test_killed_kernel_is_noticed_at_once(execute):
    start = time.monotonic()
    problem, _ = execute("import os, signal", "os.kill(os.getpid(), signal.SIGKILL)", "print('after')")
    assert problem.startswith("cell 'cell-1' (os.kill(os.getpid(), signal.SIGKILL)): ") and "Kernel died" in problem
    assert time.monotonic() - start < 30  # not at the limit for the cell


def test_run_that_never_begins(tmp_path):
    """What an earlier run has left is not taken for this one's."""
    notebook, output = tmp_path / "book.ipynb", tmp_path / "executed.ipynb"
    nbformat.write(book_of("print(1)"), output)
    problem = execution.execute(notebook, output, {}, 60, 90)
    assert "FileNotFoundError" in problem and "book.ipynb" in problem and "\n" not in problem


def test_limit_for_a_cell(execute):
    problem, _ = execute("print('before')", "while True:\n    pass", cell_seconds=3)
    assert problem.startswith("cell 'cell-1' (while True:): ") and "after 3 seconds" in problem


def test_limit_for_a_notebook(execute):
    pieces = [f"import time\ntime.sleep({seconds})" for seconds in (0, 60)]
    assert execute(*pieces, seconds=8)[0] == "stopped after 8 s, the limit for a notebook"
