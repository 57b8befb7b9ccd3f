"""What an executed notebook shows and ran, compared with what it should: outputs, records, bands."""

import json
from dataclasses import replace

import nbformat
import pytest
import results
from nbformat.v4 import new_code_cell, new_notebook, new_output

from course_utils.runs import bands
from course_utils.runs.lesson import MIME
from course_utils.runs.run import Job, Run, read_record
from course_utils.training import History, Metrics, Recipe


def with_output(text: str, tags=(results.CHECKED,)) -> nbformat.NotebookNode:
    outputs = [new_output("stream", text=line) for line in text.splitlines(keepends=True)]
    cell = new_code_cell("print(mean)", id="cell-0", metadata={"tags": list(tags)}, outputs=outputs)
    return new_notebook(cells=[cell])


def test_checked_cells_are_compared(tmp_path):
    difference = tmp_path / "S0.diff"
    before, after = with_output("n 8\nmean 0.25\n"), with_output("n 8\nmean 0.52\nand more\n")
    (problem,) = results.compare(before, after, difference)
    assert problem == "cell 'cell-0' (print(mean)): expected 'mean 0.25', found 'mean 0.52'"
    assert {"-mean 0.25", "+mean 0.52", "+and more"} <= set(difference.read_text(encoding="utf-8").splitlines())
    # The same text in other pieces is the same; so the file of an earlier run goes.
    assert results.compare(before, with_output("n 8\nmean 0.25\n"), difference) == [] and not difference.exists()
    assert results.compare(before, with_output("n 8\n"), difference)[0].endswith(
        "expected 'mean 0.25', found 'nothing more'"
    )


def test_other_cells_are_not_compared(tmp_path):
    assert results.compare(with_output("3 s\n", tags=()), with_output("4 s\n", tags=()), tmp_path / "S0.diff") == []


@pytest.mark.parametrize(
    ("data", "text"),
    [
        ({"text/plain": "0.5"}, "0.5"),
        ({"text/plain": "a  1", "text/html": "<table>"}, "a  1"),
        ({"text/plain": "<Figure>", "image/png": "iVBORw0"}, "<Figure>"),
    ],
)
def test_what_is_compared(data, text):
    cell = new_code_cell("x", outputs=[new_output("execute_result", data=data)])
    assert results.shown(cell) == text


# Records

HISTORY = History(Recipe(epochs=1, lr=0.3), [Metrics(1, 2.0, 0.25, 1.9, 0.3, 0.3, seconds=6.0)], {"device": "cpu"})


def record_of(**accuracies: float) -> dict:
    job = Job("S8Net31k", batch_size=8, recipe=HISTORY.recipe)
    runs = {
        norm: Run(replace(job, norm=norm), "noise", 90, 2, HISTORY, test_accuracy=accuracy).to_dict()
        for norm, accuracy in accuracies.items()
    }
    return {"parameters": {"dataset": "noise", "seed": 0}, "runs": runs, "studies": {}}


def executed(record: dict | None) -> nbformat.NotebookNode:
    cells = [new_code_cell("train()", id="train", metadata={"papermill": {"duration": 61.26}})]
    cells.append(new_code_cell("lesson", id="record", metadata={"papermill": {"duration": 0.2}}))
    if record is not None:
        cells[1].outputs = [new_output("execute_result", data={"text/plain": "trainings: 2", MIME: record})]
    return new_notebook(cells=cells)


@pytest.fixture
def some_bands(tmp_path, monkeypatch):
    run = "{network: S8Net31k, norm: [batch, layer], data: noise, epochs: 1, batch_size: 8, train_images: 90}"
    (tmp_path / "bands.yaml").write_text(f"- {{run: {run}, band: [0.6, 0.7], why: three seeds}}\n")
    monkeypatch.setattr(bands.compare_with_band, "__defaults__", (tmp_path,))


def test_record_as_it_is_kept(tmp_path, some_bands):
    book = nbformat.from_dict(executed(record_of(batch=0.65)))
    nbformat.validate(book)
    assert results.outside_bands(book, tmp_path / "S0.json") == []
    record = read_record(tmp_path / "S0.json")
    assert record == json.loads(json.dumps(record_of(batch=0.65))) | {"seconds": {"train": 61.3}}
    assert Run.from_dict(record["runs"]["batch"]).history == HISTORY


def test_accuracies_are_held_to_their_bands(tmp_path, some_bands):
    problems = results.outside_bands(executed(record_of(batch=0.59, layer=0.70, group=0.01)), tmp_path / "S0.json")
    assert problems == ["S8Net31k with batch norm: test accuracy 59.0 % is below the band of 60 to 70 % (three seeds)"]
    assert read_record(tmp_path / "S0.json")["runs"]["batch"]["test_accuracy"] == 0.59  # kept all the same
    (problem,) = results.outside_bands(executed(record_of(layer=0.701)), tmp_path / "S0.json")
    assert "S8Net31k with layer norm: test accuracy 70.1 % is above the band" in problem


def test_notebook_without_a_record(tmp_path):
    (problem,) = results.outside_bands(executed(None), tmp_path / "S0.json")
    assert problem.startswith("no cell has left a record") and not (tmp_path / "S0.json").exists()
