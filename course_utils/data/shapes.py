"""The built-in data set: ten classes of drawn 32×32 RGB shapes, made from a seed, without a file or a network."""

import math

import torch
from torch import Tensor

SIZE = 32  # pixels, like CIFAR-10


CHUNK = 500  # images drawn at once: the intermediate maps stay in the processor's cache


def _disc(x: Tensor, y: Tensor, radius: float = 0.9, at: tuple[float, float] = (0.0, 0.0)) -> Tensor:
    return torch.hypot(x - at[0], y - at[1]) - radius


def _box(x: Tensor, y: Tensor, half_width: float, half_height: float) -> Tensor:
    return torch.maximum(x.abs() - half_width, y.abs() - half_height)


def _wedges(x: Tensor, y: Tensor, count: int, inner: float) -> Tensor:
    """A figure of `count` points at radius 1 and `count` dents at radius `inner`, one point up."""
    half = math.pi / count
    # Fold the plane into one half wedge: there the outline is one straight line from the point to the dent.
    angle = half - (torch.atan2(x, -y).abs() % (2 * half) - half).abs()
    radius = torch.hypot(x, y)
    dent_x, dent_y = inner * math.cos(half), inner * math.sin(half)
    normal_x, normal_y = dent_y, 1 - dent_x
    length = math.hypot(normal_x, normal_y)
    return (radius * angle.cos() * normal_x + radius * angle.sin() * normal_y - normal_x) / length


def _heart(x: Tensor, y: Tensor) -> Tensor:
    lobes = torch.minimum(_disc(x, y, 0.55, (-0.39, -0.35)), _disc(x, y, 0.55, (0.39, -0.35)))
    return torch.minimum(lobes, (x.abs() + (y - 0.04).abs() - 0.78) / math.sqrt(2))


# Each drawing is the signed distance to its outline in units of the shape's radius: negative inside, y downwards.
DRAWINGS = {
    "bar": lambda x, y: _box(x, y, 1.0, 0.22),
    "crescent": lambda x, y: torch.maximum(_disc(x, y, 0.95), -_disc(x, y, 0.8, (0.5, 0.0))),
    "disc": _disc,
    "dots": lambda x, y: torch.minimum(_disc(x, y, 0.42, (-0.6, 0.0)), _disc(x, y, 0.42, (0.6, 0.0))),
    "heart": _heart,
    "plus": lambda x, y: torch.minimum(_box(x, y, 0.95, 0.28), _box(x, y, 0.28, 0.95)),
    "ring": lambda x, y: _disc(x, y, 0.72).abs() - 0.2,
    "square": lambda x, y: _box(x, y, 0.76, 0.76),
    "star": lambda x, y: _wedges(x, y, 5, 0.42),
    "triangle": lambda x, y: _wedges(x, y, 3, 0.5),
}


SHAPE_CLASSES = tuple(DRAWINGS)


def make_shapes(n: int = 10_000, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Draw `n` images of ten shapes; background, colour, position, size, rotation, noise and clutter vary.

    Returns images, uint8 `n×3×32×32` in `channels_last` memory format, and labels, int64 `n`, in equal shares (up to
    one) and random order. The same `n` and `seed` give the same images.
    Raises `ValueError` if `n` is not positive.
    """
    if n < 1:
        raise ValueError(f"n is {n}, expected at least 1 image")
    generator = torch.Generator().manual_seed(seed)
    labels = (torch.arange(n) % len(DRAWINGS))[torch.randperm(n, generator=generator)]
    images = torch.empty(n, SIZE, SIZE, 3, dtype=torch.uint8)
    for chunk, chunk_labels in zip(images.split(CHUNK), labels.split(CHUNK), strict=True):
        chunk.copy_(_render(chunk_labels, generator))
    return images.permute(0, 3, 1, 2), labels


def _uniform(shape: tuple[int, ...], low: float, high: float, generator: torch.Generator) -> Tensor:
    return torch.rand(shape, generator=generator) * (high - low) + low


def _paint(canvas: Tensor, distance: Tensor, color: Tensor) -> None:
    """Lay `color` (N×3) over `canvas` (N×H×W×3) where `distance` (N×H×W, pixels) is negative, smooth at the edge."""
    coverage = (0.5 - distance).clamp_(0, 1)[..., None]
    canvas.lerp_(color[:, None, None, :], coverage)


def _render(labels: Tensor, generator: torch.Generator) -> Tensor:
    n = len(labels)
    rows, columns = torch.meshgrid(torch.arange(SIZE) + 0.5, torch.arange(SIZE) + 0.5, indexing="ij")

    def local(centers: Tensor, angles: Tensor, radii: Tensor) -> tuple[Tensor, Tensor]:
        """Pixel coordinates in the shape's own frame, each N×H×W."""
        dx, dy = columns - centers[:, 0, None, None], rows - centers[:, 1, None, None]
        cos, sin = angles.cos()[:, None, None], angles.sin()[:, None, None]
        return (cos * dx + sin * dy) / radii[:, None, None], (cos * dy - sin * dx) / radii[:, None, None]

    # Background: a gradient between two colours in a random direction.
    everywhere = torch.full((n, 2), SIZE / 2)
    along, _ = local(everywhere, _uniform((n,), 0, 2 * math.pi, generator), torch.full((n,), float(SIZE)))
    background = _uniform((n, 3), 0.1, 0.9, generator)
    other = (background + _uniform((n, 3), -0.25, 0.25, generator)).clamp_(0, 1)
    canvas = torch.lerp(background[:, None, None], other[:, None, None], (along + 0.5).clamp_(0, 1)[..., None])

    # Clutter: two thin strokes anywhere, in colours near the background's.
    for _ in range(2):
        length = _uniform((n,), 2, 6, generator)
        x, y = local(_uniform((n, 2), 0, SIZE, generator), _uniform((n,), 0, math.pi, generator), length)
        stroke = (background + _uniform((n, 3), -0.3, 0.3, generator)).clamp_(0, 1)
        _paint(canvas, _box(x, y, 1.0, 0.15) * length[:, None, None], stroke)

    # The shape: far enough from the background's colour to be seen, away from the border by most of its radius.
    radii = _uniform((n,), 8, 13, generator)
    centers = SIZE / 2 + _uniform((n, 2), -1, 1, generator) * (SIZE / 2 - radii)[:, None]
    x, y = local(centers, _uniform((n,), -math.pi / 6, math.pi / 6, generator), radii)
    distance = torch.empty(n, SIZE, SIZE)
    for index, drawing in enumerate(DRAWINGS.values()):
        members = labels == index
        distance[members] = drawing(x[members], y[members])
    away = _uniform((n, 3), 0.35, 0.55, generator)
    sign = torch.where(background > 0.5, -1.0, 1.0)
    _paint(canvas, distance * radii[:, None, None], background + sign * away)

    noise = torch.randn(canvas.shape, generator=generator) * _uniform((n, 1, 1, 1), 0.0, 0.05, generator)
    return (canvas + noise).clamp_(0, 1).mul_(255).round_()
