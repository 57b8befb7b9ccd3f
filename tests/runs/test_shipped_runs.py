"""The runs in data/reference/ are what they say, and the README says what they are."""

from itertools import product
from statistics import mean, stdev

import pytest
import yaml

from course_utils.data import BatchLoader
from course_utils.files import REFERENCE
from course_utils.runs.reference import SESSIONS, load_reference, reference_network, reference_table, shortest_recipe
from course_utils.runs.run import load_runs, read_run
from course_utils.runs.study import read_jobs
from course_utils.training import evaluate

README = (REFERENCE.parents[1] / "README.md").read_text(encoding="utf-8")
FOLDERS = [file.parent for file in sorted(REFERENCE.rglob("jobs.yaml"))]


def test_every_folder_of_records_has_its_jobs():
    assert {file.parent for file in REFERENCE.rglob("*.json")} == {*FOLDERS, SESSIONS}


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_every_record_is_that_of_a_listed_job(folder):
    listed = read_jobs(folder / "jobs.yaml")
    assert all(read_run(file).job in listed and read_run(file).job.name == file.stem for file in folder.glob("*.json"))


@pytest.mark.parametrize("folder", ["search", "studies"])
def test_what_is_chosen_or_compared_never_saw_the_test_set(folder):
    runs = load_runs(REFERENCE / folder)
    assert runs and all(run.job.held_out == 5000 and run.test_accuracy is None for run in runs)


def test_reference_runs_trained_on_all_images():
    runs = load_runs(REFERENCE)
    assert runs and all(run.train_images == 50_000 and run.job.held_out == 0 for run in runs)


def test_size():
    assert sum(file.stat().st_size for file in REFERENCE.rglob("*") if "unfinished" not in file.parts) < 8 * 2**20


def test_readme_has_the_table():
    for row in reference_table().itertuples():
        spread = f" ± {row.std:.2f}" if row.n > 1 else ""
        published = row.published if isinstance(row.published, str) else f"{row.published:g}"
        norm = f"{row.norm}, {row.options}" if row.options else row.norm
        line = f"| {row.network} | {norm} | {row.epochs} | {row.mean:.2f}{spread} | {row.n} | {published} |"
        assert line in README


@pytest.mark.parametrize("network", ["S8Net46k", "S9Net180k"])
def test_readme_has_the_shortest_trainings(network):
    recipe = shortest_recipe(network)
    runs = [run for run in load_runs(REFERENCE / "shortest") if (run.job.network, run.job.recipe) == (network, recipe)]
    found = [100 * run.test_accuracy for run in runs]
    assert f"{network} {mean(found):.2f} ± {stdev(found):.2f} in {recipe.epochs}" in README.replace("\n", " ")
    assert f"(n = {len(found)})" in README


def test_bands_hold_the_runs_they_stand_for():
    table = reference_table().set_index(["network", "norm", "epochs", "data"])["mean"] / 100
    for entry in yaml.safe_load((REFERENCE / "bands.yaml").read_text(encoding="utf-8")):
        run, (low, high) = entry["run"], entry["band"]
        # Seeds of a quick run lie 35 points apart: its band tells learning from guessing, no more.
        widest = 0.0401 if run["data"].startswith("CIFAR") else 0.701
        assert 0 < high - low <= widest and entry["why"]
        listed = [run[name] if isinstance(run[name], list) else [run[name]] for name in table.index.names]
        for key in product(*listed):
            assert key not in table.index or low < table[key] < high, (entry, table[key])


def kinds() -> list[tuple[str, str, int]]:
    """Network, norm and epochs of the records, by their names: a damaged one fails a test, no more."""
    parts = [file.stem.split("-")[:3] for file in REFERENCE.glob("*.json")]
    return sorted({(network, norm, int(epochs.removesuffix("ep"))) for network, norm, epochs in parts})


@pytest.mark.parametrize(("network", "norm", "epochs"), kinds())
def test_weights_give_the_recorded_accuracy(network, norm, epochs, photographs):
    run = load_reference(network, norm, epochs=epochs)
    test = photographs[1]
    assert run.data == test.name
    _, accuracy = evaluate(reference_network(run), BatchLoader(test, 1000), precision="fp32")
    assert accuracy == pytest.approx(run.test_accuracy, abs=0.0005)
