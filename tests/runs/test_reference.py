"""The runs that ship: their weights, found by what they are, and a table of them."""

import hashlib
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load as from_safetensors
from safetensors.torch import save as to_safetensors

from course_utils.data import BatchLoader, load_images
from course_utils.networks import make_network
from course_utils.runs.reference import (
    load_reference,
    load_weights,
    reference_network,
    reference_table,
    shortest_recipe,
    study_runs,
    study_table,
)
from course_utils.runs.run import Job, Run, write_record
from course_utils.runs.study import run_job
from course_utils.training import History, Metrics, Recipe, evaluate


@pytest.fixture
def weights(recorded, jobs) -> dict[str, torch.Tensor]:
    return from_safetensors((recorded / f"{jobs[0].name}.safetensors").read_bytes())


def write_weights(tensors: dict[str, torch.Tensor], folder: Path) -> tuple[Path, str]:
    content = to_safetensors(tensors)
    (folder / "these.safetensors").write_bytes(content)
    return folder / "these.safetensors", hashlib.sha256(content).hexdigest()


def test_weights_are_those_of_the_file(weights, tmp_path):
    model = make_network("S8Net31k", num_classes=2)
    assert load_weights(model, *write_weights(weights, tmp_path)) is model
    found = {name: value.to(weights[name].dtype) for name, value in model.state_dict().items()}
    assert {value.dtype for value in model.state_dict().values()} == {torch.float32, torch.int64}
    torch.testing.assert_close(found, weights, rtol=0, atol=0)


@pytest.mark.parametrize("place", [0, 20, 5000, -1])
def test_changed_byte_in_the_weights(weights, tmp_path, place):
    file, sha256 = write_weights(weights, tmp_path)
    content = bytearray(file.read_bytes())
    content[place] ^= 1
    file.write_bytes(content)
    model = make_network("S8Net31k", num_classes=2)
    with pytest.raises(ValueError, match=f"{file} was changed: its SHA-256 is .{{64}}, expected {sha256}"):
        load_weights(model, file, sha256)


FIRST, LAST = "features.0.0.0.weight", "classifier.1.weight"
WRONG = {
    f"{LAST} is missing": lambda tensors: tensors.pop(LAST),
    "other is not of this network": lambda tensors: tensors.update(other=torch.zeros(2)),
    f"{LAST} is float (28, 2, 1, 1), expected float (2, 28, 1, 1)": lambda tensors: tensors.update(
        {LAST: tensors[LAST].transpose(0, 1).contiguous()}
    ),
    f"{FIRST} is torch.int64 (16, 3, 3, 3), expected float (16, 3, 3, 3)": lambda tensors: tensors.update(
        {FIRST: tensors[FIRST].long()}
    ),
}


@pytest.mark.parametrize("together", [False, True])
@pytest.mark.parametrize("message", WRONG)
def test_weights_of_another_network(weights, tmp_path, message, together):
    WRONG[message](weights)
    if together:  # nothing hides behind something else
        weights["another"] = torch.zeros(1)
    model = make_network("S8Net31k", num_classes=2)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    file, sha256 = write_weights(weights, tmp_path)
    with pytest.raises(ValueError) as error:
        load_weights(model, file, sha256)
    head, _, problems = str(error.value).partition(" does not fit this S8Net31k: ")
    expected = sorted([message, *(["another is not of this network"] if together else [])])
    assert (head, problems) == (str(file), "; ".join(expected))
    torch.testing.assert_close(dict(model.state_dict()), before, rtol=0, atol=0)


ASKED = [
    (dict(), 2),  # most epochs, then the lowest seed
    (dict(seed=1), 1),
    (dict(epochs=1), 0),
    (dict(epochs=2, seed=1), 1),
    (dict(norm="group"), 3),
    (dict(data="noise", seed=1), 1),
]


@pytest.mark.parametrize("asked, picked", ASKED, ids=str)
def test_run_that_is_picked(recorded, jobs, noise_folder, monkeypatch, asked, picked):
    job = jobs[picked]
    run = load_reference("S8Net31k", folder=recorded, **asked)
    assert (run.job, run.data, run.num_classes, run.epochs) == (job, "noise", 2, job.recipe.epochs)
    monkeypatch.setenv("COURSE_DATA", str(noise_folder.parent))
    test = load_images(noise_folder)[1]
    loss, accuracy = evaluate(reference_network(run, recorded), BatchLoader(test, len(test)), precision="fp32")
    assert (run.test_accuracy, run.test_loss) == (accuracy, pytest.approx(loss, rel=1e-5))


@pytest.mark.parametrize(
    "asked",
    [dict(network="S9Net85k"), dict(norm="layer"), dict(epochs=3), dict(seed=7), dict(data="CIFAR-10")],
    ids=str,
)
def test_run_that_is_not_there(recorded, jobs, asked):
    with pytest.raises(ValueError, match="no reference run with ") as error:
        load_reference(**{"network": "S8Net31k", "folder": recorded} | asked)
    (name, value), message = *asked.items(), str(error.value)
    assert f"'{name}': {value!r}" in message
    for job in jobs:
        assert f"{job.network} {job.norm} {job.recipe.epochs} epochs seed {job.seed} on noise" in message


def test_run_with_held_out_images_is_no_reference(recorded, noise_folder, folder, monkeypatch):
    monkeypatch.setenv("COURSE_DATA", str(noise_folder.parent))
    run_job(Job("S8Net31k", batch_size=8, held_out=8, recipe=Recipe(epochs=3)), str(noise_folder), folder)
    assert load_reference("S8Net31k", folder=folder).epochs == 2


def test_table(tmp_path):
    runs = [
        ("S8Net31k", "batch", {}, 5, (0.80, 0.82, 0.87)),
        ("S8Net31k", "batch", {}, 9, (0.90,)),
        ("S8Net38k", "group", {}, 5, (0.72,)),
        ("S8Net38k", "group", {"num_groups": 8}, 5, (0.70, 0.71)),
    ]
    for network, norm, options, epochs, accuracies in runs:
        recipe = Recipe(epochs=epochs)
        history = History(recipe, [Metrics(n + 1, 1.0, 0.5, None, None, 0.1, seconds=1.0) for n in range(epochs)])
        for seed, accuracy in enumerate(accuracies):
            job = Job(network, norm, seed, options=options, recipe=recipe)
            run = Run(job, "noise", 24, 10, history, test_accuracy=accuracy)
            write_record(tmp_path / f"{job.name}.json", run.to_dict())
    published = [
        dict(network="S8Net31k", norm="batch", published=0.815),
        dict(network="S9Net85k", norm="batch", published=0.01),
    ]
    (tmp_path / "published.yaml").write_text(yaml.safe_dump(published))
    table = reference_table(tmp_path)
    assert table[["network", "norm", "options", "epochs", "data", "n"]].to_numpy().tolist() == [
        ["S8Net31k", "batch", "", 5, "noise", 3],
        ["S8Net31k", "batch", "", 9, "noise", 1],
        ["S8Net38k", "group", "", 5, "noise", 1],
        ["S8Net38k", "group", "num_groups=8", 5, "noise", 2],
    ]
    assert table["mean"].tolist() == pytest.approx([83, 90, 72, 70.5])
    # Squared deviations 9 + 1 + 16 over 3 − 1, none from one run, 1/4 + 1/4 over 2 − 1.
    assert table["std"].tolist() == pytest.approx([13**0.5, float("nan"), float("nan"), 0.5**0.5], nan_ok=True)
    assert table["published"].tolist() == pytest.approx([81.5, 81.5, float("nan"), float("nan")], nan_ok=True)


def test_table_without_the_data_of_the_repository(tmp_path):
    assert reference_table(tmp_path).empty
    with pytest.raises(ValueError, match=r"no reference run with .* there are: none"):
        load_reference("A", folder=tmp_path)


def test_runs_of_studies_and_a_table_with_a_row_for_all_seeds_of_a_job(tmp_path):
    crop = {"random_crop": {"padding": 2}, "random_hflip": {}}
    runs = [
        ("S9Net180k", crop, 0.1, (0.80, 0.82, 0.87), 0.9),
        ("S9Net180k", {}, 0.1, (0.70,), 1.0),
        ("S9Net180k", {}, 0.3, (0.72,), 0.8),
        ("S9Net180kPooled", crop, 0.1, (0.91, 0.93), 0.95),
    ]
    recipe = Recipe(epochs=1)
    for network, augment, lr, accuracies, train in runs:
        history = History(recipe, [Metrics(1, 1.0, train, None, None, 0.1, seconds=1.0)])
        for seed, accuracy in enumerate(accuracies):
            job = Job(network, seed=seed, augment=augment, held_out=5, recipe=Recipe(epochs=1, lr=lr))
            run = Run(job, "noise", 24, 10, History(job.recipe, history.metrics), val_accuracy=accuracy)
            write_record(tmp_path / f"{job.name}.json", run.to_dict())
    fast = Job("S9Net180k", augment={}, held_out=5, recipe=Recipe(epochs=1, lr=0.3, optimizer="muon"))
    write_record(tmp_path / "fast.json", Run(fast, "noise", 24, 10, history, val_accuracy=0.85).to_dict())
    lost = Job("S9Net180kPooled", seed=7, augment=crop, held_out=5, recipe=Recipe(epochs=1, lr=0.1))
    write_record(tmp_path / "lost.json", Run(lost, "noise", 24, 10, History(lost.recipe), diverged="nan").to_dict())
    tested = Job("S8Net31k", recipe=recipe)
    write_record(tmp_path / "tested.json", Run(tested, "noise", 24, 10, history, test_accuracy=0.5).to_dict())
    table = study_table(tmp_path)
    assert table[["network", "augmentation", "lr", "epochs", "n"]].to_numpy().tolist() == [
        ["S9Net180k", "crop, hflip", 0.1, 1, 3],
        ["S9Net180k", "none", 0.3, 1, 1],
        ["S9Net180k", "none", 0.1, 1, 1],
        ["S9Net180k", "none", 0.3, 1, 1],
        ["S9Net180kPooled", "crop, hflip", 0.1, 1, 2],
    ]
    assert table["optimizer"].tolist() == ["sgd", "muon", "sgd", "sgd", "sgd"]
    assert table["mean"].tolist() == pytest.approx([83.0, 85.0, 70.0, 72.0, 92.0])
    none = float("nan")
    assert table["std"].tolist() == pytest.approx([13**0.5, none, none, none, 2**0.5], nan_ok=True)
    assert table["train"].tolist() == pytest.approx([90.0, 95.0, 100.0, 80.0, 95.0])
    assert table["diverged"].tolist() == [0, 0, 0, 0, 1]
    pooled = study_runs(tmp_path).query("network == 'S9Net180kPooled'").sort_values("seed")
    assert pooled[["seed", "augmentation", "lr"]].to_numpy().tolist() == [[k, "crop, hflip", 0.1] for k in (0, 1, 7)]
    assert pooled["accuracy"].tolist() == pytest.approx([91.0, 93.0, none], nan_ok=True)
    assert pooled["train"].tolist() == pytest.approx([95.0, 95.0, none], nan_ok=True)


def write_short_runs(folder: Path, accuracies: dict[Recipe, tuple[float, ...]]) -> None:
    """Runs of S8Net46k by these recipes that reached these accuracies, and what was published."""
    (folder / "published.yaml").write_text("- {network: S8Net46k, norm: batch, published: 0.81}\n")
    for recipe, reached in accuracies.items():
        metrics = [Metrics(n + 1, 1.0, 0.5, None, None, 0.1, seconds=1.0) for n in range(recipe.epochs)]
        history = History(recipe, metrics)
        for seed, accuracy in enumerate(reached):
            job = Job("S8Net46k", seed=seed, recipe=recipe)
            run = Run(job, "noise", 24, 10, history, test_accuracy=accuracy)
            write_record(folder / "shortest" / f"{job.name}.json", run.to_dict())


def test_shortest_recipe_wants_three_seeds_that_all_reach_the_figure(tmp_path):
    two, three, five, six = (Recipe(epochs=epochs) for epochs in (2, 3, 5, 6))
    reached = {two: (0.9, 0.9), three: (0.83, 0.809, 0.84), five: (0.81, 0.82, 0.83), six: (0.9, 0.9, 0.9)}
    write_short_runs(tmp_path, reached)
    assert shortest_recipe("S8Net46k", tmp_path) == five
    write_short_runs(tmp_path, {five: (0.80, 0.82, 0.83), six: (0.9, 0.9, 0.7)})
    with pytest.raises(ValueError, match="unknown network with recorded short trainings 'S8Net46k'"):
        shortest_recipe("S8Net46k", tmp_path)


def test_shortest_recipe_counts_pixels(tmp_path):
    plain, longer = Recipe(epochs=5), Recipe(epochs=6, small_epochs=1, small_size=16)  # as many as 5.25 full epochs
    write_short_runs(tmp_path, {plain: (0.9,) * 3, longer: (0.9,) * 3})
    assert shortest_recipe("S8Net46k", tmp_path) == plain
    shorter = Recipe(epochs=6, small_epochs=2, small_size=16)  # as many as 4.5
    write_short_runs(tmp_path, {shorter: (0.9,) * 3})
    assert shortest_recipe("S8Net46k", tmp_path) == shorter
