"""Every figure shows the data it was given, and leaves nothing open behind."""

from pathlib import Path

import matplotlib
import pandas as pd
import pytest
import torch
from matplotlib import pyplot as plt
from matplotlib.figure import Figure

from course_utils.analysis import plotting
from course_utils.analysis.predictions import Predictions
from course_utils.data import ImageSet
from course_utils.data.augment import random_crop, random_hflip
from course_utils.training import History, Metrics, Recipe

matplotlib.use("Agg")

CLASSES = ("cat", "dog", "frog")
LABELS = torch.tensor([0, 0, 0, 1, 1, 2])
IMAGES = torch.arange(6 * 3 * 4 * 4).reshape(6, 3, 4, 4).to(torch.uint8)
IMAGE_SET = ImageSet(IMAGES, LABELS, CLASSES, "pets", torch.zeros(3), torch.ones(3))


@pytest.fixture(autouse=True)
def nothing_shown_or_left_open(monkeypatch):
    for owner in (plt, Figure):
        monkeypatch.setattr(owner, "show", lambda *args, **options: pytest.fail("show() was called"))
    yield
    left_open = plt.get_fignums()
    plt.close("all")
    assert left_open == []


def drawn(figure: Figure) -> list:
    """The visible panels, once the figure could be rendered."""
    assert isinstance(figure, Figure)
    figure.canvas.draw()
    return [ax for ax in figure.axes if ax.get_visible()]


def pixels(axes) -> torch.Tensor:
    """The one picture in each panel, N×3×H×W."""
    return torch.stack([torch.as_tensor(ax.images[0].get_array().copy()).permute(2, 0, 1) for ax in axes])


def texts(artists) -> list[str]:
    return [artist.get_text() for artist in artists]


@pytest.mark.parametrize("n, columns, places", [(6, 4, (2, 4)), (3, 10, (1, 3)), (1, 10, (1, 1))])
def test_images(n, columns, places):
    axes = drawn(plotting.plot_images(IMAGES[:n], "abcdef"[:n], columns))
    assert axes[0].get_subplotspec().get_gridspec().get_geometry() == places
    assert [ax.get_title() for ax in axes] == list("abcdef"[:n])
    assert torch.equal(pixels(axes), IMAGES[:n])


def test_images_stand_in_rows_of_ten():
    axes = drawn(plotting.plot_images(IMAGES[[0] * 11]))
    assert axes[0].get_subplotspec().get_gridspec().get_geometry() == (2, 10)


@pytest.mark.parametrize("titles", [range(6), LABELS.numpy(), [Path(str(i)) for i in range(6)]])
def test_titles_that_are_no_texts(titles):
    axes = drawn(plotting.plot_images(IMAGES, titles))
    assert [ax.get_title() for ax in axes] == [str(title) for title in titles]


@pytest.mark.parametrize("side", [28, 48, 64])
def test_images_of_another_size(side):
    images = torch.randint(0, 256, (6, 3, side, side), dtype=torch.uint8)
    assert torch.equal(pixels(drawn(plotting.plot_images(images))), images)
    image_set = ImageSet(images, LABELS, CLASSES, "pets", torch.zeros(3), torch.ones(3))
    wrong = Predictions(LABELS, torch.eye(3)[LABELS.roll(3)])
    assert torch.equal(pixels(drawn(plotting.plot_misclassified(image_set, wrong))), images[wrong.misclassified])
    drawn(plotting.plot_maps(images[:2], torch.rand(2, 5, 5), ["one", "two"]))


@pytest.mark.parametrize("change", [lambda images: images / 255, lambda images: images[:, 0], lambda images: None])
def test_other_images_are_refused(change):
    with pytest.raises(ValueError, match=r"^images: .*expected torch\.uint8"):
        plotting.plot_images(change(IMAGES))
    with pytest.raises(ValueError, match=r"^what augmentation 'mine' returns: .*expected torch\.uint8"):
        plotting.plot_augmentations(IMAGES, {"mine": lambda images, generator: change(images)}, None)


def test_augmentations():
    generators = [torch.Generator().manual_seed(3) for _ in range(2)]
    augmentations = {"crop": random_crop, "flip": random_hflip}
    axes = drawn(plotting.plot_augmentations(IMAGES, augmentations, generators[0], draws=5))
    for row, (name, augment) in enumerate(augmentations.items()):
        panels = axes[6 * row : 6 * row + 6]
        assert panels[0].get_ylabel() == name
        copies = augment(IMAGES[[row] * 5], generators[1])
        assert torch.equal(pixels(panels), torch.cat([IMAGES[[row]], copies]))


def make_history(epochs: int, validation: bool = True) -> History:
    figures = [(2 / e, 0.2 * e, *((1.5 / e, 0.25 * e) if validation else (None, None))) for e in range(1, epochs + 1)]
    return History(Recipe(), [Metrics(e, *row, lr=0.1, seconds=1.0) for e, row in enumerate(figures, 1)])


@pytest.mark.parametrize("validation", [True, False])
@pytest.mark.parametrize("epochs", [1, 3])
def test_one_history(epochs, validation):
    axes = drawn(plotting.plot_histories({"run": make_history(epochs, validation)}))
    numbers = range(1, epochs + 1)
    expected = [
        [[2 / e for e in numbers], [1.5 / e for e in numbers]],
        [[20 * e for e in numbers], [25 * e for e in numbers]],
    ]
    for ax, lines in zip(axes, expected, strict=True):
        assert [line.get_label() for line in ax.get_lines()] == ["run, train", "run, validation"][: 1 + validation]
        for line, values in zip(ax.get_lines(), lines, strict=False):
            assert list(line.get_xdata()) == list(numbers) and list(line.get_ydata()) == pytest.approx(values)
    labels = [(ax.get_xlabel(), ax.get_ylabel()) for ax in axes]
    assert labels == [("epoch", "loss (nats)"), ("epoch", "accuracy (%)")]


def test_several_histories_differ_in_colour_and_marker():
    figure = plotting.plot_histories({name: make_history(2) for name in "abcd"})
    for ax in drawn(figure):
        looks = [(line.get_color(), line.get_marker()) for line in ax.get_lines()]
        assert looks[::2] == looks[1::2]  # training and validation differ in the dashes
        assert [len(set(look)) for look in zip(*looks, strict=True)] == [4, 4]
        assert [line.get_linestyle() for line in ax.get_lines()] == ["--", "-"] * 4
    labels = [f"{name}, {part}" for name in "abcd" for part in ("train", "validation")]
    assert texts(figure.legends[0].get_texts()) == labels


def test_names_that_begin_with_an_underscore_stay_in_the_legend():
    figure = plotting.plot_histories({"_a": make_history(2), 3: make_history(2)})
    drawn(figure)
    labels = [f"{name}, {part}" for name in ("_a", 3) for part in ("train", "validation")]
    assert texts(figure.legends[0].get_texts()) == labels


@pytest.mark.parametrize("n", [1, 2, 10])
def test_misclassified(n):
    rows = [[1, 0, 0], [0.3, 0.7, 0], [0, 0, 1], [0, 1, 0], [0.6, 0.4, 0], [0, 0, 1]]
    axes = drawn(plotting.plot_misclassified(IMAGE_SET, Predictions(LABELS, torch.tensor(rows)), n))
    titles = ["cat, taken for\nfrog (>99.9 %)", "cat, taken for\ndog (70.0 %)", "dog, taken for\ncat (60.0 %)"]
    assert [ax.get_title() for ax in axes] == titles[:n]
    assert torch.equal(pixels(axes), IMAGES[[2, 1, 4]][:n])


@pytest.mark.parametrize("order", [[5, 4, 3, 2, 1, 0], [0, 1, 2]])
def test_predictions_of_other_images_are_refused(order):
    rows = torch.eye(3)[LABELS.roll(1)]
    with pytest.raises(ValueError, match="predictions have other labels than the images, expected the same ones in"):
        plotting.plot_misclassified(IMAGE_SET, Predictions(LABELS[order], rows[order]))


def test_nothing_misclassified():
    (ax,) = drawn(plotting.plot_misclassified(IMAGE_SET, Predictions(LABELS, torch.eye(3)[LABELS])))
    assert texts(ax.texts) == ["no image is misclassified"] and not ax.images
    assert ax.texts[0].get_position() == (0.5, 0.5)  # of the axes, so in the middle of the figure
    assert (ax.get_xlim(), ax.get_ylim()) == ((0, 1), (0, 1))


def test_maps():
    maps = torch.arange(2 * 2 * 2.0).reshape(2, 2, 2)
    axes = drawn(plotting.plot_maps(IMAGES[:2], maps, ["one", "two"]))
    assert [ax.get_title() for ax in axes] == ["one", "two", "", ""]
    assert torch.equal(pixels(axes[:2]), IMAGES[:2])
    for ax, heat in zip(axes[2:], maps, strict=True):
        (below,) = ax.images
        assert torch.equal(torch.from_numpy(below.get_array().data), heat)
        assert below.get_clim() == (heat.min(), heat.max())  # each has its own scale


def test_confusion():
    ax, bar = drawn(plotting.plot_confusion(torch.tensor([[3, 1, 0], [0, 2, 6], [0, 0, 0]]), CLASSES, "pets"))
    mistakes, right = ax.collections
    percent = [[75, 25, 0], [0, 25, 75], [0, 0, 0]]  # a class without images has an empty row
    diagonal = torch.eye(3, dtype=torch.bool)
    for mesh, hidden in ((mistakes, diagonal), (right, ~diagonal)):
        shown = mesh.get_array()
        assert torch.equal(torch.tensor(shown.mask).view(3, 3), hidden) and (shown.data == torch.tensor(percent)).all()
    assert mistakes.get_clim() == (0, 75)  # of the mistakes alone
    assert sorted(texts(ax.texts)) == sorted(str(p) for row in percent for p in row)
    assert texts(ax.get_xticklabels()) == texts(ax.get_yticklabels()) == list(CLASSES)
    assert {label.get_rotation() for label in ax.get_yticklabels()} == {0}
    assert (ax.get_xlabel(), ax.get_ylabel(), ax.get_title()) == ("predicted class", "true class", "pets")
    assert bar.get_ylabel() == "mistakes, % of the true class"


def test_receptive_field():
    gradient = torch.zeros(32, 40)
    gradient[10:17, 4:11] = 0.02
    gradient[13, 7] = 2
    sides = {"first": 7, "second": 9}
    *axes, bar = drawn(plotting.plot_receptive_field({"first": gradient, "second": gradient.T}, sides))
    for ax, (name, side), center in zip(axes, sides.items(), [(7, 13), (13, 7)], strict=True):
        (square,) = ax.patches
        assert (square.get_width(), square.get_height(), tuple(square.get_center())) == (side, side, center)
        shares = torch.as_tensor(ax.images[0].get_array())  # powers of ten, cut off at 1/10,000
        assert shares[center[::-1]] == 0 and shares.unique().tolist() == pytest.approx([-4, -2, 0])
        assert ax.get_title() == f"{name}: {side} pixels"
        height, width = shares.shape
        assert (ax.get_xlim(), ax.get_ylim()) == ((-0.5, width - 0.5), (height - 0.5, -0.5))  # the whole picture
    assert bar.get_ylabel() == "gradient, share of the largest"


def test_no_seeds():
    (ax,) = plotting.plot_seeds(pd.DataFrame(columns=["group", "accuracy"]), {}).axes
    assert [text.get_text() for text in ax.texts] == ["no runs"]


def test_dots_of_seeds_stand_where_they_stood():  # so that a figure can be compared with another
    runs = pd.DataFrame({"group": ["a"] * 4, "accuracy": [80.0, 80.01, 80.02, 83.0]})
    figures = [plotting.plot_seeds(runs, {}) for _ in range(2)]
    for figure in figures:
        figure.canvas.draw()
    first, second = (figure.axes[0].collections[0].get_offsets().tolist() for figure in figures)
    assert first == second and len({x for x, _ in first}) >= 3  # side by side, where they would hide one another


def test_colours_of_seeds():
    runs = pd.DataFrame({"group": ["a", "b", "c"], "norm": ["batch", "layer", "batch"], "accuracy": [80.0, 82.0, 79.0]})
    (ax,) = plotting.plot_seeds(runs, {}, hue="norm").axes
    first, second, third = (tuple(dots.get_facecolor()[0]) for dots in ax.collections[:3])
    assert first == third != second


def test_seeds():
    runs = pd.DataFrame({"group": ["batch", "batch", "layer"], "accuracy": [80.0, 82.0, 79.0]})
    figure = plotting.plot_seeds(runs, {"layer": 78.5})
    figure.canvas.draw()
    (ax,) = figure.axes
    dots = sorted(
        y for dots in ax.collections for _, y in getattr(dots, "get_offsets", list)() if len(dots.get_offsets())
    )
    assert {80.0, 82.0, 79.0} <= set(dots)
    paths = [path.vertices for each in ax.collections if hasattr(each, "get_segments") for path in each.get_paths()]
    lines = sorted((path[0][1], path[:, 0].mean().item()) for path in paths)  # where they stand: y and the middle
    assert lines == [(78.5, 1), (79.0, 1), (81.0, 0)]
    assert [text.get_text() for text in ax.get_legend().texts] == ["mean", "published"]


def test_no_images():
    (ax,) = drawn(plotting.plot_images(IMAGES[[]], []))
    assert texts(ax.texts) == ["no images"] and not ax.images


def test_nothing_to_draw():
    with pytest.raises(ValueError, match="nothing to draw"):
        plotting.plot_maps(IMAGES[[]], torch.zeros(0, 2, 2), [])
