"""The built-in images: repeatable, varied, and neither too easy nor too hard to learn."""

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from course_utils.data import BatchLoader
from course_utils.data.augment import random_crop, random_hflip
from course_utils.data.shapes import SHAPE_CLASSES, make_shapes
from course_utils.device import seed_everything
from course_utils.networks import S8Net46k
from course_utils.training import Recipe, fit

ROOT = Path(__file__).resolve().parents[2]


def test_same_seed_same_images():
    (images, labels), (again, again_labels), (other, other_labels) = (make_shapes(600, seed) for seed in (3, 3, 4))
    assert torch.equal(images, again) and torch.equal(labels, again_labels)
    assert torch.equal(make_shapes(600)[0], make_shapes(600, seed=0)[0])
    assert not (images == other).all(dim=(1, 2, 3)).any() and not torch.equal(labels, other_labels)


@pytest.mark.parametrize("n", [1, 9, 25, 501])
def test_format_and_balance(n):
    images, labels = make_shapes(n)
    assert images.shape == (n, 3, 32, 32) and images.dtype == torch.uint8
    assert images.is_contiguous(memory_format=torch.channels_last)
    assert labels.shape == (n,) and labels.dtype == torch.int64
    counts = labels.bincount(minlength=10)
    assert len(counts) == len(SHAPE_CLASSES) == 10 and counts.max() - counts.min() <= 1
    assert n < 500 or (labels.diff() == 1).float().mean() < 0.2  # in random order: 0.9 for 0, 1, 2, …


@pytest.mark.parametrize("n", [0, -1])
def test_no_images_are_refused(n):
    with pytest.raises(ValueError, match=f"n is {n}, expected at least 1"):
        make_shapes(n)


def measure(images: Tensor) -> dict[str, Tensor]:
    """Per image: background and shape colour, centre and radius (pixels), direction (radians), noise."""
    pixels = images.permute(0, 2, 3, 1).float() / 255
    corners = pixels[:, [0, 0, -1, -1], [0, -1, 0, -1]]
    background = corners.mean(1)[:, None, None]
    mask = ((pixels - background).abs().mean(3) > 0.22).float()  # the shape is 0.3 to 0.5 away from the background
    area = mask.sum((1, 2)).clamp_min(1)
    at = torch.arange(32.0)
    x, y = (mask.sum(1) * at).sum(1) / area, (mask.sum(2) * at).sum(1) / area
    dx, dy = at[None, None, :] - x[:, None, None], at[None, :, None] - y[:, None, None]
    twice = torch.atan2(2 * (mask * dx * dy).sum((1, 2)), (mask * (dx**2 - dy**2)).sum((1, 2)))
    curvature = (pixels[:, :, 2:] - 2 * pixels[:, :, 1:-1] + pixels[:, :, :-2]).abs()
    return {
        "background": corners[:, 0],
        "gradient": (corners[:, 0] - corners[:, 3]),
        "color": (pixels * mask[..., None]).sum((1, 2)) / area[:, None],
        "x": x,
        "y": y,
        "radius": (area / torch.pi).sqrt(),
        "direction": twice / 2,
        "noise": curvature.flatten(1).median(1).values,
    }


def test_everything_but_the_shape_varies(shapes):
    train, _ = shapes
    for label, name in enumerate(train.classes):
        members = train.images[train.labels == label]
        assert members.float().std(0).min() > 40, name  # no pixel, in levels, gives the class away
    measured = measure(train.images[train.labels == train.classes.index("bar")])
    spread = {name: values.std(0).min().item() for name, values in measured.items()}
    least = dict(background=0.15, gradient=0.08, color=0.15, x=2, y=2, radius=0.4, direction=0.2, noise=0.015)
    assert all(spread[name] > least[name] for name in least), spread


def test_shapes_stand_out(shapes):
    train, _ = shapes
    radii = measure(train.images[train.labels == train.classes.index("disc")])["radius"]
    assert radii.min() > 7  # of every disc all is seen: the smallest one has 7.2 pixels


def test_every_image_is_drawn_once(shapes):
    drawn = {image.numpy().tobytes() for part in shapes for image in part.images}
    assert len(drawn) == 12_000, f"{12_000 - len(drawn)} images are there more than once"


def test_pixels_alone_do_not_tell_the_class(shapes):
    train, test = shapes
    generator = seed_everything(0)
    linear = nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, 10))
    batches = BatchLoader(train, 128, shuffle=True, generator=generator)
    recipe = Recipe(epochs=5, lr=0.01, precision="fp32")
    last = fit(linear, batches, BatchLoader(test, 1000), recipe, verbose=False).metrics[-1]
    assert last.train_accuracy > 0.2  # it has tried: 29 % of the images it has seen
    assert last.val_accuracy < 0.45  # 17 %


def test_a_small_network_learns_the_classes(shapes):
    train, test = shapes
    generator = seed_everything(0)

    def augment(images, generator):
        return random_hflip(random_crop(images, generator, padding=2), generator)

    batches = BatchLoader(train[:3000], 32, shuffle=True, augment=augment, generator=generator)
    recipe = Recipe(epochs=2, lr=0.025, optimizer="muon", warmup=0.1, precision="fp32")
    history = fit(S8Net46k(), batches, BatchLoader(test, 500), recipe, verbose=False)
    assert history.metrics[-1].val_accuracy >= 0.9  # 98.5 %
