"""The notebooks' first cell and the badges that open them in Colab: `make address`.

Both are made from the address and the version in pyproject.toml. A test finds those that were made from others.
"""

import re
import tomllib
from pathlib import Path

import nbformat

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOKS = ROOT / "notebooks"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
ADDRESS, VERSION = PROJECT["urls"]["Repository"], f"v{PROJECT['version']}"
SETUP = "setup"  # the cell's tag
BADGE = r"\[!\[Open in Colab\]\([^)]*\)\]\([^)]*/notebooks/(\w+)\.ipynb\)"

SOURCE = f'''\
# Where the course is not at hand (in Colab, say), this fetches it; elsewhere it does nothing.
import importlib.util
import subprocess
import sys
from pathlib import Path

if importlib.util.find_spec("course_utils") is None:
    here = Path.cwd()
    places = [here / "course", here, *here.parents]
    course = next((place for place in places if (place / "course_utils" / "__init__.py").is_file()), places[0])
    if not course.is_dir():
        version = ["--branch", "{VERSION}", "{ADDRESS}"]
        subprocess.run(["git", "clone", "--quiet", "--depth", "1", *version, str(course)], check=True)
    sys.path.insert(0, str(course))'''


def badge(name: str) -> str:
    """Markdown that opens the notebook `name` in Colab."""
    page = f"{ADDRESS.replace('https://github.com', 'https://colab.research.google.com/github')}/blob/{VERSION}"
    picture = "https://colab.research.google.com/assets/colab-badge.svg"
    return f"[![Open in Colab]({picture})]({page}/notebooks/{name}.ipynb)"


def main() -> None:
    """Put the cell and the badges into the notebooks, whose outputs stay, and the badges into the README."""
    readme = ROOT / "README.md"
    text = re.sub(BADGE, lambda found: badge(found[1]), readme.read_text(encoding="utf-8"))
    readme.write_text(text, encoding="utf-8")
    for path in sorted(NOTEBOOKS.glob("*.ipynb")):
        book = nbformat.read(path, as_version=4)
        title = book.cells[0]
        title.source = re.sub(BADGE, "", title.source).rstrip() + f"\n\n{badge(path.stem)}"
        for cell in book.cells:
            if SETUP in cell.metadata.get("tags", []):
                cell.source = SOURCE
        nbformat.write(book, path)


if __name__ == "__main__":
    main()
