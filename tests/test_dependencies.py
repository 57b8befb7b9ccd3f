"""What the course imports is what its list of dependencies names."""

import ast
import sys
import tomllib
from importlib.metadata import packages_distributions
from itertools import chain
from pathlib import Path

import nbformat
import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
EXTRA = PROJECT["optional-dependencies"]
AT_HAND = {"ipython", "course-utils"}  # IPython comes with every Jupyter
OTHERWISE_NAMED = {"vl_convert": ["vl-convert-python"]}  # for where an extra is not installed


def names(requirements) -> set[str]:
    return {canonicalize_name(Requirement(line).name) for line in requirements}


def imported(source: str) -> set[str]:
    """The packages that are imported anywhere in it, standard library left out."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            found.add(node.module.split(".")[0])
    return found - sys.stdlib_module_names


SOURCES = {path.relative_to(ROOT).as_posix(): path for path in ROOT.glob("course_utils/**/*.py")}
SOURCES |= {path.relative_to(ROOT).as_posix(): path for path in ROOT.glob("notebooks/*.ipynb")}
TOOLS = {path.stem: path for path in ROOT.glob("tools/*.py")}


@pytest.fixture(scope="module")
def distributions() -> dict[str, list[str]]:
    return OTHERWISE_NAMED | dict(packages_distributions())


@pytest.mark.parametrize("name", SOURCES)
def test_what_is_imported_is_listed(name, distributions):
    text = SOURCES[name].read_text(encoding="utf-8")
    if name.endswith(".ipynb"):
        cells = nbformat.reads(text, as_version=4).cells
        text = "\n".join(cell.source for cell in cells if cell.cell_type == "code")
    listed = AT_HAND | names(PROJECT["dependencies"])
    for package in sorted(imported(text)):
        of = set(map(canonicalize_name, distributions.get(package, [package])))
        assert of & listed, f"{name} imports {package}, which pyproject.toml does not list: {', '.join(sorted(listed))}"


@pytest.mark.parametrize("name", TOOLS)
def test_tools_find_what_they_import(name, distributions):
    """They are started as scripts: modules of other folders, the tests' among them, are not found."""
    listed = names([*PROJECT["dependencies"], *chain(*EXTRA.values())]) | AT_HAND
    for package in sorted(imported(TOOLS[name].read_text(encoding="utf-8")) - TOOLS.keys()):
        of = set(map(canonicalize_name, distributions.get(package, [package])))
        assert of & listed, f"tools/{name}.py imports {package}, which is neither beside it nor in pyproject.toml"


def test_what_is_pinned_is_allowed():
    """Whatever CI installs fits the list of dependencies, and all of that is pinned."""
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pins = {
        canonicalize_name(name): version for name, _, version in (line.partition("==") for line in lines) if version
    }
    for requirement in map(Requirement, [*PROJECT["dependencies"], *EXTRA["notebooks"], *EXTRA["dev"]]):
        if requirement.name != PROJECT["name"]:
            assert requirement.specifier.contains(pins[canonicalize_name(requirement.name)]), requirement
