"""`Lesson`: what it loads, trains and reads from records, and what it shows of that."""

import ast
import json
import re
from dataclasses import replace
from functools import partial
from itertools import product
from pathlib import Path

import nbformat
import numpy as np
import pytest
import torch
from PIL import Image

from course_utils.data import BatchLoader, load_images, split
from course_utils.data.augment import random_crop, random_hflip
from course_utils.data.shapes import make_shapes
from course_utils.device import seed_everything
from course_utils.networks import NETWORKS, S8Net46k, make_network
from course_utils.runs import lesson as lesson_module
from course_utils.runs.lesson import MIME, Lesson
from course_utils.runs.lesson_checks import check_images
from course_utils.runs.reference import SESSIONS, load_lesson, load_reference
from course_utils.runs.run import Run, write_record
from course_utils.training import History, Recipe, evaluate, fit

NOTEBOOKS = Path(__file__).resolve().parents[2] / "notebooks"
KNOBS = dict(dataset="shapes", run="train", epochs=5, batch_size=16, seed=3, train_size=400)
RECIPE = Recipe(epochs=5, lr=0.05, precision="fp32")


def plain(images, generator):
    return images


def started(networks=("S8Net31k",), session="S8", **knobs) -> Lesson:
    """A lesson whose images are loaded."""
    lesson = Lesson(session, list(networks), **KNOBS | knobs)
    lesson.load()
    return lesson


@pytest.fixture(autouse=True, scope="module")
def drawn_once(shapes):
    """Lessons on shapes take those of the fixture: to draw 12,000 images anew takes a second each time."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lesson_module, "load_images", lambda name: shapes if name == "shapes" else load_images(name))
        yield


@pytest.fixture
def short(monkeypatch):
    """Trainings of an epoch where five are asked for, which is all that these tests need."""
    monkeypatch.setattr(lesson_module, "fit", lambda *args, **options: fit(*args[:3], Recipe(**ONE), **options))


ONE = dict(epochs=1, lr=0.05, precision="fp32")


@pytest.fixture(scope="module")
def recorded(tmp_path_factory) -> tuple[Path, Lesson]:
    """A lesson that has trained, tested and studied, and the folder with its record."""
    folder = tmp_path_factory.mktemp("sessions")
    lesson = started(epochs=1)
    models = {"batch": lesson.train("batch", "S8Net31k", Recipe(**ONE), random_hflip)}
    lesson.study("layer", partial(make_network, "S8Net31k", norm="layer"), Recipe(**ONE), plain, batch_size=8)
    lesson.test(models)
    write_record(folder / "S8.json", lesson.to_dict())
    return folder, lesson


def test_images_are_drawn_by_the_seed(shapes, capsys):
    train, val, test = Lesson("S8", ["S8Net31k"], **KNOBS).load()
    generator = torch.Generator().manual_seed(3)
    expected = split(split(shapes[0], 400, generator)[1], 40, generator)
    assert torch.equal(train.images, expected[0].images) and torch.equal(val.images, expected[1].images)
    assert torch.equal(test.images, shapes[1].images)
    assert "shapes: 360 images to train on, 40 to validate on, 2,000 to test on" in capsys.readouterr().out


@pytest.mark.parametrize("size, seen", [(None, 9000), (10_000, 9000), (10, 9)])
def test_train_size_at_its_ends(size, seen):
    assert len(Lesson("S8", ["S8Net31k"], **KNOBS | dict(train_size=size, batch_size=9)).load()[0]) == seen


IMPOSSIBLE = {
    "epochs": (["2", 2.5, 0, -1, True, None], "a whole number of at least 1"),
    "batch_size": (
        ["32", 2.5, 0, -4, True, None, 361, 2**40],
        "a whole number (of at least 1|from 1 to 360, the number of images to)",
    ),
    "seed": (["1", 0.5, -1, 2**70, True, None], f"a whole number from 0 to {2**63 - 1}"),
    "train_size": (
        [9, 0, -1, 10_001, 0.1, 300.0, "300", True],
        "a whole number from 10 to 10000, or None for all",
    ),
    "run": ([None, "refernce", True, ["train"]], "one of train, reference, recorded"),
    "dataset": (["shape", "", 5], "'cifar10', 'shapes' or an existing folder"),
    "checkpoints": ([5, True], "'drive', a folder or None"),
}


@pytest.mark.parametrize("name, value", [(name, value) for name, (values, _) in IMPOSSIBLE.items() for value in values])
def test_knobs_that_cannot_be(name, value, nothing_trains):
    known_as = {"dataset": "unknown data set ", "run": "unknown run "}.get(name, f"{name} is ")
    with pytest.raises(ValueError, match=rf"^{known_as}{re.escape(repr(value))}, expected {IMPOSSIBLE[name][1]}"):
        started(**{name: value})


LEGAL = [dict(epochs=1, seed=0, batch_size=90, train_size=100), dict(epochs=10**6, seed=2**63 - 1, train_size=100)]
LEGAL += [dict(batch_size=np.int64(1), epochs=np.int32(2), seed=np.uint8(3), train_size=np.int64(10))]


@pytest.mark.parametrize("knobs", LEGAL, ids=str)
def test_knobs_at_their_ends(knobs, short, tmp_path):
    lesson = started(checkpoints=tmp_path, **knobs)
    lesson.train("a", "S8Net31k", Recipe(**ONE), random_hflip)
    lesson.study("b", partial(make_network, "S8Net31k"), Recipe(**ONE), plain, batch_size=512)
    assert json.loads(json.dumps(lesson.to_dict()))["parameters"] == KNOBS | knobs | dict(networks=["S8Net31k"])


def write_images(folder: Path, classes: int, side: int, mode: str = "RGB", per_class: int = 12) -> str:
    """Drawn shapes, of another size and kind."""
    images, labels = make_shapes(10 * per_class, seed=0)
    for label in range(classes):
        for part in ("train", "test"):
            (folder / part / str(label)).mkdir(parents=True)
            for index in (labels == label).nonzero().flatten().tolist():
                image = Image.fromarray(images[index].permute(1, 2, 0).numpy()).resize((side, side)).convert(mode)
                image.save(folder / part / str(label) / f"{index}.png")
    return str(folder)


@pytest.mark.parametrize("classes, side, mode", [(2, 28, "L"), (3, 32, "RGB"), (3, 48, "RGB"), (10, 64, "L")])
def test_any_folder_of_images(classes, side, mode, short, tmp_path, monkeypatch):
    monkeypatch.setenv("COURSE_DATA", str(tmp_path))
    knobs = dict(dataset=write_images(tmp_path / "pets", classes, side, mode), train_size=None, batch_size=8)
    lesson = started(["S8Net46k"], **knobs)
    lesson.print_minutes(make_network("S8Net46k"), trainings=1, studies=1)
    model = lesson.train("a", "S8Net46k", RECIPE, random_crop)
    makes = [partial(make_network, "S8Net46k"), S8Net46k, partial(S8Net46k, dropout=0.1)]
    makes += [lambda: make_network("S8Net46k", num_classes=classes)]
    for index, make in enumerate(makes):
        lesson.study(str(index), make, RECIPE, plain)
        assert lesson.studies[str(index)].num_classes == classes
    assert lesson.test({"a": model})["a"].probabilities.shape == (12 * classes, classes)
    assert lesson.to_dict()["runs"]["a"]["num_classes"] == classes


FITS = {(name, side): True for name in NETWORKS for side in (28, 32, 48, 64)}
FITS |= {("S8Net31k", 28): False, ("S8Net38k", 28): False}
FITS |= {(name, 64): False for name in ("S8Net31k", "S8Net38k", "S9Net85k")}


@pytest.mark.parametrize("name, side", FITS)
def test_images_fit_a_network_or_the_part_is_named(name, side):
    images, state = torch.rand(2, 3, side, side), torch.get_rng_state()
    try:
        fits = make_network(name).eval()(images).shape == (2, 10)
    except RuntimeError:
        fits = False
    assert fits == FITS[name, side]
    torch.set_rng_state(state)
    if fits:
        check_images([name], images)
    else:
        with pytest.raises(
            ValueError, match=f"images of {side}×{side} pixels do not fit {name}: its classifier cannot .*"
        ):
            check_images([name], images)
    assert torch.equal(torch.get_rng_state(), state)


def test_images_that_are_too_small_for_the_features():
    with pytest.raises(ValueError, match="images of 8×8 pixels do not fit S8Net46k: its features cannot make one"):
        check_images(["S8Net46k"], torch.zeros(4, 3, 8, 8, dtype=torch.uint8))


def test_images_that_do_not_fit_are_refused_before_a_training(tmp_path, monkeypatch, nothing_trains):
    monkeypatch.setenv("COURSE_DATA", str(tmp_path))
    knobs = dict(dataset=write_images(tmp_path / "pets", 2, 28), train_size=None, batch_size=8)
    with pytest.raises(ValueError, match=r"do not fit S8Net38k: its classifier cannot make one position of 6×6"):
        started(["S8Net46k"], also=("S8Skeleton", "S8Net38k"), **knobs)


def test_a_handful_of_images_is_too_few(tmp_path, monkeypatch):
    monkeypatch.setenv("COURSE_DATA", str(tmp_path))
    few = write_images(tmp_path / "pets", 3, 32, per_class=3)
    with pytest.raises(ValueError, match=r"number of training images in pets is 9, expected a number of at least 10"):
        started(dataset=few, train_size=None)


@pytest.mark.parametrize("name", ["S8Net31k", "S9Net85k"])
def test_networks_that_a_session_cannot_use(name):
    """Those whose channels do not divide into as many groups as its cells ask for."""
    expected = f"network is '{name}', expected one of S8Net46k, S8Net38k, S9Net180k: .* 16 groups"
    with pytest.raises(ValueError, match=expected):
        Lesson("S8", [name], **KNOBS, most_groups=16)
    assert Lesson("S8", [name], **KNOBS).networks == [name]


@pytest.mark.parametrize("name", ["S8Net", None, S8Net46k, ["S8Net46k"]])
def test_what_is_no_network(name):
    with pytest.raises(ValueError, match=f"unknown network {re.escape(repr(name))}, expected one of S8Net46k"):
        Lesson("S8", [name], **KNOBS)


def test_training_is_that_written_out():
    lesson, recipe = started(), replace(RECIPE, epochs=2)
    model = lesson.train("a", "S8Net31k", recipe, random_hflip, norm="layer")
    generator = seed_everything(3)
    expected = make_network("S8Net31k", norm="layer")
    batches = BatchLoader(lesson._train, 16, shuffle=True, augment=random_hflip, generator=generator)
    history = fit(expected, batches, lesson._val_batches, recipe, verbose=False)
    torch.testing.assert_close(model.state_dict(), expected.state_dict(), rtol=0, atol=0)
    run = lesson.runs["a"]
    assert run.history == history and lesson.histories == {"a": history}
    assert (run.job.network, run.job.norm, run.job.seed, run.job.batch_size) == ("S8Net31k", "layer", 3, 16)
    assert (run.data, run.train_images, run.num_classes, run.job.held_out) == ("shapes", 360, 10, 40)
    assert (run.val_accuracy, run.test_accuracy) == (history.metrics[-1].val_accuracy, None)
    predictions = lesson.test({"a": model})
    _, accuracy = evaluate(model, BatchLoader(lesson._test, 1000))
    assert predictions["a"].accuracy == lesson.runs["a"].test_accuracy == pytest.approx(accuracy)


def test_study_is_half_of_the_epochs_on_a_quarter_of_the_images():
    lesson = started()
    history = lesson.study("small", partial(make_network, "S8Net31k", norm="group"), RECIPE, plain, batch_size=8)
    run = lesson.studies["small"]
    assert (run.train_images, run.job.batch_size, run.job.norm, run.epochs) == (90, 8, "group", 2)
    assert history.recipe.lr == RECIPE.lr / 2 and run.history is history
    assert lesson.study("whole", partial(make_network, "S8Net31k"), RECIPE, plain, batch_size=512) is not None
    assert lesson.studies["whole"].job.batch_size == 90  # no more than there are


def test_a_study_that_diverges_is_a_result(capsys):
    lesson = started()
    history = lesson.study("far", partial(make_network, "S8Net31k", norm="none"), Recipe(**ONE | dict(lr=1e20)), plain)
    assert len(history) == 0 and "far: the loss was not finite at step" in capsys.readouterr().out
    run = lesson.studies["far"]
    assert "the loss was not finite" in run.diverged and run.val_accuracy is None
    assert Run.from_dict(json.loads(json.dumps(run.to_dict()))) == run


def test_a_study_that_is_interrupted_is_none():
    def stop(images, generator):
        raise KeyboardInterrupt

    lesson = started()
    with pytest.raises(KeyboardInterrupt, match="small: interrupted"):  # and not on to the next study of the cell
        lesson.study("small", partial(make_network, "S8Net31k"), RECIPE, stop)
    assert lesson.studies == {}


def test_a_training_that_is_interrupted_at_once_has_a_row(monkeypatch):
    monkeypatch.setattr("course_utils.runs.lesson.fit", lambda model, train, val, recipe, **options: History(recipe))
    lesson = started()
    lesson.train("a", "S8Net31k", RECIPE, plain)
    assert lesson.table().loc["a"].isna().all()


def test_another_augmentation_trains_anew(tmp_path, short, capsys):
    knobs = dict(checkpoints=str(tmp_path), train_size=40)
    for _ in range(2):
        started(**knobs).train("a", "S8Net31k", RECIPE, random_hflip)
    assert "resuming after epoch 1 of" in capsys.readouterr().out
    started(**knobs).train("a", "S8Net31k", RECIPE, plain)
    for change in (dict(seed=4), dict(train_size=30), dict(batch_size=8)):
        started(**knobs | change).train("a", "S8Net31k", RECIPE, plain)
    assert "resuming" not in capsys.readouterr().out
    assert len(list(tmp_path.glob("S8-a-5ep-*.checkpoint"))) == 5  # none was overwritten


def test_record_holds_what_was_run(recorded):
    folder, lesson = recorded
    bundle = lesson._repr_mimebundle_()
    assert bundle["text/plain"].startswith("trainings: 1, short studies: 1, together ")
    assert json.loads(json.dumps(bundle[MIME])) == bundle[MIME] == lesson.to_dict()
    assert bundle[MIME]["parameters"] == KNOBS | dict(epochs=1, networks=["S8Net31k"])
    assert load_lesson("S8", folder) == {"runs": lesson.runs, "studies": lesson.studies}
    with pytest.raises(ValueError, match="no record of the session 'S7', there are: S8"):
        load_lesson("S7", folder)


def test_table_is_in_per_cent(recorded):
    _, lesson = recorded
    run = lesson.runs["batch"]
    shares = [run.history.metrics[0].train_accuracy, run.val_accuracy, run.test_accuracy]
    row = lesson.table().loc["batch"]
    assert row.tolist() == pytest.approx([*(100 * share for share in shares), run.history.metrics[0].seconds])


@pytest.fixture
def nothing_trains(monkeypatch):
    def refuse(*args, **options):
        raise AssertionError("a network was trained")

    for module in (lesson_module, torch.optim.SGD):
        monkeypatch.setattr(module, "fit" if module is lesson_module else "step", refuse)
    monkeypatch.setattr(lesson_module, "minutes_to_train", refuse)


@pytest.fixture
def records(recorded, monkeypatch):
    monkeypatch.setattr(lesson_module, "load_lesson", partial(load_lesson, folder=recorded[0]))
    monkeypatch.setattr(lesson_module, "load_reference", lambda network: recorded[1].runs["batch"])


def test_recorded_runs_are_shown_as_they_were(recorded, records, nothing_trains, capsys):
    lesson, before = started(run="recorded"), recorded[1]
    lesson.print_minutes(make_network("S8Net31k"), trainings=1, studies=1)
    model = lesson.train("batch", "S8Net31k", RECIPE, plain)
    history = lesson.study("layer", partial(make_network, "S8Net31k"), RECIPE, plain)
    lesson.test({"batch": model})
    assert (lesson.runs, history) == (before.runs, before.studies["layer"].history)
    assert "about 1 min here" in capsys.readouterr().out
    with pytest.raises(ValueError, match="unknown recorded run of S8 'other', expected one of layer"):
        lesson.study("other", partial(make_network, "S8Net31k"), RECIPE, plain)


def test_later_draws_do_not_depend_on_the_mode(records):
    drawn = []
    for mode in ("train", "recorded"):
        lesson = started(run=mode)
        lesson.study("layer", partial(make_network, "S8Net31k"), Recipe(**ONE), plain)
        drawn.append(torch.rand(3).tolist())
    assert drawn[0] == drawn[1]


def test_reference_run_comes_from_its_record(recorded, records, nothing_trains, monkeypatch, capsys):
    lesson, run = started(run="reference"), recorded[1].runs["batch"]
    asked, model = [], make_network("S8Net31k")
    monkeypatch.setattr(lesson_module, "load_reference", lambda *args, **options: asked.append((args, options)) or run)
    monkeypatch.setattr(lesson_module, "reference_network", lambda run: model)
    assert lesson.train("a", "S8Net31k", RECIPE, plain, norm="group", reference_epochs=7) is model
    assert asked == [(("S8Net31k", "group"), dict(data="shapes", epochs=7))]
    lesson.print_minutes(model, trainings=1, studies=1)
    assert "recorded, nothing is trained" in capsys.readouterr().out
    lesson.test({"a": model})
    assert lesson.runs == {"a": run}  # with the recorded accuracy, whatever was measured here


@pytest.mark.parametrize("mode", ["reference", "recorded"])
def test_what_has_no_record_is_refused_before_anything_else(records, mode):
    with pytest.raises(ValueError, match=r"no recorded run of S8Net38k in S8, expected S8Net31k; with run = 'train'"):
        Lesson("S8", ["S8Net31k", "S8Net38k"], **KNOBS | dict(run=mode))


def test_data_set_without_a_record(noise_folder, records, monkeypatch):
    monkeypatch.setenv("COURSE_DATA", str(noise_folder.parent))
    lesson = Lesson("S8", ["S8Net31k"], **KNOBS | dict(run="reference", dataset=str(noise_folder)))
    with pytest.raises(ValueError, match=r"noise' is noise, and there are recorded runs on shapes alone: name"):
        lesson.load()


def test_another_copy_of_the_recorded_images_is_named(records, monkeypatch, shapes, capsys):
    copy = [lesson_module.replace(part, name="shapes (PNG)") for part in shapes]
    monkeypatch.setattr(lesson_module, "load_images", lambda dataset: copy)
    started(run="reference")
    assert "accuracies are on shapes; the images shown are shapes (PNG)" in capsys.readouterr().out


# What the committed notebooks offer


def choices(path: Path) -> list[dict]:
    """Every combination of data set, mode and network that the parameters cell offers, in its comments too."""
    (cell,) = (c for c in nbformat.read(path, as_version=4).cells if "parameters" in c.metadata.get("tags", []))
    networks = [name for name in ("S8Net46k", "S8Net38k") if name in cell.source] or [None]
    assert all(f'"{word}"' in cell.source for word in ("cifar10", "shapes", "train", "reference"))
    return [dict(zip(("dataset", "network"), each, strict=True)) for each in product(("cifar10", "shapes"), networks)]


CHOICES = [(path, choice) for path in sorted(NOTEBOOKS.glob("*.ipynb")) for choice in choices(path)]


@pytest.mark.parametrize("path, choice", CHOICES, ids=lambda value: str(getattr(value, "stem", value)))
def test_reference_mode_trains_nothing_or_says_what_there_is(path, choice, nothing_trains, monkeypatch, shapes):
    record = load_lesson(path.stem)
    recorded_networks = sorted({run.job.network for run in record["runs"].values()})
    cifar = load_reference(recorded_networks[0]).data
    images = {"cifar10": [lesson_module.replace(part, name=cifar) for part in shapes], "shapes": shapes}
    monkeypatch.setattr(lesson_module, "load_images", images.get)
    networks = [choice["network"]] if choice["network"] else recorded_networks
    knobs = dict(dataset=choice["dataset"], run="reference", epochs=20, batch_size=128, seed=0)
    if not set(networks) <= set(recorded_networks):
        with pytest.raises(ValueError, match=f"no recorded run of {networks[0]} .*expected {recorded_networks[0]}"):
            Lesson(path.stem, networks, **knobs)
        return
    lesson = Lesson(path.stem, networks, **knobs)
    if choice["dataset"] == "shapes":
        with pytest.raises(ValueError, match=r"dataset = 'shapes' is shapes, and there are recorded runs on CIFAR-10"):
            lesson.load()
        return
    lesson.load()
    for name in record["studies"]:
        assert lesson.study(name, partial(torch.nn.Linear, 2, 2), RECIPE, plain) == record["studies"][name].history
    for network, norm in {(run.job.network, run.job.norm) for run in record["runs"].values()}:
        lesson.train(norm, network, RECIPE, plain, norm=norm)
        assert isinstance(lesson.runs[norm], Run) and lesson.runs[norm].train_images == 50_000


@pytest.mark.parametrize("path", sorted(NOTEBOOKS.glob("*.ipynb")), ids=lambda path: path.stem)
def test_notebooks_declare_the_networks_they_train(path):
    """What a notebook trains in full is what its record holds."""
    assert (SESSIONS / f"{path.stem}.json").is_file()
    source = "\n".join(c.source for c in nbformat.read(path, as_version=4).cells if c.cell_type == "code")
    calls = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call)]
    (call,) = (node for node in calls if isinstance(node.func, ast.Name) and node.func.id == "Lesson")
    assert call.args[0].value == path.stem
