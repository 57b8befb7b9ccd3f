"""What `python tools/run.py --accept` keeps, and what it does not, on a small repository."""

import subprocess
import sys

import nbformat
import proof
import pytest
import run
from nbformat.v4 import new_code_cell, new_output

from course_utils.runs.lesson import MIME


@pytest.fixture
def accept(repository, monkeypatch, capsys):
    """Run the command; returns its exit status and what it printed."""
    for name, value in (("ROOT", repository.root), ("BUILD", repository.root / "build")):
        monkeypatch.setattr(run, name, value)
    monkeypatch.setattr(run, "NOTEBOOKS", repository.root / "notebooks")
    monkeypatch.delenv("COURSE_TEST_IMAGES", raising=False)  # they double the executions; one test wants them

    def of(*arguments):
        monkeypatch.setattr(sys, "argv", ["run.py", "--accept", *arguments])
        status = run.main()
        return status, capsys.readouterr().out

    return of


def test_a_refactoring_keeps_its_outputs(repository, accept):
    """Seconds are no difference, though every run has others."""
    before, outputs = repository.notebook.read_text(), repository.outputs()
    repository.change("2 * x", "x + x")
    repository.change_cell("seconds", repository.book().cells[8].source.replace("start", "begin"))
    assert repository.stale() == ["twice", "seconds"]
    status, said = accept()
    assert status == 0 and "S0_small: 2 of 2 stale cells show the same as before" in said
    assert repository.stale() == [] and repository.outputs() == outputs
    changed = set(repository.notebook.read_text().splitlines()) - set(before.splitlines())
    assert len(changed) == 4 and sum("made_from" in line for line in changed) == 2  # and two lines of the source
    trees = subprocess.run(["git", "-C", repository.root, "worktree", "list"], capture_output=True, text=True).stdout
    assert len(trees.splitlines()) == 1
    assert accept()[1].startswith("S0_small: no output is stale")


def test_what_shows_something_else_or_is_new_stays_stale(repository, accept):
    repository.change("2 * x", "x + x + 1")
    repository.change('f"a table', '"a" f" table')
    book = repository.book()
    book.cells.append(new_code_cell("twice(1)", id="new", outputs=[new_output("stream", text="2")]))
    nbformat.write(book, repository.notebook)
    status, said = accept()
    assert status == 1
    assert "FAILED  S0_small, cell 'twice' (print(twice(2), run)) (quick): before '4 train', now '5 train'" in said
    assert "cell 'new' (twice(1)) is new" in said
    assert repository.stale() == ["twice", "new"]


def test_a_difference_in_reference_mode_alone_is_found(repository, accept, monkeypatch, tmp_path):
    monkeypatch.setenv("COURSE_TEST_IMAGES", str(tmp_path))
    repository.change('return f"a table, {self.run}"', 'return "a table, " + self.run.replace("reference", "another")')
    status, said = accept()
    assert status == 1 and "(reference): before" in said and repository.stale() == ["table"]


def test_the_commit_to_compare_with_has_made_the_output(repository, accept):
    repository.change("2 * x", "x + x")
    repository.commit()
    book = repository.book()
    next(cell for cell in book.cells if cell.id == "twice").metadata["made_from"] = "0123"
    nbformat.write(book, repository.notebook)
    status, said = accept("--base", "HEAD~1")
    assert status == 1 and "was rendered after the commit with which it is compared" in said


def test_a_tree_that_does_not_run_is_said_to(repository, accept):
    repository.change("2 * x", "3 / 0 * x")
    status, said = accept()
    assert status == 1 and "now-quick: cell 'twice' (print(twice(2), run)): ZeroDivisionError" in said
    assert repository.stale() == ["twice"]


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        ([("stdout", "a\nb\n")], [("stdout", "a\nb\n")], None),
        ([("stdout", "a\nb\n")], [("stdout", "a\nc\n")], "before 'b', now 'c'"),
        ([("stdout", "a\n")], [("stdout", "a\n\n")], "before '2 letters', now '3 letters'"),
        (
            [("stdout", "-" * 90 + "a" * 90)],
            [("stdout", "-" * 90 + "b")],
            f"before '{'-' * 20 + 'a' * 40}', now '{'-' * 20}b'",
        ),
        ([("stdout", "a")], [], "before stdout, now nothing"),
        ([("text/html", "<b>")], [("text/plain", "b")], "before text/html, now text/plain"),
        ([("image/png", "iVBOR")], [("image/png", "iVBOS")], "another image/png"),
    ],
)
def test_the_first_difference(before, after, expected):
    assert proof.difference(before, after) == expected


def test_what_is_compared(tmp_path):
    """The record of a lesson is not: no committed output has it."""
    data = {"text/plain": f"a file in {tmp_path}/data", MIME: {"runs": {}}, "image/png": "iVBOR"}
    outputs = [new_output("stream", text="a\n"), new_output("stream", text="b\n")]
    cell = new_code_cell("x", outputs=[*outputs, new_output("execute_result", data=data)])
    expected = [("stdout", "a\nb\n"), ("image/png", "iVBOR"), ("text/plain", "a file in /data")]
    assert proof.shown(cell, tmp_path) == expected


def test_the_package_of_the_other_tree_is_refused():
    with pytest.raises(AssertionError, match="the package is imported from"):
        exec(proof.CLOCK.format(package="course_utils", tree="/elsewhere"), {})
