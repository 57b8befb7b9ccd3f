"""The notebooks as Colab runs them: `make slow-colab`. Not part of `make test`.

Colab's versions on its Python (`COLAB_PYTHON`, or the python3.13 that is found), the course not installed, an empty
folder named content, a stand-in for google.colab. The notebooks fetch the course from the address in pyproject.toml;
here git is told to find a copy of this repository there, as it is committed. The standalone versions get nothing but
their own file. Everything twice in the same folder.
"""

import os
import shutil
import subprocess
from pathlib import Path

import nbformat
import pytest
import results
import setup_cell
import standalone
import yaml

ROOT = Path(__file__).resolve().parents[2]
BUILD = ROOT / "build" / "colab"
PYENV = sorted(Path.home().glob(".pyenv/versions/3.13.*/bin/python"))
PYTHONS = [os.environ.get("COLAB_PYTHON"), shutil.which("python3.13"), *reversed(PYENV)]


def starts(python: str | Path) -> bool:
    """A version manager may put a python3.13 into the path that it has not installed."""
    return subprocess.run([python, "-c", ""], capture_output=True).returncode == 0


PYTHON = next((python for python in PYTHONS if python and starts(python)), "python3.13")
# What Colab has and the course or papermill needs; the versions that are known stand in the file.
PACKAGES = ["torch", "torchvision", "torchsummary", "numpy", "pandas", "matplotlib", "seaborn", "pillow", "tqdm"]
PACKAGES += ["ipython", "ipykernel", "ipywidgets", "jupyter_client", "nbformat", "nbclient"]
PACKAGES += ["filelock", "packaging", "pyyaml", "requests", "safetensors", "papermill"]
CONSTRAINTS = ROOT / "tests" / "slow" / "colab-constraints.txt"
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
QUICK = yaml.safe_load((ROOT / "tools" / "quick.yaml").read_text(encoding="utf-8"))
STAND_IN = {"google/colab/__init__.py": "", "sitecustomize.py": "import google.colab\n"}


def call(*command, **options) -> str:
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, **options)
    assert done.returncode == 0, f"{' '.join(map(str, command))}:\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}"
    return done.stdout


@pytest.fixture(scope="module")
def colab() -> tuple[Path, dict]:
    """The interpreter, and the environment that it runs in."""
    bin_folder = BUILD / "venv" / ("Scripts" if os.name == "nt" else "bin")
    stamp = BUILD / "venv" / ".complete"
    if not stamp.exists() or stamp.stat().st_mtime < CONSTRAINTS.stat().st_mtime:
        call(PYTHON, "-m", "venv", "--clear", BUILD / "venv")
        call(bin_folder / "python", "-m", "pip", "install", "--quiet", "-c", CONSTRAINTS, *PACKAGES)
        stamp.touch()
    for name, source in STAND_IN.items():
        file = BUILD / "stand-in" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(source)
    # What is committed, under the tag that the notebooks ask for, where git then finds it in place of the address.
    repository = BUILD / "repository.git"
    shutil.rmtree(repository, ignore_errors=True)
    call("git", "clone", "--quiet", "--bare", ROOT, repository)
    call("git", "-C", repository, "tag", "--force", setup_cell.VERSION)
    kept = {
        name: value for name, value in os.environ.items() if name not in ("MPLBACKEND", "COURSE_DATA", "PYTHONPATH")
    }
    environment = kept | {
        "PYTHONPATH": str(BUILD / "stand-in"),
        "PYTHONNOUSERSITE": "1",
        "OMP_NUM_THREADS": "1",
        "GIT_CONFIG_COUNT": "1",
        "GIT_CONFIG_KEY_0": f"url.{repository.as_uri()}.insteadOf",
        "GIT_CONFIG_VALUE_0": setup_cell.ADDRESS,
    }
    search = "import importlib.util as i; print(i.find_spec('course_utils'))"
    assert call(bin_folder / "python", "-c", search, env=environment, cwd=BUILD) == "None\n", (
        "the course is installed where it must not be"
    )
    return bin_folder / "python", environment


@pytest.fixture
def content(tmp_path) -> Path:
    """An empty folder, not inside the checkout, which the notebooks would find and use."""
    (tmp_path / "content").mkdir()
    return tmp_path / "content"


def execute(colab, notebook: Path, folder: Path) -> nbformat.NotebookNode:
    python, environment = colab
    output = folder.parent / f"{notebook.stem}-executed.ipynb"
    command = [python, "-m", "papermill", notebook.name, output, "-k", "python3", "--no-progress-bar"]
    command += ["--execution-timeout", "300", "-y", yaml.safe_dump(QUICK)]
    call(*command, cwd=folder, env=environment, timeout=900)
    return nbformat.read(output, as_version=4)


def check(book: nbformat.NotebookNode, committed: nbformat.NotebookNode, difference: Path) -> None:
    code = [cell for cell in book.cells if cell.cell_type == "code"]
    assert [cell.source for cell in code if cell.execution_count is None] == []
    assert results.compare(committed, book, difference) == []
    text = "".join(output.get("text", "") for cell in code for output in cell.outputs)
    assert "Change runtime type, T4 GPU" in text


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_fetches_the_course(path, colab, content):
    shutil.copy(path, content)
    committed = nbformat.read(path, as_version=4)
    for _ in range(2):
        check(execute(colab, content / path.name, content), committed, content / "difference.txt")
        assert (content / "course" / "course_utils" / "__init__.py").is_file()


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_standalone_notebook_needs_its_file_alone(path, colab, content):
    committed = nbformat.read(path, as_version=4)
    nbformat.write(standalone.standalone(committed), content / path.name)
    for _ in range(2):
        check(execute(colab, content / path.name, content), committed, content / "difference.txt")
        assert not list(content.rglob("course_utils"))
