"""What is committed: outputs of the code that stands there, whole and clean, and parameters to run it with."""

from pathlib import Path

import papermill
import results
import yaml
from render import KEPT
from stamps import STAMP, stale

from course_utils.runs.reference import SESSIONS
from course_utils.runs.run import read_record

ROOT = Path(__file__).resolve().parents[2]


def tagged(book, tag: str) -> list:
    return [cell for cell in book.cells if tag in cell.metadata.get("tags", [])]


def test_parameters_are_declared(path, book):
    declared = papermill.inspect_notebook(path)
    quick = yaml.safe_load((ROOT / "tools" / "quick.yaml").read_text(encoding="utf-8"))
    missing = ", ".join(sorted(set(quick) - set(declared)))
    assert not missing, f"{path.name} does not declare {missing}, which papermill would pass over"
    (cell,) = tagged(book, "parameters")
    assert len(declared) == len(cell.source.splitlines()), f"{path.name}: expected one parameter per line, nothing else"


def test_checked_cells_have_something_to_compare(path, book):
    cells = tagged(book, results.CHECKED)
    assert len(cells) >= 5, f"{path.name}: {len(cells)} cells are tagged {results.CHECKED!r}, expected at least 5"
    for cell in cells:
        nothing = not cell.outputs or cell.execution_count is None
        assert not nothing, f"{path.name}, cell '{cell.id}': no output or no count, so nbval passes without a look"
        picture = any("data:image" in output.get("data", {}).get("text/html", "") for output in cell.outputs)
        assert not picture, f"{path.name}, cell '{cell.id}': pictures in HTML, which other machines draw differently"


def test_committed_outputs_are_whole_and_clean(path, book):
    code = [cell for cell in book.cells if cell.cell_type == "code"]
    counts = [cell.execution_count for cell in code]
    in_one_go = counts == list(range(1, len(counts) + 1))
    assert in_one_go, f"{path.name}: the execution counts are {counts}, expected 1, 2, 3 ...: make render"
    for cell in code:
        kinds = {kind for output in cell.outputs for kind in output.get("data", {})}
        kinds |= {"an error" for output in cell.outputs if output.output_type == "error"}
        kinds |= {"standard error" for output in cell.outputs if output.get("name") == "stderr"}
        unclean = kinds & {"an error", "standard error", "image/svg+xml", "application/vnd.jupyter.widget-view+json"}
        assert not unclean, f"{path.name}, cell '{cell.id}': {', '.join(unclean)} in the committed output"
    assert set(book.metadata) == {"kernelspec", "language_info"}, f"{path.name}: other metadata, make render cleans it"
    marked = [cell.id for cell in book.cells if not set(cell.metadata) <= {*KEPT, STAMP}]
    assert not marked, f"{path.name}: other metadata in {', '.join(marked)}, make render cleans them"


def test_outputs_are_of_what_stands_there_now(path, book):
    cells = stale(book, path.stem)
    assert not cells, (
        f"{path.name}: the outputs of {', '.join(cells)} were made from other code or data. `make render` renews them. "
        "After a refactoring, `python tools/run.py --accept` proves that they are the same, and keeps them."
    )


def test_record_is_that_of_the_committed_run(path, book):
    record = read_record(SESSIONS / f"{path.stem}.json")
    (shown,) = (results.shown(cell) for cell in book.cells if cell.id == "results")
    for verdict in results.verdicts(record):
        assert verdict.place == "inside", verdict
        assert verdict.text.split(" is inside")[0] in shown, f"{path.name} shows another run than {verdict}"
