"""What executing a notebook says when something is wrong with it, on small notebooks that are; and when not to."""

import time

import nbformat
import pytest
import run
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook
from stamps import stale

from course_utils.runs.records import read_record


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
    assert execute(*pieces, seconds=5)[0] == "stopped after 5 s, the limit for a notebook"


def test_render_renews_what_is_stale_and_nothing_else(tmp_path, monkeypatch, capsys):
    for name in ("BUILD", "SESSIONS"):
        (tmp_path / name).mkdir()
        monkeypatch.setattr(run, name, tmp_path / name)
    notebook, record = tmp_path / "S0.ipynb", tmp_path / "SESSIONS" / "S0.json"
    sources = ["print('rendered')", "from course_utils.sessions import SessionRecord\nSessionRecord({}, {}, {})"]
    nbformat.write(book_of(*sources), notebook)
    assert run.render(notebook) == []
    first = notebook.read_bytes(), record.read_bytes()
    book = nbformat.read(notebook, as_version=4)
    assert [cell.execution_count for cell in book.cells[1:]] == [1, 2] and stale(book) == []
    assert book.cells[1].outputs[0].text == "rendered\n"
    assert set(book.cells[2].outputs[0].data) == {"text/plain"} and read_record(record)["runs"] == {}
    monkeypatch.setattr(run, "execute", lambda *arguments: pytest.fail("executed though nothing is stale"))
    assert run.render(notebook) == [] and "S0: every output is of the code" in capsys.readouterr().out
    book.cells[0].source = "# Another title"
    nbformat.write(book, notebook)
    assert run.render(notebook) == [] and record.read_bytes() == first[1]
    book.cells[1].source = "print('otherwise')"
    nbformat.write(book, notebook)
    monkeypatch.setattr(run, "execute", lambda *arguments: "it went wrong")
    changed = notebook.read_bytes()
    assert run.render(notebook) == ["it went wrong"]
    assert (notebook.read_bytes(), record.read_bytes()) == (changed, first[1])
    nbformat.write(nbformat.reads(first[0].decode(), as_version=4), notebook)
    assert run.render(notebook, again=True) == ["it went wrong"]
