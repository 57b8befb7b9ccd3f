"""A small git repository with a package and a notebook, for the tests of tools that work on both."""

import shutil
import subprocess

import nbformat
import pytest
import render
import sources
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook
from stamps import stale

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
    "seconds": "from timeit import default_timer\nstart = default_timer()\nprint(f'{default_timer() - start} s')",
    "record": """
class Record:
    def _repr_mimebundle_(self, include=None, exclude=None):
        record = {"parameters": {"run": run}, "runs": {}, "studies": {}}
        return {"text/plain": "a record", "application/vnd.small-networks-course.record+json": record}


Record()""",
}


class Repository:
    """A git repository with this package and notebook, committed."""

    def __init__(self, root):
        self.root, self.notebook = root, root / "notebooks" / "S0_small.ipynb"
        self.helper = root / "course_utils" / "helper.py"
        self.session = root / "data" / "reference" / "sessions" / "S0_small.json"
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


@pytest.fixture(scope="session")
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
