"""What people copy runs without the package: every snippet, and every notebook as one file."""

import json
import os
import runpy
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
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
        "def choose(value: str, choices, what: str) -> str:",
        'def make_norm(channels: int, norm: str = "batch", num_groups: int = 4) -> nn.Module:',
    ]
    assert source.startswith("import torch\nfrom torch import nn\n\n\n")


def test_a_change_of_a_helper_changes_the_snippet(monkeypatch, tmp_path):
    folder = tmp_path / standalone.PACKAGE.name
    shutil.copytree(standalone.PACKAGE, folder)
    changed = (folder / "layers.py").read_text(encoding="utf-8")
    (folder / "layers.py").write_text(changed.replace("num_groups: int = 4", "num_groups: int = 8"), encoding="utf-8")
    monkeypatch.setattr(standalone, "PACKAGE", folder)
    monkeypatch.setattr(standalone, "package", standalone.package.__wrapped__)  # without what it remembers
    assert "num_groups: int = 8" in standalone.snippet(SNIPPETS["make_norm"])


def test_two_definitions_of_one_name_are_refused(monkeypatch):
    modules = {"a": standalone.read("def same():\n    pass"), "b": standalone.read("def same():\n    pass")}
    monkeypatch.setattr(standalone, "package", lambda: modules)
    inliner = standalone.Inliner()
    assert inliner.need("a", "same") == ["def same():\n    pass"] and inliner.need("a", "same") == []
    with pytest.raises(ValueError, match="same is defined in a and in b"):
        inliner.need("b", "same")


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_runs_alone(path, tmp_path):
    """Where importing the package raises and its records are not at hand; shortly, on photographs if there are any."""
    (tmp_path / "course_utils.py").write_text("raise ImportError('the package is not to be had here')")
    environment = {name: value for name, value in os.environ.items() if name != "MPLBACKEND"}
    environment |= {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(tmp_path)}
    environment.setdefault("COURSE_DATA", str(standalone.ROOT / "data"))
    book = standalone.standalone(nbformat.read(path, as_version=4))
    assert not any("import course_utils" in cell.source or "from course_utils" in cell.source for cell in book.cells)
    nbformat.write(book, tmp_path / path.name)
    images = os.environ.get("COURSE_TEST_IMAGES")
    dataset = str(Path(images).resolve()) if images else "shapes"
    short = {"dataset": dataset, "epochs": 1, "train_size": 600, "checkpoints": "checkpoints"}
    command = [sys.executable, "-m", "papermill", path.name, "out.ipynb", "-k", "python3", "--no-progress-bar"]
    options = dict(cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300)
    done = subprocess.run([*command, "-y", json.dumps({**QUICK, **short})], **options)
    assert done.returncode == 0, (done.stdout + done.stderr)[-3000:]
    executed = nbformat.read(tmp_path / "out.ipynb", as_version=4)
    assert all(cell.execution_count for cell in executed.cells if cell.cell_type == "code")
    trainings = {
        "S8_normalization": ["S8Net46k-batch", "S8Net46k-group", "S8Net46k-layer"],
        "S9_dilated_depthwise": ["S9Net180k", "S9Net85k"],
    }
    checkpoints = sorted(file.name for file in (tmp_path / "checkpoints").glob("*"))
    assert checkpoints == [f"{training}-1-32-0.checkpoint" for training in trainings[path.stem]]
