"""The record of a run: read only as it was written."""

import json
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from course_utils.runs.reference import load_reference
from course_utils.runs.run import Job, Run, checksum, load_runs, read_record, read_run, write_record
from course_utils.training import History, Metrics, Recipe


def edit(file: Path, path: tuple, value) -> None:
    record = json.loads(file.read_text())
    place = record
    for key in path[:-1]:
        place = place[key]
    assert place[path[-1]] != value
    place[path[-1]] = value
    file.write_text(json.dumps(record, indent=1) + "\n")


BAD_JOBS = [
    (dict(seed=1.5), "seed is 1.5, expected a whole number"),
    (dict(seed=-1), "seed is -1, expected a whole number from 0"),
    (dict(seed=None), "seed is None, expected a whole number"),
    (dict(batch_size="128"), "batch_size is '128', expected a whole number of at least 1"),
    (dict(batch_size=0), "batch_size is 0, expected a whole number of at least 1"),
    (dict(held_out=-1), "held_out is -1, expected a whole number of at least 0"),
    (dict(follow="no"), "follow is 'no', expected True or False"),
    (dict(norm=False), "unknown norm False, expected one of batch, layer, group, none"),
    (dict(network=None), "network is None, expected a name"),
    (dict(augment="random_hflip"), "augment is 'random_hflip', expected a mapping"),
    (dict(options=None), "options is None, expected a mapping"),
    (dict(recipe={"epochs": 2}), "recipe is {'epochs': 2}, expected a Recipe"),
]


@pytest.mark.parametrize("fields, message", BAD_JOBS)
def test_job_that_cannot_be(fields, message):
    with pytest.raises(ValueError) as error:
        Job(**{"network": "S8Net31k"} | fields)
    assert message in str(error.value)


def test_job_of_numpy_numbers_is_the_same_job():
    usual = Job("S9Net85k", seed=2, batch_size=64, held_out=5, options={"dropout": 0.5}, follow=True)
    usual = replace(usual, augment={"random_affine": {"scale": [0.5, 1.5], "degrees": 3}})
    given = Job("S9Net85k", seed=np.int64(2), batch_size=np.int32(64), held_out=np.uint8(5), follow=np.bool_(True))
    options, affine = {"dropout": np.float32(0.5)}, {"scale": (0.5, np.float64(1.5)), "degrees": np.int64(3)}
    given = replace(given, options=options, augment={"random_affine": affine})
    assert given == usual and given.name == usual.name
    assert Run.from_dict(json.loads(json.dumps(a_run(job=given).to_dict()))).job == given


def a_run(**changed) -> Run:
    metrics = [Metrics(1, 2.0, 0.25, None, None, 0.3, seconds=6.0)]
    history = History(Recipe(epochs=1, lr=0.3), metrics, {"device": "cpu"})
    run = Run(Job("S8Net31k", recipe=history.recipe), "noise", 24, 10, history, test_loss=1.5, test_accuracy=0.5)
    return replace(run, **changed)


def test_record_gives_the_run_back(tmp_path):
    run = a_run(weights_sha256="0" * 64)
    write_record(tmp_path / "a.json", run.to_dict())
    found = read_run(tmp_path / "a.json")
    assert found == run and found.history.environment == {"device": "cpu"} and found.history.seconds == 6.0
    assert load_runs(tmp_path) == [run] and found.epochs == 1
    assert json.loads((tmp_path / "a.json").read_text())["test_accuracy"] == 0.5  # shares of 1, as everywhere


def test_metrics_are_stored_as_columns(tmp_path):
    metrics = [Metrics(epoch, 2.0 / epoch, 0.25, None, None, 0.3, seconds=6.0) for epoch in (1, 2)]
    run = a_run(history=History(Recipe(epochs=1, lr=0.3), metrics))
    lesson = {
        "runs": {"batch": run.to_dict()},
        "studies": {"diverged": a_run(history=History(run.job.recipe)).to_dict()},
    }
    write_record(tmp_path / "a.json", lesson)
    assert read_record(tmp_path / "a.json") == lesson
    stored = json.loads((tmp_path / "a.json").read_text())["runs"]["batch"]["history"]["metrics"]
    assert stored["epoch"] == [1, 2] and stored["train_loss"] == [2.0, 1.0] and stored["val_loss"] == [None, None]


def test_columns_of_unequal_length(tmp_path):
    write_record(tmp_path / "a.json", a_run().to_dict())
    edit(tmp_path / "a.json", ("history", "metrics", "lr"), [0.3, 0.2])
    with pytest.raises(ValueError, match=r"a\.json is no record of a run: .*longer"):
        read_record(tmp_path / "a.json")


@pytest.mark.parametrize("change", [lambda content: content.pop("data"), lambda content: content.update(speed=3)])
def test_record_of_another_form(tmp_path, change):
    content = a_run().to_dict()
    change(content)
    write_record(tmp_path / "a.json", content)
    with pytest.raises(ValueError, match=r"a.json: this is no record of a run: .*(data|speed)"):
        read_run(tmp_path / "a.json")


EDITS = [
    (("test_accuracy",), 0.99),
    (("history", "metrics", "train_loss", 1), 0.5),
    (("job", "recipe", "lr"), 0.06),
    (("job", "seed"), 5),
    (("data",), "CIFAR-10"),
    (("weights_sha256",), "0" * 64),
]


@pytest.mark.parametrize("path, value", EDITS, ids=lambda part: str(part)[:40])
def test_edited_record(folder, jobs, path, value):
    file = folder / f"{jobs[2].name}.json"
    edit(file, path, value)
    load = partial(load_reference, "S8Net31k", folder=folder)
    for read in (partial(read_record, file), partial(load_runs, folder), load):
        with pytest.raises(ValueError, match=f"{file} was edited: its content does not match its checksum"):
            read()


def test_layout_of_a_record_does_not_count(folder, jobs):
    file = folder / f"{jobs[2].name}.json"
    before, record = read_record(file), json.loads(file.read_text())
    file.write_text(json.dumps(record, indent=4, sort_keys=True))
    assert read_record(file) == before and checksum(before) == record["record_sha256"]
    file.write_text(json.dumps(record | {"added": 1}))
    with pytest.raises(ValueError, match="was edited"):
        read_record(file)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"3", b"{}", b'"text"', b"\xff\xfe", b"null"], ids=repr)
def test_file_that_is_no_record(tmp_path, content):
    file = tmp_path / "a-seed0.json"
    file.write_bytes(content)
    with pytest.raises(ValueError, match=f"{file} is no record of a run"):
        read_record(file)
