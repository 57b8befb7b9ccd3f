"""Studies: jobs read from a file, each run once, resumed where it was killed, and recorded as it was."""

import copy
import hashlib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import fields, replace
from functools import partial
from pathlib import Path

import pytest
import torch
from safetensors.torch import load as from_safetensors

from course_utils.data import BatchLoader, ImageSet, augment, split
from course_utils.data.augment import random_crop, random_cutout, random_hflip
from course_utils.data.loader import channel_statistics
from course_utils.device import seed_everything
from course_utils.networks import make_network
from course_utils.runs import run as run_module
from course_utils.runs import study
from course_utils.runs.run import Job, load_runs, read_run
from course_utils.runs.study import augmentation, read_jobs, run_job, run_study
from course_utils.training import Recipe, evaluate, fit

# Dropout draws from the global stream, augmentation and order from the loader's generator: a run depends on both.
small = partial(Job, "S8Net31k", batch_size=8, options={"dropout": 0.1}, recipe=Recipe(epochs=3, precision="fp32"))


def write_jobs(folder: Path, text: str) -> Path:
    file = folder / "jobs.yaml"
    file.write_text(text, encoding="utf-8")
    return file


@pytest.fixture
def image_sets(generator, monkeypatch) -> list[ImageSet]:
    """What `load_images` gives here: noise, 24 images for training and 16 for testing."""
    images = torch.randint(0, 256, (40, 3, 32, 32), dtype=torch.uint8, generator=generator)
    both = ImageSet(images, torch.arange(40) % 10, tuple("abcdefghij"), "noise", *channel_statistics(images[:24]))
    sets = [both[:24], both[24:]]
    monkeypatch.setattr(study, "load_images", lambda dataset: sets)
    monkeypatch.setattr(study, "pick_device", lambda: torch.device("cpu"))
    return sets


def by_hand(job: Job, train: ImageSet, test: ImageSet):
    """The run of a job written out: history, network, and loss and accuracy on the images it is judged by."""
    if job.held_out:
        train, test = split(train, job.held_out, torch.Generator().manual_seed(0))
    generator = seed_everything(job.seed)
    model = make_network(job.network, norm=job.norm, num_classes=len(train.classes), **job.options)
    steps = lambda images, generator: random_hflip(random_crop(images, generator, 4), generator)  # noqa: E731
    batches = BatchLoader(train, job.batch_size, shuffle=True, augment=steps, generator=generator)
    judges = BatchLoader(test, len(test))
    history = fit(model, batches, judges if job.follow else None, job.recipe, verbose=False)
    if job.held_out:
        return history, model, evaluate(model, judges, precision=job.recipe.precision)
    halved = {name: value.half().to(value.dtype) for name, value in model.state_dict().items()}  # as they ship
    model.load_state_dict(halved)
    return history, model, evaluate(model, judges, precision="fp32")


# Which jobs there are


def test_lists_mean_every_combination(tmp_path):
    file = write_jobs(
        tmp_path,
        """
        - {network: S8Net46k, norm: [batch, group], seed: [0, 1, 2], epochs: 5, lr: 0.2}
        - {network: S9Net85k, options: {dropout: 0.1}, held_out: 7, batch_size: [64, 32], schedule: step}
        - network: S8Net31k
          augment: [{random_hflip: {}}, {}]
        """,
    )
    recipe = Recipe(epochs=5, lr=0.2)
    wide = partial(Job, "S9Net85k", options={"dropout": 0.1}, held_out=7, recipe=Recipe(schedule="step"))
    assert read_jobs(file) == [
        *(Job("S8Net46k", norm, seed, recipe=recipe) for norm in ("batch", "group") for seed in range(3)),
        *(wide(batch_size=size) for size in (64, 32)),
        *(Job("S8Net31k", augment=steps) for steps in ({"random_hflip": {}}, {})),
    ]


def test_unknown_field_in_a_list_of_jobs(tmp_path):
    file = write_jobs(tmp_path, "- {network: S8Net46k, epoch: 3}")
    with pytest.raises(ValueError, match="unknown field epoch, expected some of ") as error:
        read_jobs(file)
    names = {field.name for kind in (Job, Recipe) for field in fields(kind)} - {"recipe"}
    assert str(file) in str(error.value) and names <= set(str(error.value).replace(",", "").split())


@pytest.mark.parametrize("text", ["- {network: S8Net46k, seed: [1, 1]}", "- {network: S8Net46k, seed: 1}\n" * 2])
def test_job_that_stands_there_twice(tmp_path, text):
    file = write_jobs(tmp_path, text)
    with pytest.raises(ValueError, match=f"{file}: {Job('S8Net46k', seed=1).name} stands there more than once"):
        read_jobs(file)


NO_JOBS = {
    "": "a list",
    "network: S8Net46k": "a list",
    "S8Net46k": "a list",
    "- S8Net46k": "a list",
    "- [network, S8Net46k]": "a list",
    "- 3: S8Net46k": "unknown field 3",
    "- {norm: batch": "",  # not closed
    "- norm: batch": "network",  # nothing says which
    "- {network: S8Net46k, epochs: 0}": "epochs is 0",
    "- {network: S8Net46k, lr: 1e-3}": "lr is '1e-3', expected a number above 0",
    "- {network: S8Net46k, lr: [0.1, 1e-3]}": "for a text: write 1.0e-3",
    "- {network: S8Net46k, lr: 2.5E3}": "for a text: write 2.5e+3",
    "- {network: S8Net46k, options: {dropout: 1e-1}}": "for a text: write 1.0e-1",
    "- {network: S8Net46k, norm: no}": "unknown norm False, expected one of batch, layer, group, none",
    "- {network: S8Net46k, norm: [batch, off]}": "YAML takes no and off for False",
    "- {network: S8Net46k, epochs: 2.5}": "epochs is 2.5, expected a whole number",
    "- {network: S8Net46k, batch_size: '8'}": "batch_size is '8', expected a whole number",
    "- {network: S8Net46, epochs: 2}": "unknown network 'S8Net46', expected one of S8Net46k, ",
    "- {network: S8Net46k, options: {dropuot: 0.1}}": "has options {'dropuot': 0.1}, expected a mapping of some",
    "- {network: S8Net46k, options: {num_classes: 5}}": "expected a mapping of some of num_groups, dropout",
    "- {network: S8Net46k, options: {dropout: 3}}": "dropout",
    "- {network: S8Net46k, norm: group, options: {num_groups: 7}}": "num_groups is 7, expected a divisor",
    "- {network: S8Net46k, augment: random_hflip}": "augment is 'random_hflip', expected a mapping",
    "- {network: S8Net46k, augment: {hflip: {}}}": "unknown augmentation 'hflip', expected one of random_crop",
    "- {network: S8Net46k, augment: {random_hflip: }}": "has options None, expected a mapping",
    "- {network: S8Net46k, augment: {random_hflip: {q: 1}}}": "expected a mapping of some of p",
    "- {network: S8Net46k, augment: {random_hflip: {p: 2}}}": "p is 2, expected a probability",
    "- {network: S8Net46k, augment: {random_crop: {padding: 40, padding_mode: reflect}}}": "padding is 40",
}


@pytest.mark.parametrize("text", NO_JOBS)
def test_file_that_is_no_list_of_jobs(tmp_path, text):
    file = write_jobs(tmp_path, text)
    with pytest.raises(ValueError) as error:
        read_jobs(file)
    assert str(file) in str(error.value) and NO_JOBS[text] in str(error.value)


CHANGED = dict(network="S9Net85k", norm="group", seed=1, batch_size=64, options={"dropout": 0.1}, held_out=5)
CHANGED |= dict(follow=True)
CHANGED |= dict(augment={"random_crop": {"padding": 2}, "random_hflip": {}}, epochs=7, lr=0.2, momentum=0.5)
CHANGED |= dict(nesterov=False, weight_decay=0.0, schedule="step", warmup=0.1, step_size=3, gamma=0.5)
CHANGED |= dict(label_smoothing=0.1, precision="fp32", optimizer="muon", muon_lr=0.1)
CHANGED |= dict(muon_weight_decay=0.1, small_epochs=2, small_size=16)
FIELDS = [field.name for kind in (Job, Recipe) for field in fields(kind) if field.name != "recipe"]


DEFAULT = Job("S8Net46k")


def with_field(name: str, value) -> Job:
    if hasattr(DEFAULT, name):
        return replace(DEFAULT, **{name: value})
    return replace(DEFAULT, recipe=replace(DEFAULT.recipe, **{name: value}))


@pytest.mark.parametrize("name", FIELDS)
def test_another_name_for_another_job(name):
    names = {with_field(other, CHANGED[other]).name for other in FIELDS if other != name}
    job = with_field(name, CHANGED[name])
    assert job.name not in names | {DEFAULT.name}
    assert job.name.startswith(f"{job.network}-{job.norm}-{job.recipe.epochs}ep-seed{job.seed}-")


@pytest.mark.parametrize("name", FIELDS)
def test_same_name_for_a_default_that_is_spelled_out(name):
    value = getattr(DEFAULT if hasattr(DEFAULT, name) else DEFAULT.recipe, name)
    job = with_field(name, copy.deepcopy(value))
    assert job == DEFAULT and job.name == DEFAULT.name
    assert job.name.endswith(hashlib.sha256(b"[]").hexdigest()[:8])  # hence a field that is added later renames nothing


def test_order_of_the_augmentation_counts_for_the_name():
    steps = [{"random_crop": {"padding": 4}}, {"random_hflip": {}}, {"random_cutout": {"size": 8}}]
    orders = [(0, 1), (1, 0), (0, 1, 2), (2, 1, 0)]
    names = {Job("S8Net46k", augment={k: v for i in order for k, v in steps[i].items()}).name for order in orders}
    assert len(names) == len(orders)


# What a job does


def test_augmentation_is_its_functions_in_order(image_sets):
    images, (first, second) = image_sets[0].images, (torch.Generator().manual_seed(3) for _ in range(2))
    apply = augmentation({"random_cutout": {"size": 6, "p": 0.9}, "random_crop": {}, "random_hflip": {"p": 0.3}})
    for _ in range(2):  # the generator goes on
        expected = random_crop(random_cutout(images, first, size=6, p=0.9), first)
        assert torch.equal(apply(images, second), random_hflip(expected, first, p=0.3))
    assert torch.equal(augmentation({})(images, second), images)


@pytest.mark.parametrize("name", ["random_nothing", "hflip_at", "torch"])
def test_unknown_augmentation(name):
    with pytest.raises(ValueError, match=f"unknown augmentation '{name}', expected one of ") as error:
        augmentation({"random_hflip": {}, name: {}})
    assert {"random_crop", "random_hflip", "random_cutout", "random_affine"} <= set(
        str(error.value).replace(",", "").split()
    )


RUNS = [
    small(),
    small(seed=3, norm="group", recipe=Recipe(epochs=2, precision="bf16")),  # judged in float32 all the same
    small(follow=True),
    small(held_out=10, follow=True),
    small(held_out=10, seed=3, recipe=Recipe(epochs=2, precision="bf16")),  # the same ten images
]


@pytest.mark.parametrize("job", RUNS, ids=lambda job: job.name)
def test_record_is_that_of_the_run_by_hand(image_sets, tmp_path, job):
    train, test = image_sets
    if job.held_out:
        image_sets[1] = None  # whoever looks at the test images stumbles
    name = run_job(job, "noise", tmp_path)
    run, weights = read_run(tmp_path / f"{name}.json"), tmp_path / f"{name}.safetensors"
    history, model, (loss, accuracy) = by_hand(job, train, test)
    found = [(run.val_loss, run.val_accuracy), (run.test_loss, run.test_accuracy)]
    assert name == job.name and (run.job, run.history) == (job, history)
    assert found == ([(loss, accuracy), (None, None)] if job.held_out else [(None, None), (loss, accuracy)])
    assert (run.train_images, run.num_classes, run.data) == (24 - job.held_out, 10, "noise")
    if job.held_out:
        assert not weights.exists() and run.weights_sha256 is None
    else:
        shipped = from_safetensors(weights.read_bytes())
        assert {value.dtype for value in shipped.values() if value.is_floating_point()} == {torch.float16}
        shipped = {name: value.to(model.state_dict()[name].dtype) for name, value in shipped.items()}
        torch.testing.assert_close(shipped, dict(model.state_dict()), rtol=0, atol=0)
        assert run.weights_sha256 == hashlib.sha256(weights.read_bytes()).hexdigest()
    assert [path for path in tmp_path.rglob("*") if path.suffix in (".checkpoint", ".part")] == []


@pytest.mark.parametrize("held_out", [0, 10])
def test_run_that_diverges(image_sets, tmp_path, held_out):
    job = small(norm="none", held_out=held_out, recipe=Recipe(epochs=3, lr=1e9, schedule="constant", precision="fp32"))
    if not held_out:
        with pytest.raises(FloatingPointError, match="not finite"):
            run_job(job, "noise", tmp_path)
        assert load_runs(tmp_path) == [] and list(tmp_path.glob("*.*")) == []
        return
    run = read_run(tmp_path / f"{run_job(job, 'noise', tmp_path)}.json")  # in a search that is a result
    assert (run.val_accuracy, run.val_loss, run.epochs) == (None, None, 0)
    assert "not finite" in run.diverged
    assert run_job(job, "noise", tmp_path) == job.name


def test_finished_job_is_left_alone(image_sets, tmp_path):
    def state() -> dict:
        return {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in tmp_path.rglob("*.*")}

    name, before = run_job(small(), "noise", tmp_path), state()
    image_sets.clear()  # nothing to train on any more
    assert run_job(small(), "noise", tmp_path) == name and len(before) == 2 and state() == before


def test_result_of_another_default(image_sets, tmp_path, monkeypatch):
    run_job(small(), "noise", tmp_path)
    monkeypatch.setattr(run_module, "CROP_AND_FLIP", {"random_hflip": {}})
    with pytest.raises(ValueError, match=rf"{small().name}.json was made by .*: a default has changed since"):
        run_job(small(), "noise", tmp_path)


@pytest.mark.parametrize("error, message", [(MemoryError("killed"), "killed"), (KeyboardInterrupt(), "in epoch 3")])
@pytest.mark.parametrize("held_out", [0, 8])
def test_killed_job_goes_on(image_sets, tmp_path, monkeypatch, error, message, held_out):
    job, calls, flip = small(held_out=held_out), [], augment.random_hflip
    steps = 3 if held_out == 0 else 2  # per epoch

    def counted(images, generator):
        calls.append(len(images))
        if len(calls) == 2 * steps + 2:
            raise error
        return flip(images, generator)

    run_job(job, "noise", tmp_path / "at once")
    monkeypatch.setattr(augment, "random_hflip", counted)
    with pytest.raises((MemoryError, RuntimeError), match=message):
        run_job(job, "noise", tmp_path)
    assert [path.name for path in tmp_path.glob("*.*")] == []
    assert [path.name for path in (tmp_path / "unfinished").iterdir()] == [f"{job.name}.checkpoint"]
    calls[:] = [0] * 100
    run_job(job, "noise", tmp_path)
    assert len(calls) == 100 + steps  # the third epoch alone
    expected, found = (read_run(folder / f"{job.name}.json") for folder in (tmp_path / "at once", tmp_path))
    assert found == expected and found.history.environment == expected.history.environment  # seconds are not compared
    assert list((tmp_path / "unfinished").iterdir()) == []


def test_same_job_twice_at_once(image_sets, tmp_path, monkeypatch):
    """As when somebody starts a study in two places: the second to finish is not a failure."""

    def overtaken(*args, **options):
        monkeypatch.setattr(study, "evaluate", evaluate)
        run_job(small(), "noise", tmp_path)
        return evaluate(*args, **options)

    monkeypatch.setattr(study, "evaluate", overtaken)
    assert run_job(small(), "noise", tmp_path) == small().name
    assert len(load_runs(tmp_path)) == 1


# Many jobs


def test_failing_job_does_not_stop_the_others(image_sets, tmp_path, capsys):
    bad, good = small(batch_size=99), [small(), small(seed=1)]
    for _ in range(2):  # the second time, what is there already
        with ThreadPoolExecutor(1) as executor:
            failed = run_study([good[0], bad, good[1]], "noise", tmp_path, executor)
        assert failed.keys() == {bad.name} and "batch_size is 99" in str(failed[bad.name])
        assert sorted(run.job.name for run in load_runs(tmp_path)) == sorted(job.name for job in good)
        lines = capsys.readouterr().out.splitlines()
        assert [line.split()[0] for line in lines] == ["1/3", "2/3", "3/3"]
        assert sorted(line.partition(" ")[2].partition(", ")[0] for line in lines) == sorted(
            [*(f"{job.name}: done" for job in good), f"{bad.name}: FAILED"]
        )
