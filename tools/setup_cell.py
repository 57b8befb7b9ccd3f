"""The repository's address and what is made from it: the notebooks' first cell, and badges for Colab.

    python tools/setup_cell.py [ADDRESS]    write the address into all files that have it
    python tools/setup_cell.py --release    say what is missing for a release

ADDRESS is that of a repository on GitHub, for https or for ssh; by default it is that of the remote `origin`, and where
there is none, the one in pyproject.toml. The cell asks for the version in pyproject.toml. While the address is not
known (OWNER stands in pyproject.toml) there are no badges, which would lead nowhere.
"""

import argparse
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import nbformat

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOKS = ROOT / "notebooks"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
ADDRESS, VERSION = PROJECT["urls"]["Repository"], f"v{PROJECT['version']}"
SETUP = "setup"  # the cell's tag
GITHUB = re.compile(r"(?:https://(?:[^@/]+@)?|ssh://git@|git@)github\.com[/:]([\w.-]+)/([\w.-]+?)(?:\.git)?/?")
PICTURE = "https://colab.research.google.com/assets/colab-badge.svg"
BADGE = re.compile(r"\[!\[Open in Colab\]\([^)]*\)\]\([^)]*/notebooks/[\w/]+\.ipynb\)")


def setup_source(address: str, version: str = VERSION) -> str:
    """The code of the first cell: it fetches the course where that is not at hand."""
    return f'''\
# Where the course is not at hand (in Colab, say), this fetches it; elsewhere it does nothing.
import importlib.util
import shutil
import subprocess
import sys
from pathlib import Path

if getattr(importlib.util.find_spec("course_utils"), "origin", None) is None:
    address, here = "{address}", Path.cwd()
    new = [here / "course", here / address.rpartition("/")[2]]
    found = [place for place in [*new, here, *here.parents] if (place / "course_utils" / "__init__.py").is_file()]
    course = [*found, *(place for place in new if not place.exists()), new[1]][0]
    git = shutil.which("git") or sys.executable  # without git, Python fails in its place
    clone = [git, "clone", "--quiet", "--depth=1", address, str(course)]
    if not found and subprocess.run([*clone, "--branch={version}"], capture_output=True).returncode:
        if subprocess.run(clone, capture_output=True).returncode:
            sys.exit(f"The course could not be fetched: install git and go online, or put {{address}} beside this file")
        print("{version} could not be fetched, this is the newest state of the course")
    sys.path.insert(0, str(course))'''


SOURCE = setup_source(ADDRESS)


def is_known(address: str) -> bool:
    """False for the placeholder that a new copy of the course has."""
    return "/OWNER/" not in address


def normalized(address: str) -> str:
    """`https://github.com/OWNER/NAME` for any address of a repository there; `ValueError` for another one."""
    if not (found := GITHUB.fullmatch(address.strip())):
        expected = "https://github.com/OWNER/NAME or git@github.com:OWNER/NAME.git"
        raise ValueError(f"unknown kind of address {address!r}, expected {expected}")
    return "https://github.com/{}/{}".format(*found.groups())


def git(*arguments: str, root: Path = ROOT) -> str:
    """What git prints, an empty text where it fails."""
    done = subprocess.run(["git", "-C", root, *arguments], capture_output=True, text=True)
    return done.stdout.strip() if done.returncode == 0 else ""


def address_of_origin(root: Path = ROOT) -> str | None:
    """The address of the remote `origin`, None if there is none or it is not on GitHub."""
    try:
        return normalized(git("remote", "get-url", "origin", root=root))
    except ValueError:
        return None


def revision(root: Path = ROOT) -> str:
    """What a badge opens: the version where its tag is set, else the branch that origin has as its default."""
    if git("tag", "--list", VERSION, root=root):
        return VERSION
    return git("symbolic-ref", "--short", "refs/remotes/origin/HEAD", root=root).removeprefix("origin/") or "main"


def badge(name: str, address: str, revision: str) -> str:
    """Markdown that opens the student's edition of the notebook `name` in Colab."""
    page = address.replace("https://github.com", "https://colab.research.google.com/github")
    return f"[![Open in Colab]({PICTURE})]({page}/blob/{revision}/notebooks/student/{name}.ipynb)"


def renew_notebook(path: Path, address: str, revision: str) -> None:
    """Put the cell into the notebook, and the badge below its title if the address is known; all outputs stay."""
    book = nbformat.read(path, as_version=4)
    title = book.cells[0]
    title.source = BADGE.sub("", title.source).rstrip()
    if is_known(address):
        title.source += f"\n\n{badge(path.stem, address, revision)}"
    for cell in book.cells:
        if SETUP in cell.metadata.get("tags", []):
            cell.source = setup_source(address)
    nbformat.write(book, path)


def renewed_readme(text: str, address: str, revision: str) -> str:
    """The README with a badge after every link to a student's edition that begins a row of a table, or without any."""
    text = re.sub(f" ?{BADGE.pattern}", "", text)
    if is_known(address):
        link = re.compile(r"^\| \[\w+\]\(notebooks/student/(\w+)\.ipynb\)", re.MULTILINE)
        text = link.sub(lambda found: f"{found[0]} {badge(found[1], address, revision)}", text)
    return text


def write(address: str, root: Path = ROOT) -> None:
    """Write the address into pyproject.toml, CITATION.cff, README.md and the notebooks."""
    ref = revision(root)

    def change(name: str, new) -> None:
        file = root / name
        file.write_text(new(file.read_text(encoding="utf-8")), encoding="utf-8")

    code = f"repository-code: {address}\n" if is_known(address) else ""
    change("pyproject.toml", lambda text: re.sub(r'(?m)^Repository = ".*"', f'Repository = "{address}"', text))
    change("CITATION.cff", lambda text: re.sub(r"(?m)^repository-code: .*\n", "", text) + code)
    change("README.md", lambda text: renewed_readme(text, address, ref))
    for path in [*root.glob("notebooks/*.ipynb"), *root.glob("notebooks/student/*.ipynb")]:
        renew_notebook(path, address, ref)


def missing_for_release(root: Path = ROOT, address: str = ADDRESS, version: str = VERSION) -> list[str]:
    """What a release of the commit at hand lacks, a line each."""
    problems = []
    if not is_known(address):
        problems.append(f"the address is not known ({address}): make address ADDRESS=https://github.com/OWNER/NAME")
    if version not in git("tag", "--points-at", "HEAD", root=root).split():
        problems.append(f"this commit does not have the tag {version}: git tag {version}")
    heading = f"## [{version.removeprefix('v')}]"
    if heading not in (root / "CHANGELOG.md").read_text(encoding="utf-8"):
        problems.append(f"CHANGELOG.md has no section {heading}")
    return problems


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("address", nargs="?", type=normalized, help="of the repository on GitHub; default: origin's")
    parser.add_argument("--release", action="store_true", help="say what is missing for a release, and change nothing")
    options = parser.parse_args()
    if options.release:
        problems = missing_for_release()
        print("\n".join(problems) or f"nothing is missing for {VERSION}")
        return 1 if problems else 0
    address = options.address or address_of_origin() or ADDRESS
    write(address)
    print(address if is_known(address) else f"{address}: not known yet, name it: make address ADDRESS=…")
    return 0


if __name__ == "__main__":
    sys.exit(main())
