"""The web site of the course, from the committed notebooks and records: `make site` writes it into build/site/.

The sources in site/ are completed by pages and data that are made from the rest of the repository: the sessions without
their solutions, the exercises, the results and the tables of numbers. No notebook is executed; warnings are errors.
"""

import ast
import re
import shutil
import sys
from pathlib import Path

import nbformat
from editions import SOLUTION, blank, student_edition
from nbformat.v4 import new_markdown_cell
from setup_cell import ADDRESS, BADGE, SETUP, is_known, revision
from showcase import as_html, bands, embedded, playground, results, summary, vega
from standalone import standalone

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOKS, SITE, BUILD = ROOT / "notebooks", ROOT / "site", ROOT / "build"
PREFIX = "course_utils."
SOURCES = BUILD / "site-source"
DESCRIBING = re.compile(r"\b(figures?|panels?|picture|matrix|galler(y|ies)|colour|left|below|above)\b", re.IGNORECASE)
EXERCISES = re.compile(r"^## Exercises\s+", re.MULTILINE)
MARKUP = re.compile(r"[`*$\\]|\[(?P<text>[^\]]*)\]\([^)]*\)")


def describing(text: str) -> list[str]:
    """The sentences of a Markdown text that describe a figure, as plain text, paragraph by paragraph."""
    paragraphs = [part for part in text.split("\n\n") if not part.startswith(("#", "|", "- ", "$$"))]
    plain = [MARKUP.sub(lambda found: found["text"] or "", " ".join(part.split())) for part in paragraphs]
    sentences = [re.split(r"(?<=[.?!:]) (?=[A-Z])", part) for part in plain]
    found = [" ".join(sentence for sentence in part if DESCRIBING.search(sentence)) for part in sentences]
    return [part for part in found if part]


def alternative_text(book: nbformat.NotebookNode, index: int) -> str:
    """What the text around a cell says about its figures: the paragraph nearest before it, else nearest after it.

    A description in the cell's own metadata, `alt`, goes first. Raises `ValueError` where there is none at all.
    """
    if given := book.cells[index].metadata.get("alt"):
        return given
    near, far, after = (
        [part for cell in cells if cell.cell_type == "markdown" for part in describing(cell.source)]
        for cells in (
            book.cells[index - 1 : index],
            book.cells[max(0, index - 3) : index - 1],
            book.cells[index + 1 :][:1],
        )
    )
    if not (found := [*near[::-1], *after, *far[::-1]]):
        raise ValueError(f"no text describes the figure of cell '{book.cells[index].id}'")
    return found[0]


def is_import(cell: nbformat.NotebookNode) -> bool:
    """Does the cell do nothing but import, or fetch the course?"""
    statements = ast.parse(cell.source).body
    only_imports = all(isinstance(statement, ast.Import | ast.ImportFrom) for statement in statements)
    return SETUP in cell.metadata.get("tags", []) or only_imports


def exercise_cells(book: nbformat.NotebookNode) -> range:
    """The cells from the heading "Exercises" to the last solution."""
    first = next(index for index, cell in enumerate(book.cells) if EXERCISES.search(cell.source))
    solutions = [index for index, cell in enumerate(book.cells) if SOLUTION in cell.metadata.get("tags", [])]
    return range(first, max(solutions) + 1)


def launch(name: str) -> str:
    """Links that open the session, a line of Markdown; those to GitHub only where the address is known."""
    links = []
    if is_known(ADDRESS):
        path = f"blob/{revision()}/notebooks"
        colab = ADDRESS.replace("https://github.com", "https://colab.research.google.com/github")
        links = [f"[Open in Colab]({colab}/{path}/student/{name}.ipynb)", f"[Source]({ADDRESS}/{path}/{name}.ipynb)"]
    editions = {"student": "Student edition", "standalone": "Standalone notebook", "notebooks": "With all outputs"}
    links += [f"{{download}}`{text} <downloads/{folder}/{name}.ipynb>`" for folder, text in editions.items()]
    return "[" + " ".join(links) + "]{.launch}"


def session_page(book: nbformat.NotebookNode, name: str) -> nbformat.NotebookNode:
    """The notebook as a page: imports folded, figures described, and a link in place of the exercises."""
    book, exercises = nbformat.from_dict(book), exercise_cells(book)
    for index, cell in enumerate(book.cells):
        if cell.cell_type == "code":
            if any("image/png" in output.get("data", {}) for output in cell.outputs):
                cell.metadata["mystnb"] = {"image": {"alt": alternative_text(book, index)}}
            if is_import(cell):
                cell.metadata["tags"] = ["hide-input"]
    title = book.cells[0]
    heading, _, text = BADGE.sub("", title.source).strip().partition("\n\n")
    title.source = f"{heading}\n\n{launch(name)}\n\n{text}"
    anchor = name.partition("_")[0].lower()
    link = f"## Exercises\n\nThe exercises stand [on a page of their own](exercises.md#{anchor})."
    book.cells[exercises.start : exercises.stop] = [new_markdown_cell(link)]
    return book


def exercises_section(book: nbformat.NotebookNode, name: str) -> str:
    """The exercises of a session in Markdown, each with a cell to fill in, without its solution."""
    parts = [f"({name.partition('_')[0].lower()})=\n" + book.cells[0].source.partition("\n")[0].replace("# ", "## ", 1)]
    for index in exercise_cells(book):
        cell = book.cells[index]
        if cell.cell_type == "markdown":
            text = EXERCISES.sub("", cell.source)
            parts.append(re.sub(r"^\*\*(\d+)\.\*\* ", r"### Exercise \1\n\n", text, flags=re.MULTILINE))
        else:
            parts.append(f"```python\n{blank(cell.source)}\n```")
    return "\n\n".join(parts)


def overview(books: dict[str, nbformat.NotebookNode]) -> str:
    """What each session asks and teaches, in Markdown, from its first two cells."""
    parts = []
    for name, book in books.items():
        title, _, text = BADGE.sub("", book.cells[0].source).strip().partition("\n\n")
        lesson = book.cells[1].source.replace("## What you will learn\n\n", "**You will learn**\n\n")
        read = f"[Read session {name.partition('_')[0]}]({name}.ipynb)"
        parts.append(f"## {title.removeprefix('# ')}\n\n{text}\n\n{lesson}\n\n{read}")
    return "\n\n".join(parts)


def api() -> str:
    """One section for each room of the package and each module that has something public, in Markdown."""
    parts, package = [], ROOT / "course_utils"
    for room in sorted({path.parent for path in package.rglob("*.py")}, key=lambda room: (room == package, room)):
        name = ".".join(room.relative_to(ROOT).parts)
        about = (ast.get_docstring(ast.parse((room / "__init__.py").read_text(encoding="utf-8"))) or "").splitlines()[0]
        parts.append(f"## `{name.removeprefix(PREFIX) or name}`\n\n{about}")
        for path in sorted(room.glob("[a-z]*.py")):
            tree = ast.parse(path.read_text(encoding="utf-8"))
            names = [getattr(node, "name", "_") for node in tree.body]
            if not all(name.startswith("_") for name in names):
                module = f"{name}.{path.stem}"
                parts.append(f"### `{module.removeprefix(PREFIX)}`\n\n```{{eval-rst}}\n.. automodule:: {module}\n```")
    return "\n\n".join(parts)


def write_sources(folder: Path = SOURCES) -> None:
    """Everything that Sphinx reads."""
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(SITE, folder, ignore=shutil.ignore_patterns("__pycache__"))
    books = {path.stem: nbformat.read(path, as_version=4) for path in sorted(NOTEBOOKS.glob("*.ipynb"))}
    editions = {"student": student_edition, "standalone": standalone, "notebooks": nbformat.from_dict}
    for name, book in books.items():
        nbformat.write(session_page(book, name), folder / f"{name}.ipynb")
        for edition, make in editions.items():
            (folder / "downloads" / edition).mkdir(parents=True, exist_ok=True)
            nbformat.write(make(book), folder / "downloads" / edition / f"{name}.ipynb")
    glossary = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8").partition("## Glossary\n")[2]
    runs = results()
    made = {
        "overview.md": overview(books),
        "exercises.md": "\n\n".join(exercises_section(book, name) for name, book in books.items()),
        "glossary.md": glossary,
        "api.md": api(),
        "bands.html": as_html(bands(), "Bands of test accuracy", "bands"),
        "summary.html": as_html(summary(), "Reference runs", "summary"),
        "runs.html": as_html(runs.drop(columns="curves"), "Every run", "runs"),
        "runs-data.html": embedded("runs-data", runs.to_dict("records")),
        "playground-data.html": embedded("playground-data", playground()),
    }
    (folder / "made").mkdir()
    for file, text in made.items():
        (folder / "made" / file).write_text(text, encoding="utf-8")
    (folder / "_static" / "vega.js").write_text(vega(), encoding="utf-8")


def main() -> int:
    from sphinx.cmd.build import main as sphinx

    write_sources()
    target = BUILD / "site"
    shutil.rmtree(target, ignore_errors=True)
    options = ["-q", "-W", "--keep-going", "-j", "auto", "-d", str(BUILD / "site-doctrees")]
    if failed := sphinx([*options, str(SOURCES), str(target)]):
        return failed
    for unused in [*target.rglob("*.map"), *target.rglob("fontawesome.js*"), target / ".buildinfo"]:
        unused.unlink(missing_ok=True)
    (target / ".nojekyll").touch()  # else GitHub Pages leaves out folders with an underscore
    print(target / "index.html")
    return 0


if __name__ == "__main__":
    sys.exit(main())
