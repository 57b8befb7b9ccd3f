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
STUDENT = sorted(setup_cell.NOTEBOOKS.glob("student/*.ipynb"))
ROOT = setup_cell.ROOT


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_cell_is_up_to_date(path):
    book = nbformat.read(path, as_version=4)
    first = next(cell for cell in book.cells if cell.cell_type == "code")
    assert setup_cell.SETUP in first.metadata["tags"] and first.outputs == []
    assert first.source == setup_cell.SOURCE, f"{path.name}: made from another address or version, make address"


def badges(text: str) -> list[str]:
    return [found[0] for found in setup_cell.BADGE.finditer(text)]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_badges_are_those_of_the_address_or_none(path):
    title = nbformat.read(path, as_version=4).cells[0].source
    readme = [line for line in (ROOT / "README.md").read_text(encoding="utf-8").splitlines() if path.name in line]
    shown, revisions = [*badges(title), *badges("\n".join(readme))], {setup_cell.VERSION, setup_cell.revision()}
    if setup_cell.is_known(setup_cell.ADDRESS):
        allowed = [setup_cell.badge(path.stem, setup_cell.ADDRESS, revision) for revision in revisions]
        assert len(shown) == 2 and set(shown) <= set(allowed), f"{path.name}: a stale badge, make address"
    else:
        assert shown == [], f"{path.name}: a badge that leads nowhere, make address"


def test_address_stands_in_one_place():
    assert setup_cell.normalized(setup_cell.ADDRESS) == setup_cell.ADDRESS
    assert setup_cell.ADDRESS in setup_cell.SOURCE and setup_cell.VERSION in setup_cell.SOURCE
    assert len(setup_cell.SOURCE.splitlines()) <= 20


@pytest.mark.parametrize(
    "address",
    [
        "https://github.com/some-one/course.one",
        "https://github.com/some-one/course.one.git",
        "https://token@github.com/some-one/course.one/",
        "git@github.com:some-one/course.one.git",
        "ssh://git@github.com/some-one/course.one.git",
    ],
)
def test_addresses_that_are_understood(address):
    assert setup_cell.normalized(address) == "https://github.com/some-one/course.one"


@pytest.mark.parametrize("address", ["", "some-one/course", "https://gitlab.com/a/b", "https://github.com/a", "../b"])
def test_addresses_that_are_not(address):
    with pytest.raises(ValueError, match=r"expected https://github\.com/OWNER/NAME or git@"):
        setup_cell.normalized(address)


def git(folder: Path, *arguments: str) -> None:
    subprocess.run(["git", "-C", folder, "-c", "user.name=a", "-c", "user.email=a@b", *arguments], check=True)


@pytest.fixture
def copy(tmp_path) -> Path:
    """The files that have the address, in a repository of their own."""
    root = tmp_path / "copy"
    (root / "notebooks" / "student").mkdir(parents=True)
    for name in ("pyproject.toml", "CITATION.cff", "README.md", "CHANGELOG.md"):
        shutil.copy(ROOT / name, root)
    for path in [*NOTEBOOKS, *STUDENT]:
        shutil.copy(path, root / path.relative_to(ROOT))
    git(root, "init", "-q")
    return root


def test_address_of_origin(copy):
    assert setup_cell.address_of_origin(copy) is None
    git(copy, "remote", "add", "origin", "git@github.com:a/b.git")
    assert setup_cell.address_of_origin(copy) == "https://github.com/a/b"
    git(copy, "remote", "set-url", "origin", "/somewhere/else")
    assert setup_cell.address_of_origin(copy) is None


def test_address_goes_into_all_files_and_out_again(copy):
    def texts() -> dict[str, str]:
        paths = [path for path in copy.rglob("*.*") if ".git" not in path.parts]
        return {path.relative_to(copy).as_posix(): path.read_text(encoding="utf-8") for path in paths}

    setup_cell.write("https://github.com/OWNER/course", copy)
    unknown = texts()
    assert not any(badges(text) for text in unknown.values()) and "repository-code" not in unknown["CITATION.cff"]
    setup_cell.write("https://github.com/a/b", copy)
    known = texts()
    assert 'Repository = "https://github.com/a/b"\n' in known["pyproject.toml"]
    assert "repository-code: https://github.com/a/b\n" in known["CITATION.cff"]
    assert badges(known["README.md"]) == [
        setup_cell.badge(path.stem, "https://github.com/a/b", "main") for path in NOTEBOOKS
    ]
    for path in [*NOTEBOOKS, *STUDENT]:
        book, before = (nbformat.read(each / path.relative_to(ROOT), as_version=4) for each in (copy, ROOT))
        assert badges(book.cells[0].source) == [setup_cell.badge(path.stem, "https://github.com/a/b", "main")]
        changed = [a.id for a, b in zip(book.cells, before.cells, strict=True) if a != b]
        setup = next(cell.id for cell in book.cells if setup_cell.SETUP in cell.metadata.get("tags", []))
        assert set(changed) <= {book.cells[0].id, setup}
    setup_cell.write("https://github.com/a/b", copy)
    assert texts() == known
    setup_cell.write("https://github.com/OWNER/course", copy)
    assert texts() == unknown


def test_badges_open_the_version_where_it_has_a_tag(copy):
    assert setup_cell.revision(copy) == "main"
    git(copy, "add", ".")
    git(copy, "commit", "-qm", "course")
    git(copy, "tag", setup_cell.VERSION)
    assert setup_cell.revision(copy) == setup_cell.VERSION
    badge = setup_cell.badge("S8", "https://github.com/a/b", setup_cell.VERSION)
    assert f"/github/a/b/blob/{setup_cell.VERSION}/notebooks/student/S8.ipynb)" in badge


def test_a_badge_of_another_folder_is_replaced(copy):
    new = setup_cell.badge(NOTEBOOKS[0].stem, "https://github.com/a/b", "main")
    old = new.replace("/notebooks/student/", "/notebooks/")
    path = copy / "notebooks" / NOTEBOOKS[0].name
    setup_cell.write("https://github.com/a/b", copy)
    path.write_text(path.read_text(encoding="utf-8").replace(new, old), encoding="utf-8")
    assert badges(path.read_text(encoding="utf-8")) == [old]
    setup_cell.write("https://github.com/a/b", copy)
    assert badges(path.read_text(encoding="utf-8")) == [new]


def test_release_needs_address_tag_and_changelog(copy):
    git(copy, "add", ".")
    git(copy, "commit", "-qm", "course")
    address, tag, changes = setup_cell.missing_for_release(copy, "https://github.com/OWNER/course", "v99")
    assert "OWNER" in address and "git tag v99" in tag and "## [99]" in changes
    git(copy, "tag", "v99")
    (copy / "CHANGELOG.md").write_text("## [99] - 2099-01-01\n")
    assert setup_cell.missing_for_release(copy, "https://github.com/a/b", "v99") == []


def test_citation_is_of_this_version():
    text = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    assert f"version: {setup_cell.VERSION.removeprefix('v')}\n" in text


@pytest.fixture
def run_cell(tmp_path):
    """Run the cell twice in a folder, in a Python without the course; returns where the course then comes from.

    `git` is told to find a small repository at the course's address.
    """
    repository = tmp_path / "repository"
    package = repository / "course_utils"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("")
    for command in (["init", "-q"], ["add", "."], ["commit", "-qm", "course"], ["tag", setup_cell.VERSION]):
        git(repository, *command)
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"} | {
        "GIT_CONFIG_COUNT": "1",
        "GIT_CONFIG_KEY_0": f"url.{repository.as_uri()}.insteadOf",
        "GIT_CONFIG_VALUE_0": setup_cell.ADDRESS,
    }

    def run(folder: Path, expected_error: str = "", said: str = "", path: str | None = None) -> str | None:
        code = f"for _ in range(2):\n    exec({setup_cell.SOURCE!r})\nimport course_utils, json\n"
        code += "print(json.dumps(course_utils.__file__))"
        # -I -S: without what is installed, this course among it
        command = [sys.executable, "-I", "-S", "-c", code]
        variables = environment if path is None else environment | {"PATH": path}
        done = subprocess.run(command, cwd=folder, env=variables, capture_output=True, text=True)
        if expected_error:
            assert done.returncode and done.stdout == ""
            assert done.stderr.startswith(expected_error) and done.stderr.count("\n") == 1, done.stderr
            return None
        assert done.returncode == 0, done.stderr
        *printed, place = done.stdout.splitlines()
        assert said in "\n".join(printed) and bool(said) == bool(printed)
        return json.loads(place)

    return run


def test_in_an_empty_folder_it_fetches_the_course_once(run_cell, tmp_path):
    content = tmp_path / "content"
    content.mkdir()
    expected = str(content / "course" / "course_utils" / "__init__.py")
    assert run_cell(content) == expected
    assert run_cell(content) == expected  # found there by another kernel


@pytest.mark.parametrize("place", [".", "notebooks", "notebooks/student"])
def test_in_a_checkout_it_takes_that(place, run_cell, tmp_path):
    package = tmp_path / "checkout" / "course_utils"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("")
    folder = tmp_path / "checkout" / place
    folder.mkdir(parents=True, exist_ok=True)
    assert run_cell(folder) == str(package / "__init__.py")
    assert not (folder / "course").exists()


def test_without_the_tag_it_takes_the_newest_state_and_says_so(run_cell, tmp_path):
    git(tmp_path / "repository", "tag", "--delete", setup_cell.VERSION)
    content = tmp_path / "content"
    content.mkdir()
    expected = str(content / "course" / "course_utils" / "__init__.py")
    assert run_cell(content, said=f"{setup_cell.VERSION} could not be fetched") == expected


def test_address_that_does_not_answer(run_cell, tmp_path):
    shutil.rmtree(tmp_path / "repository")
    content = tmp_path / "content"
    content.mkdir()
    run_cell(content, expected_error="The course could not be fetched: install git and go online, or put ")
    assert not any(content.iterdir())  # nothing half done is left behind


def test_without_git_one_sentence_says_so(run_cell, tmp_path):
    content = tmp_path / "content"
    content.mkdir()
    run_cell(
        content, expected_error="The course could not be fetched: install git and go online, or put ", path=str(content)
    )
    assert not any(content.iterdir())


@pytest.mark.parametrize("other", ["course", "course_utils"])
def test_beside_another_folder_of_its_name_it_fetches_the_course(other, run_cell, tmp_path):
    content = tmp_path / "content"
    (content / other).mkdir(parents=True)
    (content / other / "S8.checkpoint").touch()
    name = setup_cell.ADDRESS.rpartition("/")[2] if other == "course" else "course"
    expected = str(content / name / "course_utils" / "__init__.py")
    assert run_cell(content) == expected
    assert run_cell(content) == expected  # found there by another kernel


def test_where_the_course_is_installed_it_does_nothing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = list(sys.path)
    exec(setup_cell.SOURCE, {})
    assert sys.path == path and not any(tmp_path.iterdir())
