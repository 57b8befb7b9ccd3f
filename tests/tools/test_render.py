"""Which outputs `make render` renews, and by which kind of execution, on a small notebook."""

import json
import shutil
import subprocess

import nbformat
import pytest
import render
import sources
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook
from stamps import stale

from course_utils.runs.run import read_record

# A lesson that trains nothing, and says how it was run. The package has a helper beside it.
HELPER = """
class Lesson:
    def __init__(self, run):
        self.run, self.runs = run, {}

    def train(self, name):
        self.runs[name] = 0.8
        return f"weights, {self.run}"

    def table(self):
        return f"a table, {self.run}"


def twice(x):
    if x is None:
        raise ValueError("nothing to double")
    return 2 * x
"""
CELLS = {
    "imports": "from course_utils.helper import Lesson, twice",
    "parameters": "run = 'train'",
    "lesson": "lesson = Lesson(run)",
    "train": "model = lesson.train('a')\nprint(model)",
    "model": "print(model)",
    "table": "lesson.table()",
    "twice": "print(twice(2), run)",
    "record": """
class Record:
    def _repr_mimebundle_(self, include=None, exclude=None):
        record = {"parameters": {"run": run}, "runs": {}, "studies": {}}
        return {"text/plain": "a record", "application/vnd.small-networks-course.record+json": record}


Record()""",
}


SESSION = "data/reference/sessions/S0_small.json"


class Repository:
    """A git repository with this package and notebook, committed."""

    def __init__(self, root):
        self.root, self.notebook = root, root / "notebooks" / "S0_small.ipynb"
        self.helper = root / "course_utils" / "helper.py"
        if not self.helper.exists():
            self.make()

    def make(self):
        for folder in ("notebooks", "course_utils", "tools", "build"):
            (self.root / folder).mkdir()
        (self.root / "course_utils" / "__init__.py").touch()
        (self.root / "tools" / "quick.yaml").write_text("{}")
        self.helper.write_text(HELPER)
        cells = [new_code_cell(source, id=name) for name, source in CELLS.items()]
        cells[1].metadata["tags"] = ["parameters"]
        nbformat.write(new_notebook(cells=[new_markdown_cell("# A session", id="title"), *cells]), self.notebook)
        self.git("init", "--quiet")
        self.commit()

    def git(self, *arguments):
        identity = ["-c", "user.name=a", "-c", "user.email=a@b.example"]
        subprocess.run(["git", "-C", self.root, *identity, *arguments], check=True, capture_output=True)

    def commit(self):
        self.git("add", "notebooks", "course_utils", "tools")
        self.git("commit", "--quiet", "-m", "as it is")

    def change(self, old, new):
        """Change the helper."""
        text = self.helper.read_text()
        assert old in text
        self.helper.write_text(text.replace(old, new))
        sources.package.cache_clear()

    def change_cell(self, name, source):
        book = self.book()
        next(cell for cell in book.cells if cell.id == name).source = source
        nbformat.write(book, self.notebook)

    def book(self):
        return nbformat.read(self.notebook, as_version=4)

    def outputs(self):
        return {cell.id: cell.outputs[0] for cell in self.book().cells if cell.get("outputs")}

    def stale(self):
        return stale(self.book(), "S0_small", self.root)


@pytest.fixture(scope="module")
def rendered(tmp_path_factory):
    """Rendered in full, and committed."""
    made = Repository(tmp_path_factory.mktemp("repository"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(made.root))
        assert render.render(made.notebook) == []
    made.commit()
    return made.root


@pytest.fixture
def repository(rendered, tmp_path, monkeypatch):
    """A copy of it to work on."""
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    shutil.copytree(rendered, tmp_path, dirs_exist_ok=True)
    return Repository(tmp_path)


def fail(*arguments, **options):
    pytest.fail("executed")


def changed_lines(before: str, after: str) -> list[str]:
    return [line for line in after.splitlines() if line not in before.splitlines()]


def test_a_full_run(repository):
    assert repository.stale() == []
    counts = [cell.execution_count for cell in repository.book().cells if cell.cell_type == "code"]
    assert counts == list(range(1, len(CELLS) + 1))
    assert repository.outputs()["table"].data == {"text/plain": "'a table, train'"}
    assert repository.outputs()["record"].data == {"text/plain": "a record"}
    assert read_record(repository.root / SESSION)["runs"] == {}


def test_nothing_is_executed_for_a_message_and_for_a_text(repository, monkeypatch, capsys):
    before = repository.notebook.read_bytes()
    repository.change("nothing to double", "expected a number")
    monkeypatch.setattr(render, "execute", fail)
    assert render.render(repository.notebook) == [] and repository.notebook.read_bytes() == before
    repository.change_cell("title", "# Another title")
    assert render.render(repository.notebook) == []
    assert "S0_small: every output is of the code that stands there" in capsys.readouterr().out


def test_stale_cells_that_need_no_weights_are_renewed_alone(repository, capsys):
    before, session = repository.notebook.read_text(), repository.root / SESSION
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
    assert repository.outputs()["table"].execution_count == list(CELLS).index("table") + 1


def test_a_stale_cell_that_needs_weights_calls_for_a_full_run(repository, capsys):
    repository.change_cell("model", "print(model, twice(1))")
    assert render.render(repository.notebook) == [] and repository.stale() == []
    assert repository.outputs()["model"].text == "weights, train 2\n"
    said = capsys.readouterr().out
    assert "cell 'model' is stale: its source, and it needs trained weights" in said and "a full run is needed" in said


def test_a_new_cell_is_counted(repository):
    book = repository.book()
    book.cells.insert(3, new_code_cell("twice(4)", id="new"))
    nbformat.write(book, repository.notebook)
    assert repository.stale() == [] and render.render(repository.notebook) == []
    counts = [cell.execution_count for cell in repository.book().cells if cell.cell_type == "code"]
    assert counts == list(range(1, len(CELLS) + 2)) and repository.outputs()["new"].data == {"text/plain": "8"}


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
