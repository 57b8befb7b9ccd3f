"""The runs that ship with the course: their histories and weights, and what a run of your own should reach.

`python -m course_utils.reference` makes them: `make reference`.
"""

import argparse
import hashlib
import json
import os
import sys
from concurrent.futures import Executor, ProcessPoolExecutor
from dataclasses import dataclass, field
from multiprocessing import get_context
from pathlib import Path

import pandas as pd
import yaml
from safetensors.torch import load as from_safetensors
from torch import nn

from course_utils.environment import check_versions
from course_utils.files import checkout
from course_utils.networks import make_network
from course_utils.runs.records import read_record, write_index
from course_utils.runs.study import read_jobs, run_study
from course_utils.training import History

REFERENCE = (checkout() or Path.cwd()) / "data" / "reference"


@dataclass(frozen=True)
class ReferenceRun:
    """A recorded run. `data`: the name of the data set; `test_accuracy`: per cent, after the last epoch."""

    network: str
    norm: str
    seed: int
    epochs: int
    data: str
    test_accuracy: float
    weights: Path
    sha256: str  # of the weights
    history: History
    options: dict = field(default_factory=dict)

    def model(self) -> nn.Module:
        """The trained network, on the CPU."""
        options = dict(num_classes=self.history.recipe.num_classes, **self.options)
        return load_weights(make_network(self.network, norm=self.norm, **options), self.weights, self.sha256)


def load_weights(model: nn.Module, file: Path, sha256: str) -> nn.Module:
    """Put the weights of a safetensors file into `model` and return it.

    Raises `ValueError` if the file's checksum is another than `sha256`, or its tensors are not exactly the model's.
    """
    content = file.read_bytes()
    if (found := hashlib.sha256(content).hexdigest()) != sha256:
        raise ValueError(f"{file} was changed: its SHA-256 is {found}, expected {sha256}")
    given, expected = from_safetensors(content), model.state_dict()
    problems = [f"{name} is missing" for name in expected.keys() - given.keys()]
    problems += [f"{name} is not of this network" for name in given.keys() - expected.keys()]
    for name in given.keys() & expected.keys():
        kinds = [f"{tensor.dtype} {tuple(tensor.shape)}" for tensor in (given[name], expected[name])]
        if kinds[0] != kinds[1]:
            problems.append(f"{name} is {kinds[0]}, expected {kinds[1]}")
    if problems:
        raise ValueError(f"{file} does not fit this {type(model).__name__}: {'; '.join(sorted(problems))}")
    model.load_state_dict(given)
    return model


def _listed_in(file: Path) -> list:
    """The list in a YAML or JSON file; an empty one where the repository's data are not at hand."""
    return yaml.safe_load(file.read_text(encoding="utf-8")) if file.is_file() else []


def load_reference(
    network: str, norm: str = "batch", *, epochs: int | None = None, seed: int | None = None, folder: Path = REFERENCE
) -> ReferenceRun:
    """The recorded run of that network and norm; of several the one with most epochs, then the lowest seed.

    Raises `ValueError`, with what there is, if there is none, and if its record was edited.
    """
    entries = _listed_in(folder / "index.json")
    asked = {"network": network, "norm": norm, "epochs": epochs, "seed": seed}
    asked = {name: value for name, value in asked.items() if value is not None}
    fitting = [entry for entry in entries if entry["weights"] and asked.items() <= entry.items()]
    if not fitting:
        there = sorted({f"{e['network']} {e['norm']} {e['epochs']} epochs seed {e['seed']}" for e in entries})
        raise ValueError(f"no reference run with {asked}, there are: {'; '.join(there) or 'none'}")
    entry = min(fitting, key=lambda entry: (-entry["epochs"], entry["seed"]))
    record = read_record(folder / entry["history"])
    return ReferenceRun(
        network=network,
        norm=norm,
        seed=entry["seed"],
        epochs=entry["epochs"],
        data=record["data"],
        test_accuracy=record["test_accuracy"],
        weights=folder / entry["weights"],
        sha256=record["weights_sha256"],
        history=History.from_json(json.dumps(record["history"])),
        options=record["job"]["options"],
    )


def reference_table(folder: Path = REFERENCE) -> pd.DataFrame:
    """One row per network, norm, options and epochs: mean and standard deviation over the seeds, and their number n.

    The published figures, on the original CIFAR-10, stand beside them.
    """
    by = ["network", "norm", "options", "epochs", "data"]
    entries = _listed_in(folder / "index.json")
    options = [", ".join(f"{name}={value}" for name, value in entry["options"].items()) for entry in entries]
    groups = (
        pd.DataFrame(entries, columns=[*by, "test_accuracy"])
        .assign(options=options)
        .dropna()
        .groupby(by)["test_accuracy"]
    )
    table = groups.agg(["mean", "std", "count"]).rename(columns={"count": "n"}).reset_index()
    published = pd.DataFrame(_listed_in(folder / "published.yaml"), columns=["network", "norm", "published"])
    return table.merge(published, how="left", on=["network", "norm"], suffixes=("", " (published)"))


@dataclass(frozen=True)
class Verdict:
    """`place`: "inside", "above", "below" or "no band"; `text`: one line with figure, band and its reason."""

    place: str
    text: str

    def __str__(self) -> str:
        return self.text


def compare_with_band(test_accuracy: float, *, folder: Path = REFERENCE, **run) -> Verdict:
    """Is `test_accuracy`, in per cent, what a run like this should reach?

    `run`: its `network`, `norm`, `data` (the name of the data set), `epochs`, `batch_size`, `train_images`.
    `bands.yaml` has the bands and the reason for each. A band holds for the data it was recorded on and no other.
    """

    def differing(entry: dict) -> list[str]:
        return [name for name, value in entry["run"].items() if run[name] not in (value, *_listed(value))]

    subject = f"{run['network']} with {run['norm']} norm: test accuracy {test_accuracy:.1f} %"
    bands = [entry for entry in _listed_in(folder / "bands.yaml") if not {"network", "norm"} & set(differing(entry))]
    if not bands:
        return Verdict("no band", f"{subject}; no band is known for this network")
    nearest = min(bands, key=lambda entry: len(differing(entry)))
    low, high = nearest["band"]
    if names := differing(nearest):
        others = ", ".join(f"{name} {nearest['run'][name]} (here {run[name]})" for name in names)
        return Verdict("no band", f"{subject}; no band for this run, but {low} to {high} % for {others}")
    place = "above" if test_accuracy > high else "below" if test_accuracy < low else "inside"
    return Verdict(place, f"{subject} is {place} the band of {low} to {high} % ({nearest['why']})")


def _listed(value) -> list:
    return value if isinstance(value, list) else []


def _executor(options: argparse.Namespace) -> Executor:
    if options.cluster:
        from distributed import Client  # only with the extra "cluster"

        return Client(options.cluster).get_executor()
    # New interpreters rather than copies of this one: a copy of a process with threads may hang.
    return ProcessPoolExecutor(options.workers, mp_context=get_context("spawn"))


def main() -> int:
    parser = argparse.ArgumentParser(description="Run the jobs of FOLDER/jobs.yaml that have no result in FOLDER yet.")
    parser.add_argument("folder", nargs="?", type=Path, default=REFERENCE)
    parser.add_argument("--dataset", default="cifar10", help="cifar10, shapes or a folder of images")
    parser.add_argument("--workers", type=int, default=os.cpu_count(), help="processes on this machine")
    parser.add_argument(
        "--cluster", help="address of a Dask scheduler; its workers see the same files and have one thread each"
    )
    options = parser.parse_args()
    check_versions()
    folder, jobs = options.folder.resolve(), read_jobs(options.folder / "jobs.yaml")
    dataset = str(Path(options.dataset).resolve()) if Path(options.dataset).is_dir() else options.dataset
    with _executor(options) as executor:
        failed = run_study(jobs, dataset, folder, executor)
    write_index(folder)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
