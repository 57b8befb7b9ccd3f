"""The runs that ship: read only as they were written, found by what they are, and a measure for other runs."""

import hashlib
import json
import os
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load as from_safetensors
from safetensors.torch import save as to_safetensors

from course_utils.data import BatchLoader, load_images
from course_utils.networks import make_network
from course_utils.runs import reference
from course_utils.runs.records import make_index, read_record, seal, write_index
from course_utils.runs.reference import compare_with_band, load_reference, load_weights, reference_table
from course_utils.runs.study import Job, run_job
from course_utils.training import Recipe, evaluate

JOBS = [
    Job("S8Net31k", seed=seed, batch_size=8, options=options, recipe=Recipe(epochs=epochs))
    for epochs, seed, options in ((1, 0, {}), (2, 1, {}), (2, 0, {"dropout": 0.1}))
]
JOBS.append(Job("S8Net31k", "group", batch_size=8, options={"num_groups": 2}, recipe=Recipe(epochs=1)))


@pytest.fixture(scope="module")
def recorded(noise_folder, tmp_path_factory) -> Path:
    """The results of `JOBS`; not to be changed."""
    folder = tmp_path_factory.mktemp("recorded")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("COURSE_DATA", str(noise_folder.parent))
        for job in JOBS:
            run_job(job, str(noise_folder), folder)
    write_index(folder)
    return folder


@pytest.fixture
def folder(recorded, tmp_path) -> Path:
    """A copy of these results."""
    return shutil.copytree(recorded, tmp_path / "results")


def edit(file: Path, path: tuple, value) -> None:
    record = json.loads(file.read_text())
    place = record
    for key in path[:-1]:
        place = place[key]
    assert place[path[-1]] != value
    place[path[-1]] = value
    file.write_text(json.dumps(record, indent=1) + "\n")


# Weights


@pytest.fixture
def weights(recorded) -> dict[str, torch.Tensor]:
    return from_safetensors((recorded / f"{JOBS[0].name}.safetensors").read_bytes())


def write_weights(tensors: dict[str, torch.Tensor], folder: Path) -> tuple[Path, str]:
    content = to_safetensors(tensors)
    (folder / "these.safetensors").write_bytes(content)
    return folder / "these.safetensors", hashlib.sha256(content).hexdigest()


def test_weights_are_those_of_the_file(weights, tmp_path):
    model = make_network("S8Net31k")
    assert load_weights(model, *write_weights(weights, tmp_path)) is model
    torch.testing.assert_close(dict(model.state_dict()), weights, rtol=0, atol=0)


@pytest.mark.parametrize("place", [0, 20, 5000, -1])
def test_changed_byte_in_the_weights(weights, tmp_path, place):
    file, sha256 = write_weights(weights, tmp_path)
    content = bytearray(file.read_bytes())
    content[place] ^= 1
    file.write_bytes(content)
    model = make_network("S8Net31k")
    with pytest.raises(ValueError, match=f"{file} was changed: its SHA-256 is .{{64}}, expected {sha256}"):
        load_weights(model, file, sha256)


FIRST, LAST = "features.0.0.0.weight", "classifier.1.weight"
WRONG = {
    f"{LAST} is missing": lambda tensors: tensors.pop(LAST),
    "other is not of this network": lambda tensors: tensors.update(other=torch.zeros(2)),
    f"{LAST} is torch.float32 (28, 10, 1, 1), expected torch.float32 (10, 28, 1, 1)": lambda tensors: tensors.update(
        {LAST: tensors[LAST].transpose(0, 1).contiguous()}
    ),
    f"{FIRST} is torch.float64 (16, 3, 3, 3), expected torch.float32 (16, 3, 3, 3)": lambda tensors: tensors.update(
        {FIRST: tensors[FIRST].double()}
    ),
}


@pytest.mark.parametrize("together", [False, True])
@pytest.mark.parametrize("message", WRONG)
def test_weights_of_another_network(weights, tmp_path, message, together):
    WRONG[message](weights)
    if together:  # nothing hides behind something else
        weights["another"] = torch.zeros(1)
    model = make_network("S8Net31k")
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    file, sha256 = write_weights(weights, tmp_path)
    with pytest.raises(ValueError) as error:
        load_weights(model, file, sha256)
    head, _, problems = str(error.value).partition(" does not fit this S8Net31k: ")
    expected = sorted([message, *(["another is not of this network"] if together else [])])
    assert (head, problems) == (str(file), "; ".join(expected))
    torch.testing.assert_close(dict(model.state_dict()), before, rtol=0, atol=0)


# Records

EDITS = [
    (("test_accuracy",), 99.0),
    (("history", "epochs", 1, "train_loss"), 0.5),
    (("job", "recipe", "lr"), 0.06),
    (("history", "recipe", "epochs"), 3),
    (("job", "seed"), 5),
    (("data",), "CIFAR-10"),
    (("weights_sha256",), "0" * 64),
]


@pytest.mark.parametrize("path, value", EDITS, ids=lambda part: str(part)[:40])
def test_edited_record(folder, path, value):
    file = folder / f"{JOBS[2].name}.json"
    edit(file, path, value)
    load = partial(load_reference, "S8Net31k", folder=folder)
    for read in (partial(read_record, file), partial(make_index, folder), load):
        with pytest.raises(ValueError, match=f"{file} was edited: its content does not match its checksum"):
            read()


def test_layout_of_a_record_does_not_count(folder):
    file = folder / f"{JOBS[2].name}.json"
    before = read_record(file)
    file.write_text(json.dumps(json.loads(file.read_text()), indent=4, sort_keys=True))
    assert read_record(file) == before
    extended = before | {"added": 1}
    file.write_text(json.dumps(extended))
    with pytest.raises(ValueError, match="was edited"):
        read_record(file)
    assert seal(extended) != before["sha256"] == seal(before)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"3", b"{}", b'"text"', b"\xff\xfe", b"null"], ids=repr)
def test_file_that_is_no_record(tmp_path, content):
    file = tmp_path / "a-seed0.json"
    file.write_bytes(content)
    with pytest.raises(ValueError, match=f"{file} is no record of a run"):
        read_record(file)


# Finding a run


def test_index_holds_what_the_records_say(recorded):
    index = json.loads((recorded / "index.json").read_text())
    assert index == make_index(recorded) and len(index) == len(JOBS)
    records = {job.name: read_record(recorded / f"{job.name}.json") for job in JOBS}
    for job in JOBS:
        (entry,) = (entry for entry in index if entry["history"] == f"{job.name}.json")
        record, weights = records[job.name], recorded / entry["weights"]
        assert entry["sha256"] == record["weights_sha256"] == hashlib.sha256(weights.read_bytes()).hexdigest()
        assert (entry["test_accuracy"], entry["train_images"]) == (record["test_accuracy"], 24)
        expected = (job.network, job.norm, job.seed, job.recipe.epochs, "noise")
        assert tuple(entry[name] for name in ("network", "norm", "seed", "epochs", "data")) == expected


def test_index_of_nothing(tmp_path):
    write_index(tmp_path)
    assert json.loads((tmp_path / "index.json").read_text()) == []
    with pytest.raises(ValueError, match="there are: none"):
        load_reference("S8Net31k", folder=tmp_path)


ASKED = [
    (dict(), JOBS[2]),  # most epochs, then the lowest seed
    (dict(seed=1), JOBS[1]),
    (dict(epochs=1), JOBS[0]),
    (dict(epochs=2, seed=1), JOBS[1]),
    (dict(norm="group"), JOBS[3]),
]


@pytest.mark.parametrize("asked, job", ASKED, ids=str)
def test_run_that_is_picked(recorded, noise_folder, monkeypatch, asked, job):
    run = load_reference("S8Net31k", folder=recorded, **asked)
    assert run.weights == recorded / f"{job.name}.safetensors"
    assert (run.network, run.norm, run.seed, run.epochs) == (job.network, job.norm, job.seed, job.recipe.epochs)
    assert (run.data, run.options, run.history.recipe) == ("noise", job.options, job.recipe)
    assert len(run.history.epochs) == job.recipe.epochs
    monkeypatch.setenv("COURSE_DATA", str(noise_folder.parent))
    test = load_images(noise_folder)[1]
    loss, accuracy = evaluate(run.model(), BatchLoader(test, len(test)), precision="fp32")
    record = read_record(recorded / f"{job.name}.json")
    assert run.test_accuracy == record["test_accuracy"] == pytest.approx(100 * accuracy, abs=1e-4)
    assert loss == pytest.approx(record["test_loss"], rel=1e-5)


@pytest.mark.parametrize("asked", [dict(network="S9Net85k"), dict(norm="layer"), dict(epochs=3), dict(seed=7)], ids=str)
def test_run_that_is_not_there(recorded, asked):
    with pytest.raises(ValueError, match="no reference run with ") as error:
        load_reference(**{"network": "S8Net31k", "folder": recorded} | asked)
    (name, value), message = *asked.items(), str(error.value)
    assert f"'{name}': {value!r}" in message
    for job in JOBS:
        assert f"{job.network} {job.norm} {job.recipe.epochs} epochs seed {job.seed}" in message


def test_run_with_held_out_images_is_no_reference(recorded, noise_folder, folder, monkeypatch):
    monkeypatch.setenv("COURSE_DATA", str(noise_folder.parent))
    run_job(Job("S8Net31k", batch_size=8, held_out=8, recipe=Recipe(epochs=3)), str(noise_folder), folder)
    write_index(folder)
    assert load_reference("S8Net31k", folder=folder).epochs == 2


# Tables and bands


def test_table(tmp_path):
    runs = [
        ("A", "batch", {}, 5, (80.0, 82.0, 87.0)),
        ("A", "batch", {}, 9, (90.0,)),
        ("B", "group", {}, 5, (72.0,)),
        ("B", "group", {"num_groups": 8}, 5, (70.0, 71.0)),
    ]
    index = [
        dict(
            network=network, norm=norm, options=options, seed=seed, epochs=epochs, data="noise", test_accuracy=accuracy
        )
        for network, norm, options, epochs, accuracies in runs
        for seed, accuracy in enumerate(accuracies)
    ]
    (tmp_path / "index.json").write_text(json.dumps(index))
    published = [
        dict(network="A", norm="batch", published=81.5),
        dict(network="C", norm="batch", published=1.0),
    ]
    (tmp_path / "published.yaml").write_text(yaml.safe_dump(published))
    table = reference_table(tmp_path)
    assert table[["network", "norm", "options", "epochs", "data", "n"]].to_numpy().tolist() == [
        ["A", "batch", "", 5, "noise", 3],
        ["A", "batch", "", 9, "noise", 1],
        ["B", "group", "", 5, "noise", 1],
        ["B", "group", "num_groups=8", 5, "noise", 2],
    ]
    assert table["mean"].tolist() == pytest.approx([83, 90, 72, 70.5])
    # Squared deviations 9 + 1 + 16 over 3 − 1, none from one run, 1/4 + 1/4 over 2 − 1.
    assert table["std"].tolist() == pytest.approx([13**0.5, float("nan"), float("nan"), 0.5**0.5], nan_ok=True)
    assert table["published"].tolist() == pytest.approx([81.5, 81.5, float("nan"), float("nan")], nan_ok=True)


BANDS = """
- run: {network: [A, B], norm: [batch, layer], data: noise, epochs: 20, batch_size: 128, train_images: [45000, 50000]}
  band: [79, 81.5]
  why: ten runs gave that
- run: {network: A, norm: batch, data: noise, epochs: 5, batch_size: 128, train_images: 50000}
  band: [60, 65]
  why: shorter
"""
RUN = dict(network="A", norm="batch", data="noise", epochs=20, batch_size=128, train_images=50000)
NO_BAND = "A with batch norm: test accuracy 80.0 %; no band for this run, but "
VERDICTS = [
    (80.0, {}, "A with batch norm: test accuracy 80.0 % is inside the band of 79 to 81.5 % (ten runs gave that)"),
    (79.0, {}, "A with batch norm: test accuracy 79.0 % is inside the band of 79 to 81.5 % (ten runs gave that)"),
    (81.5, {}, "A with batch norm: test accuracy 81.5 % is inside the band of 79 to 81.5 % (ten runs gave that)"),
    (78.9, {}, "A with batch norm: test accuracy 78.9 % is below the band of 79 to 81.5 % (ten runs gave that)"),
    (90.0, {}, "A with batch norm: test accuracy 90.0 % is above the band of 79 to 81.5 % (ten runs gave that)"),
    (
        80.0,
        dict(network="B", norm="layer", train_images=45000),
        "B with layer norm: test accuracy 80.0 % is inside the band of 79 to 81.5 % (ten runs gave that)",
    ),
    (64.0, dict(epochs=5), "A with batch norm: test accuracy 64.0 % is inside the band of 60 to 65 % (shorter)"),
    (80.0, dict(data="shapes"), f"{NO_BAND}79 to 81.5 % for data noise (here shapes)"),
    (80.0, dict(epochs=7), f"{NO_BAND}79 to 81.5 % for epochs 20 (here 7)"),
    (80.0, dict(epochs=5, data="shapes"), f"{NO_BAND}60 to 65 % for data noise (here shapes)"),
    (
        80.0,
        dict(batch_size=64, train_images=100),
        f"{NO_BAND}79 to 81.5 % for batch_size 128 (here 64), train_images [45000, 50000] (here 100)",
    ),
    (80.0, dict(network="C"), "C with batch norm: test accuracy 80.0 %; no band is known for this network"),
    (80.0, dict(norm="none"), "A with none norm: test accuracy 80.0 %; no band is known for this network"),
]


@pytest.mark.parametrize("accuracy, other, sentence", VERDICTS, ids=str)
def test_verdict_on_a_run(tmp_path, accuracy, other, sentence):
    (tmp_path / "bands.yaml").write_text(BANDS)
    verdict = compare_with_band(accuracy, folder=tmp_path, **RUN | other)
    assert str(verdict) == sentence
    assert f" {verdict.place} " in sentence


# The command


@pytest.fixture
def study(noise_folder, tmp_path) -> Path:
    """A study of one network with two batch sizes, the second over the number of images, and those beside it."""
    shutil.copytree(noise_folder, tmp_path / "noise")
    (tmp_path / "study").mkdir()
    (tmp_path / "study" / "jobs.yaml").write_text("- {network: S8Net31k, batch_size: [8, 99], epochs: 1}\n")
    return tmp_path / "study"


GOOD, BAD = (Job("S8Net31k", batch_size=size, recipe=Recipe(epochs=1)).name for size in (8, 99))
ARGUMENTS = ["study", "--dataset", "noise", "--workers", "1"]  # relative paths


def test_command_with_a_job_that_fails(study):
    environment = os.environ | {"COURSE_DATA": str(study.parent), "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    environment["PYTHONPATH"] = str(Path(__file__).resolve().parents[2])
    command = [sys.executable, "-m", "course_utils.reference", *ARGUMENTS]
    options = dict(cwd=study.parent, env=environment, capture_output=True, text=True, encoding="utf-8", timeout=120)
    run = subprocess.run(command, **options)
    assert run.returncode == 1, run.stderr
    assert f" {GOOD}: done\n" in run.stdout and f" {BAD}: FAILED, ValueError('batch_size is 99" in run.stdout
    assert [entry["history"] for entry in json.loads((study / "index.json").read_text())] == [f"{GOOD}.json"]
    assert read_record(study / f"{GOOD}.json")["data"] == "noise"


def test_command_that_ends_well(study, monkeypatch):
    (study / "jobs.yaml").write_text("- {network: S8Net31k, batch_size: 8, epochs: 1}\n")
    monkeypatch.chdir(study.parent)
    monkeypatch.setenv("COURSE_DATA", str(study.parent))
    monkeypatch.setattr(sys, "argv", ["reference", *ARGUMENTS])
    monkeypatch.setattr(reference, "_executor", lambda options: ThreadPoolExecutor(options.workers))
    for _ in range(2):  # the second time there is nothing left to do, and the index is made anew
        assert reference.main() == 0
        assert [entry["history"] for entry in json.loads((study / "index.json").read_text())] == [f"{GOOD}.json"]
        (study / "jobs.yaml").write_text("[]")
        (study / "index.json").unlink()


@pytest.mark.parametrize(("given", "passed_on"), [("noise", "{}/noise"), ("cifar10", "cifar10")])
def test_command_hands_workers_a_folder_they_can_find(study, monkeypatch, given, passed_on):
    datasets = []
    monkeypatch.chdir(study.parent)
    monkeypatch.setattr(sys, "argv", ["reference", "study", "--dataset", given])
    monkeypatch.setattr(reference, "_executor", lambda options: ThreadPoolExecutor(1))
    monkeypatch.setattr(reference, "run_study", lambda jobs, dataset, folder, executor: datasets.append(dataset))
    assert reference.main() == 0
    assert datasets == [passed_on.format(study.parent.resolve())]


def test_without_the_data_of_the_repository(tmp_path):
    assert reference_table(tmp_path).empty
    assert str(compare_with_band(80.0, folder=tmp_path, **RUN)).endswith("no band is known for this network")
    with pytest.raises(ValueError, match=r"no reference run with .* there are: none"):
        load_reference("A", folder=tmp_path)
