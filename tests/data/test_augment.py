"""The exact halves against torchvision, image by image; the random halves by what they draw."""

import re

import pytest
import torch
import torch.nn.functional as F
import torchvision.transforms.functional as TF
from torch import Generator, Tensor
from torch.testing import assert_close

from course_utils.data import augment
from course_utils.data.augment import affine_at, crop_at, cutout_at, grayscale_at, hflip_at, random_crop, vflip_at

FILL = (125.3, 123.0, 113.9)
COLOR = torch.tensor([125, 123, 114], dtype=torch.uint8)[:, None, None]
WITH_P = ["random_hflip", "random_vflip", "random_cutout", "random_grayscale", "random_affine"]
N, HEIGHT, WIDTH = 64, 20, 28

both_formats = pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])


def noise(n: int, height: int, width: int, generator: Generator) -> Tensor:
    return torch.randint(0, 256, (n, 3, height, width), dtype=torch.uint8, generator=generator)


def integers(low: int, high: int):
    return lambda generator: torch.randint(low, high, (N,), generator=generator)


def uniform(low: float, high: float):
    return lambda generator: torch.rand(N, generator=generator) * (high - low) + low


def coin(generator: Generator) -> Tensor:
    return torch.rand(N, generator=generator) < 0.5


def erase(image: Tensor, top: int, left: int) -> Tensor:
    """What of a 7×7 square lies inside."""
    height, width = max(min(top + 7, HEIGHT) - max(top, 0), 0), max(min(left + 7, WIDTH) - max(left, 0), 0)
    return TF.erase(image, max(top, 0), max(left, 0), height, width, COLOR)


def affine(image: Tensor, angle: float, right: float, down: float, scale: float) -> Tensor:
    return TF.affine(image, angle, [right, down], scale, [0.0, 0.0], TF.InterpolationMode.BILINEAR)


# how the images are changed, what is drawn for each of them, what torchvision makes of one image
EXACT = {
    "crop": (
        lambda images, *at: crop_at(images, *at, 12),
        [integers(0, 9), integers(0, 17)],
        lambda image, top, left: TF.crop(image, top, left, 12, 12),
    ),
    "hflip": (hflip_at, [coin], lambda image, chosen: TF.hflip(image) if chosen else image),
    "vflip": (vflip_at, [coin], lambda image, chosen: TF.vflip(image) if chosen else image),
    "grayscale": (grayscale_at, [coin], lambda image, chosen: TF.rgb_to_grayscale(image, 3) if chosen else image),
    "cutout": (lambda images, *at: cutout_at(images, *at, 7, FILL), [integers(-12, 25), integers(-12, 33)], erase),
    "affine": (
        lambda images, angles, right, down, scales: affine_at(images, angles, torch.stack([right, down], 1), scales),
        [uniform(-180, 180), uniform(-6, 6), uniform(-6, 6), uniform(0.5, 2)],
        affine,
    ),
}


@both_formats
@pytest.mark.parametrize("name", EXACT)
def test_exact_half_matches_torchvision(name, memory_format, generator):
    apply, draws, oracle = EXACT[name]
    images = noise(N, HEIGHT, WIDTH, generator).contiguous(memory_format=memory_format)
    before, choices = images.clone(), [draw(generator) for draw in draws]
    result = apply(images, *choices)
    rows = zip(images, *(choice.tolist() for choice in choices), strict=True)
    expected = torch.stack([oracle(*row) for row in rows])
    assert result.dtype == torch.uint8 and torch.equal(images, before)
    assert_close(result.int(), expected.int(), rtol=0, atol=1 if name == "affine" else 0)


@both_formats
def test_crops_are_channels_last(memory_format, generator):
    images = noise(N, HEIGHT, WIDTH, generator).contiguous(memory_format=memory_format)
    crops = crop_at(images, torch.zeros(N).long(), torch.zeros(N).long(), 12)
    assert crops.is_contiguous(memory_format=torch.channels_last)


def test_exact_affine_maps(generator):
    images, zero, one, still = noise(N, 16, 16, generator), torch.zeros(N), torch.ones(N), torch.zeros(N, 2)
    assert torch.equal(affine_at(images, zero, still, one), images)
    assert torch.equal(affine_at(images, zero + 90, still, one), images.rot90(-1, (2, 3)))  # clockwise
    shifted = F.pad(images, (3, 0, 0, 2))[:, :, 2:, :16]
    assert torch.equal(affine_at(images, zero, torch.tensor([[3.0, -2.0]]).expand(N, 2), one), shifted)
    angles, scales = uniform(-90, 90)(generator), uniform(0.3, 1)(generator)
    filled = COLOR.expand(N, 3, 16, 16)
    assert torch.equal(affine_at(images, angles, still + 100, scales, FILL), filled)
    assert torch.equal(affine_at(filled, angles, still + 2.3, scales, FILL), filled)  # at the border too


@both_formats
@pytest.mark.parametrize("name", ["random_crop", *WITH_P])
def test_every_image_draws_its_own(name, memory_format, generator):
    images = noise(1, 16, 16, generator).repeat(N, 1, 1, 1).contiguous(memory_format=memory_format)
    before, options = images.clone(), {} if name == "random_crop" else {"p": 0.7}
    draws = [getattr(augment, name)(images, Generator().manual_seed(seed), **options) for seed in (1, 1, 2)]
    assert draws[0].shape == images.shape and draws[0].dtype == torch.uint8 and torch.equal(images, before)
    assert torch.equal(draws[0], draws[1]) and not torch.equal(draws[0], draws[2])
    different = len(draws[0].flatten(1).unique(dim=0))
    assert different > 20 if name in ("random_crop", "random_cutout", "random_affine") else different == 2


@pytest.mark.parametrize("name", WITH_P)
def test_share_of_changed_images(name, generator):
    images = noise(3000, 8, 8, generator)
    for p, tolerance in ((0, 0), (1, 0), (0.3, 0.03)):
        changed = (getattr(augment, name)(images, generator, p=p) != images).flatten(1).any(1)
        assert changed.float().mean() == pytest.approx(p, abs=tolerance)


@pytest.mark.parametrize(("name", "options"), [("random_crop", {"padding": 2}), ("random_cutout", {"size": 4, "p": 1})])
def test_what_is_missing_is_black_if_nothing_else_is_asked_for(name, options, generator):
    white = torch.full((N, 3, 16, 16), 255, dtype=torch.uint8)
    assert getattr(augment, name)(white, generator, **options).unique().tolist() == [0, 255]


BAD_P = [(name, {"p": p}, f"p is {p}, expected a probability between 0 and 1") for name in WITH_P for p in (-0.1, 1.5)]
BAD_FILL = [
    (name, {"fill": fill}, f"fill is {re.escape(repr(fill))}, expected 3 numbers, one per channel")
    for name in ("random_cutout", "random_affine")
    for fill in (
        (0,),
        (0, 0, 0, 0),
        (0, 256, 0),
        (0, 0, -1),
        0,
        (0, float("nan"), 0),
        torch.zeros(4),
        torch.tensor(0.5),
    )
]


BAD_MODE = [
    ("random_crop", {"padding_mode": "edge"}, "unknown padding_mode 'edge', expected one of constant, reflect, rep")
]


@pytest.mark.parametrize(("name", "options", "message"), BAD_P + BAD_FILL + BAD_MODE)
def test_impossible_options_are_refused(name, options, message, generator):
    with pytest.raises(ValueError, match=message):
        getattr(augment, name)(noise(2, 8, 8, generator), generator, **options)


@pytest.mark.parametrize("padding", [1, 4])
def test_crop_offsets_cover_the_padding(padding, generator):
    at = torch.arange(1, 10, dtype=torch.uint8).expand(9, 9)  # 0 is the padding
    result = random_crop(torch.stack([at.T, at, at]).repeat(2000, 1, 1, 1), generator, padding)
    offsets = (result[:, :2, 4, 4].long() - 5).unique(dim=0)  # rows and columns from the middle
    steps = torch.arange(-padding, padding + 1)
    assert torch.equal(offsets, torch.cartesian_prod(steps, steps))
    assert result.min() == 0


@both_formats
@pytest.mark.parametrize(
    "mode, torchvision_mode", [("constant", "constant"), ("reflect", "reflect"), ("replicate", "edge")]
)
def test_what_stands_outside_the_image(mode, torchvision_mode, memory_format, generator, monkeypatch):
    image = noise(1, 12, 12, generator)
    monkeypatch.setattr(augment, "crop_at", lambda padded, tops, lefts, size: padded)
    for padding in (0, 1, 3, 11):
        padded = random_crop(image.to(memory_format=memory_format), generator, padding, mode)
        assert torch.equal(padded, TF.pad(image, padding, padding_mode=torchvision_mode))


@pytest.mark.parametrize("size", [1, 4, 5])
def test_cutout_squares_lie_around_every_pixel(size, generator):
    images = torch.full((3000, 3, 8, 10), 255, dtype=torch.uint8)
    cut = augment.random_cutout(images, generator, size, fill=(9, 9, 9), p=1)[:, 0] == 9
    rows, columns = cut.any(2), cut.any(1)
    assert torch.equal(cut, rows[:, :, None] & columns[:, None, :])
    assert rows.sum(1).max() == columns.sum(1).max() == size
    assert len(cut.flatten(1).unique(dim=0)) == 8 * 10  # one square per centre
    assert cut.sum((1, 2)).min() == (size - size // 2) ** 2  # what a corner pixel leaves of it


def test_affine_draws_within_its_ranges(generator, monkeypatch):
    drawn = []
    monkeypatch.setattr(augment, "affine_at", lambda images, *choices: drawn.extend(choices) or images)
    images = torch.zeros(5000, 3, 10, 20, dtype=torch.uint8)
    augment.random_affine(images, generator, degrees=15, translate=0.1, scale=(0.9, 1.2), fill=FILL)
    angles, translations, scales, fill = drawn
    values = torch.stack([angles, *translations.unbind(1), scales])
    low, high = torch.tensor([[-15, -2, -1, 0.9], [15, 2, 1, 1.2]])  # pixels to the right: a tenth of 20; down: of 10
    shares = (values - low[:, None]) / (high - low)[:, None]
    assert (shares.amin(1) >= -1e-6).all() and (shares.amax(1) <= 1 + 1e-6).all()
    assert (shares.amin(1) < 0.02).all() and (shares.amax(1) > 0.98).all()
    assert torch.corrcoef(values).fill_diagonal_(0).abs().max() < 0.1  # each drawn apart
    assert fill == FILL


@pytest.mark.parametrize("name", ["random_crop", *WITH_P])
@pytest.mark.parametrize(
    "change", [lambda images: images / 255, lambda images: images[0], lambda images: images.numpy()]
)
def test_other_images_are_refused(change, name, generator):
    with pytest.raises(ValueError, match=r"^images: .*expected torch\.uint8 in 0…255 of shape N×3×H×W"):
        getattr(augment, name)(change(noise(2, 8, 8, generator)), generator)


COLORS = {  # as given, and as it is filled in
    (0, 0, 0): [0, 0, 0],
    FILL: [round(value) for value in FILL],
    torch.tensor(FILL): [round(value) for value in FILL],
    (0.49, 0.48, 0.45): [125, 122, 115],
    torch.tensor([0.49, 0.48, 0.45]): [125, 122, 115],
    torch.tensor([300.0, -3.0, 2.0]): [255, 0, 2],
}


@pytest.mark.parametrize("fill", COLORS, ids=str)
def test_colours(fill, generator):
    cut = augment.random_cutout(noise(4, 8, 8, generator), generator, size=40, fill=fill, p=1)
    assert cut[0, :, 0, 0].tolist() == COLORS[fill]


@pytest.mark.parametrize("side", [28, 48, 64])
@pytest.mark.parametrize("name", ["random_crop", *WITH_P])
def test_size_of_the_images_stays(name, side, generator):
    images = noise(4, side, side, generator)
    assert getattr(augment, name)(images, generator).shape == images.shape
