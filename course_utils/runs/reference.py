"""The recorded runs that ship with the course: records, weights, and a table of them."""

import hashlib
from collections.abc import Mapping
from pathlib import Path

import pandas as pd
from safetensors.torch import load as from_safetensors
from torch import Tensor, nn

from course_utils.arguments import one_of
from course_utils.files import REFERENCE
from course_utils.networks import make_network
from course_utils.runs.bands import read_published
from course_utils.runs.run import Run, load_runs, read_record
from course_utils.training import Recipe

SESSIONS = REFERENCE / "sessions"


def load_weights(model: nn.Module, file: Path, sha256: str) -> nn.Module:
    """Put the weights of a safetensors file, in any floating-point format, into `model` and return it.

    Raises `ValueError` if the file's checksum is another than `sha256`, or its tensors are not exactly the model's.
    """
    content = file.read_bytes()
    if (found := hashlib.sha256(content).hexdigest()) != sha256:
        raise ValueError(f"{file} was changed: its SHA-256 is {found}, expected {sha256}")
    given, expected = from_safetensors(content), model.state_dict()
    problems = [f"{name} is missing" for name in expected.keys() - given.keys()]
    problems += [f"{name} is not of this network" for name in given.keys() - expected.keys()]
    for name in given.keys() & expected.keys():
        if (found := _kind_and_shape(given[name])) != (wanted := _kind_and_shape(expected[name])):
            problems.append(f"{name} is {found}, expected {wanted}")
    if problems:
        raise ValueError(f"{file} does not fit this {type(model).__name__}: {'; '.join(sorted(problems))}")
    model.load_state_dict(given)
    return model


def _kind_and_shape(tensor: Tensor) -> str:
    """The shape and the kind of numbers: weights ship in half precision, and a network computes in another one."""
    return f"{'float' if tensor.is_floating_point() else tensor.dtype} {tuple(tensor.shape)}"


def load_reference(
    network: str,
    norm: str = "batch",
    *,
    data: str | None = None,
    epochs: int | None = None,
    seed: int | None = None,
    folder: Path = REFERENCE,
) -> Run:
    """The reference run of that network and norm; of several the one with most epochs, then the lowest seed.

    Raises `ValueError`, with what there is, if there is none, and if a record was edited.
    """
    runs = [run for run in load_runs(folder) if run.weights_sha256]
    asked = {"network": network, "norm": norm, "data": data, "epochs": epochs, "seed": seed}
    asked = {name: value for name, value in asked.items() if value is not None}
    fitting = [run for run in runs if asked.items() <= _facts(run).items()]
    if not fitting:
        there = sorted({"{network} {norm} {epochs} epochs seed {seed} on {data}".format(**_facts(run)) for run in runs})
        raise ValueError(f"no reference run with {asked}, there are: {'; '.join(there) or 'none'}")
    return min(fitting, key=lambda run: (-run.epochs, run.job.seed))


def _facts(run: Run) -> dict:
    job = run.job
    options = ", ".join(f"{name}={value}" for name, value in job.options.items())
    facts = {"network": job.network, "norm": job.norm, "options": options}
    return facts | {"data": run.data, "epochs": job.recipe.epochs, "seed": job.seed}


def reference_network(run: Run, folder: Path = REFERENCE) -> nn.Module:
    """The trained network of a reference run, on the CPU, in training mode; `ValueError` as `load_weights`."""
    model = make_network(run.job.network, norm=run.job.norm, num_classes=run.num_classes, **run.job.options)
    return load_weights(model, folder / f"{run.job.name}.safetensors", run.weights_sha256 or "")


def reference_table(folder: Path = REFERENCE) -> pd.DataFrame:
    """Test accuracies in per cent, for printing: one row per network, norm, options, epochs and data set.

    `mean` and `std` are over the n seeds; `published` is the figure for the original CIFAR-10, per cent or a text.
    """
    by = ["network", "norm", "options", "epochs", "data"]
    rows = [
        _facts(run) | {"accuracy": 100 * run.test_accuracy}
        for run in load_runs(folder)
        if run.test_accuracy is not None
    ]
    groups = pd.DataFrame(rows, columns=[*by, "accuracy"]).groupby(by)["accuracy"]
    table = groups.agg(["mean", "std", "count"]).rename(columns={"count": "n"}).reset_index()
    published = pd.DataFrame(read_published(folder), columns=["network", "norm", "published"])
    published["published"] = [
        round(100 * value, 2) if isinstance(value, float) else value for value in published.published
    ]
    return table.merge(published, how="left", on=["network", "norm"])


def shortest_recipe(network: str, folder: Path = REFERENCE) -> Recipe:
    """The recipe with the fewest pixels by which all recorded seeds, three or more, reach the published accuracy.

    It is for batch norm, all 50,000 training images of CIFAR-10, batches of 128 images, and the augmentation in
    `shortest/jobs.yaml`. Raises `ValueError`, with the networks that have one, for another network.
    """
    goals = {entry["network"]: entry["published"] for entry in read_published(folder) if entry["norm"] == "batch"}
    reached: dict[tuple[str, Recipe], list[bool]] = {}
    for run in load_runs(folder / "shortest"):
        name = run.job.network
        reached.setdefault((name, run.job.recipe), []).append((run.test_accuracy or 0) >= goals[name])
    enough = [key for key, seeds in reached.items() if len(seeds) >= 3 and all(seeds)]
    one_of(network, "network with recorded short trainings", sorted({name for name, _ in enough}))
    recipes = [recipe for name, recipe in enough if name == network]
    return min(recipes, key=lambda recipe: recipe.epochs - recipe.small_epochs * (1 - recipe.small_size**2 / 32**2))


ASKED = ["network", "norm", "options", "augmentation", "optimizer", "lr", "batch_size", "epochs"]


def study_runs(folder: Path = REFERENCE / "studies") -> pd.DataFrame:
    """The runs of a study on held-out training images, for plots: one row each, with what was asked and the seed.

    `augmentation`: the names of the functions, in order; `train`: the accuracy on the training images, augmented and
    while it trained; `accuracy`: on the held-out images; both in per cent, and NaN where the loss was not finite.
    """
    rows = []
    for run in load_runs(folder):
        if run.test_accuracy is None:
            names = [name.removeprefix("random_") for name in run.job.augment or {}]
            asked = {"augmentation": ", ".join(names) or "none", "batch_size": run.job.batch_size}
            asked |= {"optimizer": run.job.recipe.optimizer, "lr": run.job.recipe.lr}
            found = [float("nan"), float("nan")]
            if run.val_accuracy is not None:
                found = [100 * run.history.metrics[-1].train_accuracy, 100 * run.val_accuracy]
            rows.append(_facts(run) | asked | dict(zip(["train", "accuracy"], found, strict=True)))
    return pd.DataFrame(rows, columns=[*ASKED, "seed", "train", "accuracy"])


def study_table(folder: Path = REFERENCE / "studies") -> pd.DataFrame:
    """`study_runs` for printing: one row per network and what it was trained by.

    `train`: the mean; `mean` and `std`: of the accuracies on held-out images over the n seeds; `diverged`: how many
    seeds ended in a loss that was not finite, and are in none of these.
    """
    groups = study_runs(folder).groupby(ASKED)
    table = groups["accuracy"].agg(["mean", "std", "count", "size"]).rename(columns={"count": "n"})
    table = table.assign(train=groups["train"].mean(), diverged=table["size"] - table["n"])
    return table.drop(columns="size").reset_index()


def accuracy_table(runs: Mapping[str, Run]) -> pd.DataFrame:
    """For printing, one row per run: accuracies in per cent after the last epoch, and mean seconds per epoch."""
    rows = {}
    for name, run in runs.items():
        train_accuracy = run.history.metrics[-1].train_accuracy if run.epochs else None  # interrupted before
        accuracies = [train_accuracy, run.val_accuracy, run.test_accuracy]
        shares = [float("nan") if accuracy is None else 100 * accuracy for accuracy in accuracies]
        rows[name] = [*shares, run.history.seconds / run.epochs if run.epochs else float("nan")]
    parts = [f"{part} accuracy (%)" for part in ("train", "validation", "test")]
    return pd.DataFrame.from_dict(rows, orient="index", columns=[*parts, "seconds per epoch"])


def load_lesson(session: str, folder: Path = SESSIONS) -> dict[str, dict[str, Run]]:
    """The `runs` and `studies` of the recorded full run of a notebook, by name; `ValueError` if there is no record."""
    if not (file := folder / f"{session}.json").is_file():
        there = ", ".join(sorted(path.stem for path in folder.glob("*.json"))) or "none"
        raise ValueError(f"no record of the session {session!r}, there are: {there}")
    record = read_record(file)
    return {part: {name: Run.from_dict(run) for name, run in record[part].items()} for part in ("runs", "studies")}
