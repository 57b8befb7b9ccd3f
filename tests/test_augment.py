"""The exact halves against torchvision, image by image; the random halves by what they draw."""

import pytest
import torch
import torch.nn.functional as F
import torchvision.transforms.functional as TF
from torch import Generator, Tensor
from torch.testing import assert_close

from course_utils import augment
from course_utils.augment import affine_at, crop_at, cutout_at, grayscale_at, hflip_at, vflip_at

FILL = (125.3, 123.0, 113.9)
FORMATS = [torch.contiguous_format, torch.channels_last]
RANDOM = ["random_crop", "random_hflip", "random_vflip", "random_cutout", "random_grayscale", "random_affine"]
WITH_P = RANDOM[1:]
N, HEIGHT, WIDTH = 64, 20, 28

every_random = pytest.mark.parametrize("name", RANDOM)
every_random_with_p = pytest.mark.parametrize("name", WITH_P)


def noise(n: int, height: int, width: int, generator: Generator) -> Tensor:
    return torch.randint(0, 256, (n, 3, height, width), dtype=torch.uint8, generator=generator)


def uniform(low: float, high: float, generator: Generator) -> Tensor:
    return torch.rand(N, generator=generator) * (high - low) + low


def integers(low: int, high: int, generator: Generator) -> Tensor:
    return torch.randint(low, high, (N,), generator=generator)


def erase(image: Tensor, top: int, left: int) -> Tensor:
    bottom, right = min(top + 7, HEIGHT), min(left + 7, WIDTH)
    top, left = max(top, 0), max(left, 0)
    color = torch.tensor(FILL).round().to(torch.uint8)[:, None, None]
    return TF.erase(image, top, left, max(bottom - top, 0), max(right - left, 0), color)


def affine(image: Tensor, angle: float, right: float, down: float, scale: float) -> Tensor:
    bilinear = TF.InterpolationMode.BILINEAR
    return TF.affine(image, angle, [right, down], scale, [0.0, 0.0], bilinear)


@pytest.mark.parametrize("memory_format", FORMATS)
def test_crop_matches_torchvision(memory_format, generator):
    images = noise(N, HEIGHT, WIDTH, generator).contiguous(memory_format=memory_format)
    before, tops, lefts = images.clone(), integers(0, 9, generator), integers(0, 17, generator)
    result = crop_at(images, tops, lefts, 12)
    expected = [TF.crop(*row, 12, 12) for row in zip(images, tops.tolist(), lefts.tolist(), strict=True)]
    assert torch.equal(result, torch.stack(expected))
    assert torch.equal(images, before)
    assert result.is_contiguous(memory_format=torch.channels_last)  # DEFECT: not for contiguous images


@pytest.mark.parametrize("memory_format", FORMATS)
@pytest.mark.parametrize(
    ("apply", "draw", "oracle", "tolerance"),
    [
        (hflip_at, [(integers, 0, 2)], lambda image, chosen: TF.hflip(image) if chosen else image, 0),
        (vflip_at, [(integers, 0, 2)], lambda image, chosen: TF.vflip(image) if chosen else image, 0),
        (grayscale_at, [(integers, 0, 2)], lambda image, chosen: TF.rgb_to_grayscale(image, 3) if chosen else image, 0),
        (lambda *a: cutout_at(*a, 7, FILL), [(integers, -12, 25), (integers, -12, 33)], erase, 0),
        (
            lambda images, angles, right, down, scales: affine_at(
                images, angles, torch.stack([right, down], 1), scales
            ),
            [(uniform, -180, 180), (uniform, -6, 6), (uniform, -6, 6), (uniform, 0.5, 2)],
            affine,
            1,
        ),
    ],
    ids=["hflip", "vflip", "grayscale", "cutout", "affine"],
)
def test_exact_half_matches_torchvision(apply, draw, oracle, tolerance, memory_format, generator):
    images = noise(N, HEIGHT, WIDTH, generator).contiguous(memory_format=memory_format)
    before = images.clone()
    choices = [function(low, high, generator) for function, low, high in draw]
    if choices[0].max() == 1:
        choices = [choices[0].bool()]
    result = apply(images, *choices)
    rows = zip(images, *(choice.tolist() for choice in choices), strict=True)
    expected = torch.stack([oracle(*row) for row in rows])
    assert result.dtype == torch.uint8
    assert_close(result.int(), expected.int(), rtol=0, atol=tolerance)
    assert torch.equal(images, before)


def test_exact_affine_maps(generator):
    images = noise(N, 16, 16, generator)
    zero, one, still = torch.zeros(N), torch.ones(N), torch.zeros(N, 2)
    assert torch.equal(affine_at(images, zero, still, one), images)
    assert torch.equal(affine_at(images, zero + 90, still, one), images.rot90(-1, (2, 3)))  # clockwise
    shifted = F.pad(images, (3, 0, 0, 2))[:, :, 2:, :16]
    assert torch.equal(affine_at(images, zero, torch.tensor([[3.0, -2.0]]).expand(N, 2), one), shifted)


def test_affine_fill(generator):
    color = torch.tensor(FILL).round().to(torch.uint8)[:, None, None].expand(N, 3, 16, 16)
    angles, scales = uniform(-90, 90, generator), uniform(0.3, 1, generator)
    far = affine_at(noise(N, 16, 16, generator), angles, torch.full((N, 2), 100.0), scales, FILL)
    assert torch.equal(far, color)
    # At the border too: an image of the fill's colour does not change, whatever the map.
    assert torch.equal(affine_at(color, angles, torch.full((N, 2), 2.3), scales, FILL), color)


@every_random
@pytest.mark.parametrize("memory_format", FORMATS)
def test_every_image_draws_its_own(name, memory_format, generator):
    images = noise(1, 16, 16, generator).repeat(N, 1, 1, 1).contiguous(memory_format=memory_format)
    before = images.clone()
    options = {} if name == "random_crop" else {"p": 0.7}
    result, again, other = (
        getattr(augment, name)(images, Generator().manual_seed(seed), **options) for seed in (1, 1, 2)
    )
    assert result.shape == images.shape and result.dtype == torch.uint8
    assert torch.equal(images, before)
    assert torch.equal(result, again) and not torch.equal(result, other)
    two = name in ("random_hflip", "random_vflip", "random_grayscale")
    different = len(result.flatten(1).unique(dim=0))
    assert different == 2 if two else different > 20


@every_random_with_p
def test_share_of_changed_images(name, generator):
    images = noise(3000, 8, 8, generator)
    for p, tolerance in ((0, 0), (1, 0), (0.3, 0.03)):
        changed = (getattr(augment, name)(images, generator, p=p) != images).flatten(1).any(1)
        assert changed.float().mean() == pytest.approx(p, abs=tolerance)


@every_random_with_p
@pytest.mark.parametrize("p", [-0.1, 1.5, float("nan")])
def test_impossible_probability(name, p, generator):
    with pytest.raises(ValueError, match=rf"p is {p}, expected a probability between 0 and 1"):
        getattr(augment, name)(noise(2, 8, 8, generator), generator, p=p)


@pytest.mark.parametrize("name", ["random_cutout", "random_affine"])
@pytest.mark.parametrize("fill", [(0,), (0, 0, 0, 0), torch.zeros(2)])
def test_fill_needs_one_number_per_channel(name, fill, generator):
    with pytest.raises(ValueError, match=f"fill has {len(fill)} numbers, expected 3, one per channel"):
        getattr(augment, name)(noise(2, 8, 8, generator), generator, fill=fill)


@pytest.mark.parametrize("padding", [1, 4])
def test_crop_offsets_cover_the_padding(padding, generator):
    at = torch.arange(1, 10, dtype=torch.uint8)  # 0 is the padding
    images = torch.stack([at[:, None].expand(9, 9), at.expand(9, 9), at.expand(9, 9)]).repeat(2000, 1, 1, 1)
    result = augment.random_crop(images, generator, padding)
    offsets = (result[:, :2, 4, 4].int() - 5).unique(dim=0)  # rows and columns from the middle
    grid = torch.arange(-padding, padding + 1, dtype=torch.int32)
    assert torch.equal(offsets, torch.cartesian_prod(grid, grid))
    assert (result == 0).any()


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
    drawn = {}
    monkeypatch.setattr(augment, "affine_at", lambda images, *choices: drawn.update(choices=choices) or images)
    images = torch.zeros(5000, 3, 10, 20, dtype=torch.uint8)
    augment.random_affine(images, generator, degrees=15, translate=0.1, scale=(0.9, 1.2), fill=FILL)
    angles, translations, scales, fill = drawn["choices"]
    right, down = translations.unbind(1)
    for values, low, high in ((angles, -15, 15), (right, -2, 2), (down, -1, 1), (scales, 0.9, 1.2)):
        assert values.shape == (5000,)
        assert low <= values.min() < low + 0.02 * (high - low) and high - 0.02 * (high - low) < values.max() <= high
    assert torch.corrcoef(torch.stack([angles, right, down, scales])).triu(1).abs().max() < 0.1  # drawn apart
    assert fill == FILL
