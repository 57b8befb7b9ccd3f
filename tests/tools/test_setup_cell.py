"""The notebooks' first cell: what is made from the address is up to date, and the cell finds or fetches the course."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
import setup_cell

NOTEBOOKS = sorted(setup_cell.NOTEBOOKS.glob("*.ipynb"))
ROOT = setup_cell.ROOT


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_cell_and_badge_are_up_to_date(path):
    book = nbformat.read(path, as_version=4)
    first = next(cell for cell in book.cells if cell.cell_type == "code")
    assert setup_cell.SETUP in first.metadata["tags"] and first.outputs == []
    assert first.source == setup_cell.SOURCE, f"{path.name}: made from another address or version, make address"
    assert setup_cell.badge(path.stem) in book.cells[0].source, f"{path.name}: a stale badge, make address"


def test_badges_of_the_readme():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    for path in NOTEBOOKS:
        assert setup_cell.badge(path.stem) in text, f"README.md: a stale badge, expected {setup_cell.badge(path.stem)}"


def test_address_stands_in_one_place():
    assert setup_cell.ADDRESS.startswith("https://github.com/") and setup_cell.ADDRESS.count("/") == 4
    assert setup_cell.ADDRESS in setup_cell.SOURCE and setup_cell.VERSION in setup_cell.SOURCE


@pytest.fixture
def run_cell(tmp_path):
    """Run the cell twice in a folder, in a Python without the course; returns where the course then comes from.

    `git` is told to find a small repository at the course's address.
    """
    repository = tmp_path / "repository"
    package = repository / "course_utils"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("")
    git = ["git", "-C", repository, "-c", "user.name=a", "-c", "user.email=a@b"]
    for command in (["init", "-q"], ["add", "."], ["commit", "-qm", "course"], ["tag", setup_cell.VERSION]):
        subprocess.run([*git, *command], check=True)
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"} | {
        "GIT_CONFIG_COUNT": "1",
        "GIT_CONFIG_KEY_0": f"url.{repository.as_uri()}.insteadOf",
        "GIT_CONFIG_VALUE_0": setup_cell.ADDRESS,
    }

    def run(folder: Path, expected_error: str = "") -> str | None:
        code = f"for _ in range(2):\n    exec({setup_cell.SOURCE!r})\nimport course_utils, json\n"
        code += "print(json.dumps(course_utils.__file__))"
        # -I -S: without what is installed, this course among it
        command = [sys.executable, "-I", "-S", "-c", code]
        done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
        if expected_error:
            assert done.returncode and expected_error in done.stderr
            return None
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    return run


def test_in_an_empty_folder_it_fetches_the_course_once(run_cell, tmp_path):
    content = tmp_path / "content"
    content.mkdir()
    expected = str(content / "course" / "course_utils" / "__init__.py")
    assert run_cell(content) == expected
    assert run_cell(content) == expected  # found there by another kernel


@pytest.mark.parametrize("place", [".", "notebooks", "build/student"])
def test_in_a_checkout_it_takes_that(place, run_cell, tmp_path):
    package = tmp_path / "checkout" / "course_utils"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("")
    folder = tmp_path / "checkout" / place
    folder.mkdir(parents=True, exist_ok=True)
    assert run_cell(folder) == str(package / "__init__.py")
    assert not (folder / "course").exists()


def test_address_that_does_not_answer(run_cell, tmp_path):
    shutil.rmtree(tmp_path / "repository")
    content = tmp_path / "content"
    content.mkdir()
    run_cell(content, expected_error="CalledProcessError")
    assert not (content / "course").exists()  # nothing half done is left behind


def test_where_the_course_is_installed_it_does_nothing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = list(sys.path)
    exec(setup_cell.SOURCE, {})
    assert sys.path == path and not any(tmp_path.iterdir())
