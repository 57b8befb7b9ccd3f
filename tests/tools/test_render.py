"""Which outputs `make render` renews, and by which kind of execution, on a small notebook."""

import json

import nbformat
import pytest
import render
from nbformat.v4 import new_code_cell

from course_utils.runs.run import read_record


def fail(*arguments, **options):
    pytest.fail("executed")


def changed_lines(before: str, after: str) -> list[str]:
    return [line for line in after.splitlines() if line not in before.splitlines()]


def test_a_full_run(repository):
    assert repository.stale() == []
    counts = [cell.execution_count for cell in repository.book().cells if cell.cell_type == "code"]
    assert counts == list(range(1, len(counts) + 1))
    assert repository.outputs()["table"].data == {"text/plain": "'a table, train'"}
    assert repository.outputs()["record"].data == {"text/plain": "a record"}
    assert read_record(repository.session)["runs"] == {}


def test_nothing_is_executed_for_a_message_and_for_a_text(repository, monkeypatch, capsys):
    before = repository.notebook.read_bytes()
    repository.change("nothing to double", "expected a number")
    monkeypatch.setattr(render, "execute", fail)
    assert render.render(repository.notebook) == [] and repository.notebook.read_bytes() == before
    repository.change_cell("title", "# Another title")
    assert render.render(repository.notebook) == []
    assert "S0_small: every output is of the code that stands there" in capsys.readouterr().out


def test_stale_cells_that_need_no_weights_are_renewed_alone(repository, capsys):
    before, session = repository.notebook.read_text(), repository.session
    kept = session.read_bytes()
    repository.change("2 * x", "x + x + 1")
    assert repository.stale() == ["twice"]
    assert render.render(repository.notebook) == [] and repository.stale() == []
    outputs = repository.outputs()
    assert outputs["twice"].text == "5 recorded\n" and outputs["table"].data == {"text/plain": "'a table, train'"}
    after = repository.notebook.read_text()
    added = changed_lines(before, after)
    assert len(added) == 2 and '"made_from"' in added[0] and '"5 recorded' in added[1]
    assert len(before.splitlines()) == len(after.splitlines()) and "injected-parameters" not in after
    assert session.read_bytes() == kept
    said = capsys.readouterr().out
    assert "S0_small, cell 'twice' is stale: twice\n" in said and "recorded trainings are enough" in said


def test_a_table_of_trainings_needs_no_weights(repository):
    repository.change("a table, {self.run}", "the table, {self.run}")
    assert repository.stale() == ["table"]
    assert render.render(repository.notebook) == []
    assert repository.outputs()["table"].data == {"text/plain": "'the table, recorded'"}
    assert repository.outputs()["table"].execution_count == 6


def test_a_stale_cell_that_needs_weights_calls_for_a_full_run(repository, capsys):
    repository.change_cell("model", "print(model, twice(1))")
    assert render.render(repository.notebook) == [] and repository.stale() == []
    assert repository.outputs()["model"].text == "weights, train 2\n"
    said = capsys.readouterr().out
    assert "cell 'model' is stale: its source, and it needs trained weights" in said and "a full run is needed" in said


def test_the_text_of_a_figure_stays_and_what_a_front_end_added_goes(repository):
    book = repository.book()
    next(cell for cell in book.cells if cell.id == "table").metadata.update(alt="A table.", scrolled=True)
    nbformat.write(book, repository.notebook)
    repository.change("2 * x", "3 * x")
    assert render.render(repository.notebook) == []
    (cell,) = (cell for cell in repository.book().cells if cell.id == "table")
    assert cell.metadata["alt"] == "A table." and "scrolled" not in cell.metadata


def test_a_new_cell_is_counted(repository):
    book = repository.book()
    book.cells.insert(3, new_code_cell("twice(4)", id="new"))
    nbformat.write(book, repository.notebook)
    assert repository.stale() == [] and render.render(repository.notebook) == []
    counts = [cell.execution_count for cell in repository.book().cells if cell.cell_type == "code"]
    assert counts == list(range(1, len(counts) + 1)) and repository.outputs()["new"].data == {"text/plain": "8"}


def test_a_change_before_the_last_commit_of_the_notebook_is_said_to_be_one(repository, capsys):
    repository.change("2 * x", "3 * x")
    repository.change_cell("title", "# Another title")
    repository.commit()
    assert render.render(repository.notebook) == []
    assert "cell 'twice' is stale: a change before " in capsys.readouterr().out


def test_nothing_is_replaced_if_something_goes_wrong(repository, monkeypatch):
    monkeypatch.setattr(render, "execute", lambda *arguments, **options: "it went wrong")
    repository.change("2 * x", "3 * x")
    before = repository.notebook.read_bytes()
    assert render.render(repository.notebook) == ["it went wrong"]
    assert render.render(repository.notebook, again=True) == ["it went wrong"]
    assert repository.notebook.read_bytes() == before
    assert json.loads(before)["cells"][1]["id"] == "imports"
