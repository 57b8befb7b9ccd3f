"""What executing a notebook says when something is wrong with it, on small notebooks that are."""

import time

import nbformat
import pytest
import run
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output


def book_of(*sources: str) -> nbformat.NotebookNode:
    cells = [new_code_cell(source, id=f"cell-{number}") for number, source in enumerate(sources)]
    return new_notebook(cells=[new_markdown_cell("# A session", id="title"), *cells])


@pytest.fixture
def execute(tmp_path):
    """Execute cells with these sources; returns what went wrong, and the notebook as far as it came."""

    def of(*sources: str, cell_seconds: int = 60, seconds: int = 90):
        notebook, output = tmp_path / "book.ipynb", tmp_path / "executed.ipynb"
        nbformat.write(book_of(*sources), notebook)
        problem = run.execute(notebook, output, {}, cell_seconds, seconds)
        return problem, nbformat.read(output, as_version=4)

    return of


def test_whole(execute, tmp_path):
    problem, book = execute("x = 6", "print(7 * x)")
    assert problem is None
    assert book.cells[-1].outputs[0].text == "42\n"
    assert "42" in (tmp_path / "executed.html").read_text(encoding="utf-8")


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
    problem = run.execute(notebook, output, {}, 60, 90)
    assert "FileNotFoundError" in problem and "book.ipynb" in problem and "\n" not in problem


def test_limit_for_a_cell(execute):
    problem, _ = execute("print('before')", "while True:\n    pass", cell_seconds=3)
    assert problem.startswith("cell 'cell-1' (while True:): ") and "after 3 seconds" in problem


def test_limit_for_a_notebook(execute):
    pieces = [f"import time\ntime.sleep({seconds})" for seconds in (0, 60)]
    assert execute(*pieces, seconds=12)[0] == "stopped after 12 s, the limit for a notebook"


def with_output(text: str, tags=(run.CHECKED,)) -> nbformat.NotebookNode:
    book = book_of("print(mean)")
    book.cells[1].metadata["tags"] = list(tags)
    book.cells[1].outputs = [new_output("stream", text=line) for line in text.splitlines(keepends=True)]
    return book


def test_checked_cells_are_compared(tmp_path):
    difference = tmp_path / "S0.diff"
    before, after = with_output("n 8\nmean 0.25\n"), with_output("n 8\nmean 0.52\nand more\n")
    (problem,) = run.compare(before, after, difference)
    assert problem == "cell 'cell-0' (print(mean)): expected 'mean 0.25', found 'mean 0.52'"
    assert {"-mean 0.25", "+mean 0.52", "+and more"} <= set(difference.read_text(encoding="utf-8").splitlines())
    # The same text in other pieces is the same; so the file of an earlier run goes.
    assert run.compare(before, with_output("n 8\nmean 0.25\n"), difference) == [] and not difference.exists()
    assert run.compare(before, with_output("n 8\n"), difference)[0].endswith(
        "expected 'mean 0.25', found 'nothing more'"
    )


def test_other_cells_are_not_compared(tmp_path):
    assert run.compare(with_output("3 s\n", tags=()), with_output("4 s\n", tags=()), tmp_path / "S0.diff") == []


@pytest.mark.parametrize(
    ("data", "text"),
    [
        ({"text/plain": "0.5"}, "0.5"),
        ({"text/plain": "a  1", "text/html": "<table>"}, "a  1"),
        ({"text/plain": "<Figure>", "image/png": "iVBORw0"}, "<Figure>"),
    ],
)
def test_what_is_compared(data, text):
    cell = new_code_cell("x", outputs=[new_output("execute_result", data=data)])
    assert run.shown(cell) == text
