"""What the web site is made of: pages from the notebooks, tables and data from the records. Nothing is built here."""

import json
import re
import tomllib

import nbformat
import pandas as pd
import pytest
import showcase
import website
from editions import SOLUTION
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output
from torch import nn
from website import SITE, alternative_text, exercises_section, is_import, launch, overview, session_page

from course_utils.files import REFERENCE
from course_utils.runs.run import read_record

BOOKS = {path.stem: nbformat.read(path, as_version=4) for path in sorted(website.NOTEBOOKS.glob("*.ipynb"))}
each_book = pytest.mark.parametrize("name", BOOKS)


def code(book, *tags) -> list:
    return [cell for cell in book.cells if cell.cell_type == "code" and set(tags) <= set(cell.metadata.get("tags", []))]


def titles(book) -> list[str]:
    text = "\n".join(cell.source for cell in book.cells if cell.cell_type == "markdown")
    return re.findall(r"^##? .*", text, re.MULTILINE)


def with_figure(before: str, after: str, **metadata) -> nbformat.NotebookNode:
    figure = new_code_cell("plot()", metadata=metadata, outputs=[new_output("display_data", {"image/png": "AA=="})])
    return new_notebook(cells=[new_markdown_cell(before), figure, new_markdown_cell(after)])


@each_book
def test_a_session_page_has_everything_but_the_exercises(name):
    page, book = session_page(BOOKS[name], name), BOOKS[name]
    assert code(page, SOLUTION) == [] and "check_answer(" not in "".join(cell.source for cell in code(page)[2:])
    kept = {cell.id: cell for cell in page.cells}
    for cell in code(book):
        if SOLUTION not in cell.metadata.get("tags", []):
            assert kept[cell.id].source == cell.source and kept[cell.id].outputs == cell.outputs
    assert titles(page) == titles(book)
    assert {cell.id for cell in code(page, "hide-input")} == {"setup", "imports"}


@each_book
def test_every_figure_has_a_text_of_its_own(name):
    """But for those that one cell makes, which the site numbers."""
    figures = [cell for cell in code(session_page(BOOKS[name], name)) if "mystnb" in cell.metadata]
    shown = [
        cell for cell in code(BOOKS[name]) if any("image/png" in output.get("data", {}) for output in cell.outputs)
    ]
    texts = [cell.metadata["mystnb"]["image"]["alt"] for cell in figures]
    assert [cell.id for cell in figures] == [cell.id for cell in shown] and len(set(texts)) == len(texts) >= 5
    assert all(len(text) > 30 and not re.search(r"[`*$]|\n", text) for text in texts)


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        ("Why? The figure has *two* bars.", "The next figure differs.", "The figure has two bars."),
        (
            "## A figure\n\nWe train `a` network.",
            "The left panel rises. It ends.\n\nBelow it falls.",
            "The left panel rises.",
        ),
        ("The figure is [Luo's](https://a.b): $x$ grows.\n\n| figure | 1 |", "", "The figure is Luo's: x grows."),
    ],
)
def test_text_of_a_figure(before, after, expected):
    assert alternative_text(with_figure(before, after), 1) == expected
    assert alternative_text(with_figure(before, after, alt="Bars."), 1) == "Bars."


def test_a_figure_without_a_text_is_refused():
    with pytest.raises(ValueError, match="no text describes the figure of cell"):
        alternative_text(with_figure("We train.", "It learns."), 1)


def test_imports_are_told_from_other_cells():
    assert is_import(new_code_cell("import a\nfrom b import c")) and is_import(
        new_code_cell("f()", metadata={"tags": ["setup"]})
    )
    assert not is_import(new_code_cell("import a\na.f()"))


@each_book
def test_exercises_stand_without_their_solutions(name):
    text, solutions = exercises_section(BOOKS[name], name), code(BOOKS[name], SOLUTION)
    assert re.findall(r"^### Exercise (\d+)$", text, re.MULTILINE) == [str(i + 1) for i in range(len(solutions))]
    assert text.count("answer = ...") == text.count("check_answer(") == len(solutions) > 0
    for cell in solutions:
        assert cell.source.rpartition("check_answer(")[0].strip() not in text


def test_the_start_page_has_what_each_session_asks_and_teaches():
    text = overview(BOOKS)
    for name, book in BOOKS.items():
        lesson = re.findall(r"^- .*", book.cells[1].source, re.MULTILINE)
        assert book.cells[0].source.splitlines()[0] in text and f"({name}.ipynb)" in text and lesson[0] in text


def test_no_link_to_an_address_that_is_not_known(monkeypatch):
    monkeypatch.setattr(website, "ADDRESS", "https://github.com/OWNER/course")
    assert "http" not in launch("S8_a") and launch("S8_a").count("{download}") == 3
    monkeypatch.setattr(website, "ADDRESS", "https://github.com/some-one/course")
    revision = website.revision()
    colab = f"https://colab.research.google.com/github/some-one/course/blob/{revision}/notebooks/student/S8_a.ipynb"
    assert f"[Open in Colab]({colab})" in launch("S8_a")
    assert f"https://github.com/some-one/course/blob/{revision}/notebooks/S8_a.ipynb" in launch("S8_a")


def test_pages_use_all_that_is_made_and_list_all_sessions(tmp_path, monkeypatch):
    monkeypatch.setattr(website, "vega", lambda: "")
    website.write_sources(tmp_path / "source")
    pages = {path.name: path.read_text(encoding="utf-8") for path in (tmp_path / "source").glob("*.md")}
    used = re.findall(r"made/[\w.-]+", "".join(pages.values()))
    assert set(used) == {f"made/{path.name}" for path in (tmp_path / "source" / "made").iterdir()}
    hidden = "".join(re.findall(r"```{toctree}(.*?)```", pages["index.md"], re.DOTALL)).split()
    listed = {*BOOKS, *(name.removesuffix(".md") for name in pages)} - {"index"}
    assert listed <= set(hidden)
    assert {path.stem for path in (tmp_path / "source" / "downloads").rglob("*.ipynb")} == set(BOOKS)
    assert "OWNER" not in "".join(pages.values())


def test_results_are_the_records():
    table = showcase.results()
    runs = [read_record(path) for path in sorted(REFERENCE.glob("*.json"))]
    lessons = [read_record(path) for path in sorted((REFERENCE / "sessions").glob("*.json"))]
    runs += [run for lesson in lessons for part in ("runs", "studies") for run in lesson[part].values()]
    assert len(table) == len(runs)
    for shown, run in zip(table.to_dict("records"), runs, strict=True):
        assert shown["network"] == run["job"]["network"] and shown["data"] == run["data"]
        assert shown["curves"] == run["history"]["metrics"]
        share = run["test_accuracy"]
        assert shown["test accuracy (%)"] == (None if share is None else round(100 * share, 2))
        assert (shown["parameters"] is None) == ("short studies" in shown["study"])


def test_tables_align_numbers_and_leave_out_what_is_missing():
    table = pd.DataFrame({"name": ["<a>", "b"], "count": [1234, None], "share": [0.5, 1.25]}, dtype=object)
    html = showcase.as_html(table, "A table", "t")
    assert '<td class="text">&lt;a&gt;</td><td class="number">1,234</td><td class="number">0.50</td>' in html
    assert '<td class="number"></td>' in html and 'aria-label="A table" tabindex="0"' in html and 'id="t"' in html


def test_data_in_a_page_cannot_end_its_element():
    text = showcase.embedded("a", {"b": "</script>×"})
    assert text.count("</script>") == 1 and json.loads(re.sub("<.?script[^>]*>", "", text)) == {"b": "</script>×"}


def test_layers_as_lines():
    layer = nn.Conv2d(4, 8, 3, stride=2, padding=1, dilation=2, groups=4, bias=False)
    assert showcase.layer_line(layer) == "conv 8 k3 s2 p1 d2 g4 nobias"
    assert showcase.layer_line(nn.Conv2d(4, 8, 1)) == "conv 8 k1"
    with pytest.raises(ValueError, match="unknown layer Tanh"):
        showcase.layer_line(nn.Tanh())


def test_playground_has_networks_and_rules():
    given = showcase.playground()
    assert all(len(rules["texts"]) >= 5 for rules in given["rules"].values()) and given["networks"]
    for text in given["networks"].values():
        assert all(re.fullmatch(r"[a-z]+( \d+)?( [kspdg]\d+)*( nobias)?", line) for line in text.splitlines())


def test_what_the_site_needs_is_listed():
    extra = tomllib.loads((website.ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"][
        "optional-dependencies"
    ]
    listed = "\n".join(extra["site"]).replace("-", "_")
    config = (SITE / "conf.py").read_text(encoding="utf-8")
    for package in ("myst_nb", "sphinx_copybutton", "sphinx_book_theme", "latex2mathml", "sphinx"):
        assert package in config and re.search(rf"^{package}>=", listed, re.MULTILINE)
    sources = [
        path.read_text(encoding="utf-8") for path in SITE.rglob("*") if path.suffix in (".py", ".js", ".css", ".html")
    ]
    assert not re.search(r"https?://(?!www\.w3\.org/)", "".join(sources)), "the site asks nobody else for anything"
