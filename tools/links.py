"""The links of the course that lead elsewhere: `make slow-links`. Needs a network, and is no part of `make test`."""

import re
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import nbformat
import requests

ROOT = Path(__file__).resolve().parents[1]
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)|<(https?://[^>\s]+)>")


def texts() -> dict[str, str]:
    """All that is written for readers: the Markdown files and the text of the notebooks, by file."""
    folders = (
        "",
        ".github",
        "data",
        "data/reference",
        "notebooks",
        "tests",
        "tests/slow",
        "tests/slow/mutants",
        "tools",
    )
    places = [ROOT / folder for folder in folders]
    found = {path: path.read_text(encoding="utf-8") for place in places for path in place.glob("*.md")}
    for path in [*ROOT.glob("notebooks/*.ipynb"), *ROOT.glob("notebooks/student/*.ipynb")]:
        cells = nbformat.read(path, as_version=4).cells
        found[path] = "\n\n".join(cell.source for cell in cells if cell.cell_type == "markdown")
    return {path.relative_to(ROOT).as_posix(): text for path, text in found.items()}


def links(text: str) -> list[str]:
    """The targets of the links in a piece of Markdown."""
    return [first or second for first, second in LINK.findall(text)]


def problem_with(url: str) -> str | None:
    """Why the address does not answer with a page, or None if it does."""
    try:
        with requests.get(url, timeout=20, stream=True, headers={"User-Agent": "course link check"}) as response:
            return None if response.ok else f"status {response.status_code}"
    except requests.RequestException as error:
        return f"{type(error).__name__}"


def main() -> int:
    where = {url: name for name, text in texts().items() for url in links(text) if url.startswith("http")}
    with ThreadPoolExecutor(max_workers=8) as pool:
        problems = dict(zip(where, pool.map(problem_with, where), strict=True))
    for url, problem in problems.items():
        print(f"{'DEAD' if problem else 'alive'}  {url}, in {where[url]}{f': {problem}' if problem else ''}")
    return 1 if any(problems.values()) else 0


if __name__ == "__main__":
    sys.exit(main())
