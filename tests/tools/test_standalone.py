"""What people copy runs without the package: every snippet, and every notebook as one file."""

import os
import runpy
import shutil
import sys
from pathlib import Path

import execution
import nbformat
import pytest
import sources
import standalone
import yaml

NOTEBOOKS = sorted(standalone.NOTEBOOKS.glob("*.ipynb"))
SNIPPETS = yaml.safe_load((standalone.HERE / "snippets.yaml").read_text(encoding="utf-8"))
QUICK = yaml.safe_load((standalone.HERE / "quick.yaml").read_text(encoding="utf-8"))


@pytest.fixture
def no_package(monkeypatch):
    """Importing the package raises."""
    for name in [name for name in sys.modules if name.split(".")[0] == "course_utils"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "course_utils", None)
    with pytest.raises(ImportError):
        import course_utils  # noqa: F401


@pytest.mark.parametrize("name", SNIPPETS)
def test_snippet(name, no_package, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("snippet.py").write_text(standalone.snippet(SNIPPETS[name]), encoding="utf-8")
    assert "course_utils" not in Path("snippet.py").read_text(encoding="utf-8").replace('"course_utils"', "")
    runpy.run_path("snippet.py", run_name="__main__")


def test_snippet_has_what_it_needs_and_nothing_else():
    source = standalone.snippet(SNIPPETS["make_norm"])
    assert [line for line in source.splitlines() if line.startswith(("def ", "class "))] == [
        "def one_of(value: str, what: str, choices: Collection[str]) -> str:",
        'def make_norm(channels: int, norm: str = "batch", num_groups: int = 4) -> nn.Module:',
    ]
    assert source.startswith("import torch\nfrom collections.abc import Collection\nfrom torch import nn\n\n\n")


def test_a_change_of_a_helper_changes_the_snippet(monkeypatch, tmp_path):
    shutil.copytree(sources.ROOT / sources.PACKAGE, tmp_path / sources.PACKAGE)
    layers = tmp_path / sources.PACKAGE / "networks" / "layers.py"
    changed = layers.read_text(encoding="utf-8").replace("num_groups: int = 4", "num_groups: int = 8")
    layers.write_text(changed, encoding="utf-8")
    modules = sources.package(tmp_path)
    monkeypatch.setattr(sources, "package", lambda: modules)
    assert "num_groups: int = 8" in standalone.snippet(SNIPPETS["make_norm"])


def inlined(monkeypatch, demo: str, **modules: str) -> list[str]:
    """The pieces of a snippet of a package with these modules; two underscores stand for a dot."""
    read = {name.replace("__", "."): sources.read(source) for name, source in modules.items()}
    monkeypatch.setattr(sources, "package", lambda: read)
    return standalone.snippet(demo).strip().split("\n\n\n")


def test_what_packages_import_again_is_followed(monkeypatch):
    parts = dict(room="from course_utils.room.loop import fit", room__loop="LR = 0.1\ndef fit():\n    return LR")
    expected = ["", "LR = 0.1", "def fit():\n    return LR", "fit()"]
    assert inlined(monkeypatch, "from course_utils.room import fit\nfit()", **parts)[-3:] == expected[1:]


def test_names_of_modules_fall_away(monkeypatch):
    parts = dict(room="", room__draw="def line():\n    return 'line'")
    parts |= dict(user="from course_utils.room import draw\n\ndef use():\n    return draw.line()")
    pieces = inlined(monkeypatch, "from course_utils.user import use\nuse()", **parts)
    assert pieces[-3:] == ["def line():\n    return 'line'", "def use():\n    return line()", "use()"]


def test_imports_of_the_package_in_functions_fall_away_and_others_stay(monkeypatch):
    parts = dict(low="def low():\n    return 1")
    body = "def use():\n    from course_utils.low import low\n    import json\n\n    return json.dumps(low())"
    pieces = inlined(monkeypatch, "from course_utils.user import use\nuse()", user=body, **parts)
    assert pieces[-2] == "def use():\n    import json\n\n    return json.dumps(low())"
    assert "import json" not in pieces[0] and pieces[-3] == "def low():\n    return 1"


def test_two_definitions_of_one_name_are_refused(monkeypatch):
    modules = {"a": sources.read("def same():\n    pass"), "b": sources.read("def same():\n    pass")}
    monkeypatch.setattr(sources, "package", lambda: modules)
    inliner = standalone.Inliner()
    assert inliner.need("a", "same") == ["def same():\n    pass"] and inliner.need("a", "same") == []
    with pytest.raises(ValueError, match="same is defined in a and in b"):
        inliner.need("b", "same")


def test_a_helper_whose_name_the_notebook_uses_otherwise_gets_another(monkeypatch):
    """In the package it is safe from the notebook's variables; beside them it would be overwritten."""
    source = "def low():\n    return 1\n\n\ndef use(x):\n    return x.low, low() + low(), dict(low=low), Has"
    source += "\n\n\nclass Has:\n    def low(self):\n        return '×', low()"
    modules = {"user": sources.read(source)}
    monkeypatch.setattr(sources, "package", lambda: modules)
    cells = ["from course_utils.user import use", "low, high = 1, 2", "print(use(high))"]
    book = standalone.standalone(nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells]))
    assert [cell.source for cell in book.cells] == [
        "",
        "low, high = 1, 2",
        "def _low():\n    return 1",
        "class Has:\n    def low(self):\n        return '×', _low()",
        "def use(x):\n    return x.low, _low() + _low(), dict(low=_low), Has",
        "print(use(high))",
    ]
    assert not any(cell.metadata for cell in book.cells)


def test_a_sentence_stands_where_the_records_would_be_shown(monkeypatch):
    """A notebook that stands alone has none, and a figure of nothing would fail."""
    parts = {"runs.reference": "def reference_table():\n    return [1]", "low": "def low():\n    return 1"}
    modules = {name: sources.read(source) for name, source in parts.items()}
    monkeypatch.setattr(sources, "package", lambda: modules)
    imports = "from course_utils.low import low\nfrom course_utils.runs.reference import reference_table"
    cells = [nbformat.v4.new_code_cell(cell) for cell in (imports, "max(reference_table())", "low()")]
    book = standalone.standalone(nbformat.v4.new_notebook(cells=cells))
    assert [cell.source for cell in book.cells] == ["", standalone.MISSING, "def low():\n    return 1", "low()"]
    assert [cell.cell_type for cell in book.cells] == ["code", "markdown", "code", "code"]


@pytest.fixture(scope="module")
def dataset(request) -> str:
    return str(request.getfixturevalue("few_photographs")) if "COURSE_TEST_IMAGES" in os.environ else "shapes"


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_runs_alone(path, dataset, tmp_path):
    """Where importing the package raises and its records are not at hand; shortly, on photographs if there are any."""
    (tmp_path / "course_utils.py").write_text("raise ImportError('the package is not to be had here')")
    book = standalone.standalone(nbformat.read(path, as_version=4))
    assert not any("import course_utils" in cell.source or "from course_utils" in cell.source for cell in book.cells)
    nbformat.write(book, tmp_path / path.name)
    short = {"dataset": dataset, "epochs": 1, "train_size": 200, "checkpoints": "checkpoints"}
    variables = {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(tmp_path), "COURSE_DATA": str(tmp_path)}
    options = dict(folder=tmp_path, variables=variables, save_each_cell=False)
    output, seconds = tmp_path / "out.ipynb", 300
    assert execution.execute(tmp_path / path.name, output, {**QUICK, **short}, seconds, seconds, **options) is None
    trainings = {"S8_normalization": ["batch", "group", "layer"], "S9_dilated_depthwise": ["S9Net180k", "S9Net85k"]}
    checkpoints = sorted(file.name.rpartition("-")[0] for file in (tmp_path / "checkpoints").glob("*.checkpoint"))
    assert checkpoints == [f"{path.stem}-{training}-1ep" for training in trainings[path.stem]]
