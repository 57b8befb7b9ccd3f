"""Random transforms drawn per image and applied to a whole batch, on the batch's device.

Every transform has two halves: `random_*` draws one choice per image from the generator it is given, and `*_at` applies
given choices exactly. Batches are uint8 `N×3×H×W` (any memory format), in and out.
"""

import torch
import torch.nn.functional as F
from torch import Generator, Tensor
from torchvision.transforms.functional import rgb_to_grayscale

from course_utils.arguments import one_of


def refuse_other_images(images, what: str, count: int | None = None, device: torch.device | None = None) -> None:
    """Raise `ValueError` unless `images` is a uint8 tensor `N×3×H×W`, with `count` images and on `device` if given."""
    found = type(images).__name__
    if isinstance(images, Tensor):
        found = f"{images.dtype} of shape {tuple(images.shape)} on {images.device}"
        fits = images.ndim == 4 and images.shape[1] == 3 and count in (None, len(images))
        if fits and images.dtype == torch.uint8 and device in (None, images.device):
            return
    wanted = f"{'N' if count is None else count}×3×H×W{f' on {device}' if device else ''}"
    raise ValueError(f"{what}: {found}, expected torch.uint8 in 0…255 of shape {wanted}")


def _draw(images: Tensor, low: float, high: float, generator: Generator, columns: int = 1) -> Tensor:
    """Uniform float32 numbers in [low, high), one per image (N), or N×columns."""
    shape = (len(images),) if columns == 1 else (len(images), columns)
    return torch.rand(shape, generator=generator, device=images.device) * (high - low) + low


def _chosen(images: Tensor, p: float, generator: Generator) -> Tensor:
    """Which images are changed: bool N, each true with probability `p`."""
    refuse_other_images(images, "images")
    if not 0 <= p <= 1:
        raise ValueError(f"p is {p}, expected a probability between 0 and 1")
    return _draw(images, 0, 1, generator) < p


def _where(chosen: Tensor, changed: Tensor, images: Tensor) -> Tensor:
    # Bytes wrap around, so this is exact; torch.where takes three times as long on them.
    return images + (changed - images) * chosen[:, None, None, None]


def crop_at(images: Tensor, tops: Tensor, lefts: Tensor, size: int) -> Tensor:
    """Cut one `size×size` window out of each image; `tops`, `lefts`: int64 N, in pixels. Returns `channels_last`."""
    windows = images.permute(0, 2, 3, 1).unfold(1, size, 1).unfold(2, size, 1)  # a view: N×tops×lefts×C×size×size
    index = torch.arange(len(images), device=images.device)
    crops = windows.permute(0, 1, 2, 4, 5, 3)[index, tops, lefts].permute(0, 3, 1, 2)
    return crops.contiguous(memory_format=torch.channels_last)  # no copy where the images were


def _mirror(images: Tensor, padding: int) -> Tensor:
    """`F.pad(..., mode="reflect")` line by line: a seventh of its time on bytes in `channels_last`."""
    n, c, height, width = images.shape
    if padding >= min(height, width):
        raise ValueError(
            f"padding is {padding}, expected less than the {min(height, width)} pixels there are to mirror"
        )
    shape = (n, c, height + 2 * padding, width + 2 * padding)
    padded = torch.empty(shape, dtype=images.dtype, device=images.device, memory_format=torch.channels_last)
    padded[:, :, padding : -padding or None, padding : -padding or None] = images
    for dim, size in ((2, height), (3, width)):
        for step in range(1, padding + 1):
            padded.select(dim, padding - step).copy_(padded.select(dim, padding + step))
            last = padding + size - 1
            padded.select(dim, last + step).copy_(padded.select(dim, last - step))
    return padded


def random_crop(images: Tensor, generator: Generator, padding: int = 4, padding_mode: str = "constant") -> Tensor:
    """Pad each square image by `padding` pixels on every side and cut out a window of the old size.

    `padding_mode`: black pixels (`"constant"`), the image mirrored (`"reflect"`), its border repeated (`"replicate"`).
    """
    refuse_other_images(images, "images")
    one_of(padding_mode, "padding_mode", ("constant", "reflect", "replicate"))
    size = images.shape[-1]
    padded = _mirror(images, padding) if padding_mode == "reflect" else F.pad(images, (padding,) * 4, mode=padding_mode)
    tops, lefts = torch.randint(0, 2 * padding + 1, (2, len(images)), generator=generator, device=images.device)
    return crop_at(padded, tops, lefts, size)


def hflip_at(images: Tensor, chosen: Tensor) -> Tensor:
    """Mirror the images for which `chosen` (bool N) is true, left to right."""
    return _where(chosen, images.flip(3), images)


def random_hflip(images: Tensor, generator: Generator, p: float = 0.5) -> Tensor:
    """Mirror each image left to right with probability `p`."""
    return hflip_at(images, _chosen(images, p, generator))


def vflip_at(images: Tensor, chosen: Tensor) -> Tensor:
    """Mirror the images for which `chosen` (bool N) is true, top to bottom."""
    return _where(chosen, images.flip(2), images)


def random_vflip(images: Tensor, generator: Generator, p: float = 0.5) -> Tensor:
    """Mirror each image top to bottom with probability `p`."""
    return vflip_at(images, _chosen(images, p, generator))


def cutout_at(images: Tensor, tops: Tensor, lefts: Tensor, size: int, fill: Tensor) -> Tensor:
    """Fill one `size×size` square per image; `tops`, `lefts`: int64 N, and what lies outside the image is ignored.

    `fill`: the colour, C numbers in 0…255.
    """
    rows = torch.arange(images.shape[2], device=images.device)
    columns = torch.arange(images.shape[3], device=images.device)
    in_rows = (rows >= tops[:, None]) & (rows < tops[:, None] + size)
    in_columns = (columns >= lefts[:, None]) & (columns < lefts[:, None] + size)
    square = (in_rows[:, :, None] & in_columns[:, None, :])[:, None]
    return torch.where(square, _color(fill, images).to(images.dtype), images)


def random_cutout(images: Tensor, generator: Generator, size: int = 16, fill=(0, 0, 0), p: float = 0.5) -> Tensor:
    """Cover a `size×size` square around a random pixel with the colour `fill`, with probability `p`.

    Source: DeVries and Taylor 2017, "Improved Regularization of Convolutional Neural Networks with Cutout"; filled with
    the training set's mean, the square is zero after normalization.
    """
    chosen = _chosen(images, p, generator)
    height, width = images.shape[2:]
    tops = _draw(images, 0, height, generator).long() - size // 2
    lefts = _draw(images, 0, width, generator).long() - size // 2
    return _where(chosen, cutout_at(images, tops, lefts, size, fill), images)


def grayscale_at(images: Tensor, chosen: Tensor) -> Tensor:
    """Replace the images for which `chosen` (bool N) is true by their brightness (ITU-R 601), on all three channels."""
    return _where(chosen, rgb_to_grayscale(images, num_output_channels=3), images)


def random_grayscale(images: Tensor, generator: Generator, p: float = 0.1) -> Tensor:
    """Take the colour out of each image with probability `p`."""
    return grayscale_at(images, _chosen(images, p, generator))


def affine_at(images: Tensor, angles: Tensor, translations: Tensor, scales: Tensor, fill=(0, 0, 0)) -> Tensor:
    """Rotate, scale and shift each image about its centre, bilinear; what comes from outside has the colour `fill`.

    `angles`: degrees clockwise, float N; `translations`: pixels (right, down), float N×2; `scales`: float N.
    """
    height, width = images.shape[2:]
    radians = torch.deg2rad(angles)
    cos, sin = radians.cos() / scales, radians.sin() / scales
    # grid_sample asks where in the input each output pixel comes from: the inverse map, in half image sizes.
    shift_x, shift_y = translations[:, 0], translations[:, 1]
    row_x = [cos, sin * height / width, -(cos * shift_x + sin * shift_y) * 2 / width]
    row_y = [-sin * width / height, cos, (sin * shift_x - cos * shift_y) * 2 / height]
    theta = torch.stack([torch.stack(row_x, dim=1), torch.stack(row_y, dim=1)], dim=1)
    grid = F.affine_grid(theta, list(images.shape), align_corners=False)
    color = _color(fill, images)
    # Outside the image grid_sample reads zeros, which stand for `fill` once it is subtracted.
    moved = F.grid_sample(images.float() - color, grid, mode="bilinear", align_corners=False) + color
    return moved.round_().clamp_(0, 255).to(images.dtype)


def random_affine(
    images: Tensor,
    generator: Generator,
    degrees: float = 15.0,
    translate: float = 0.1,
    scale: tuple[float, float] = (0.9, 1.1),
    fill=(0, 0, 0),
    p: float = 0.5,
) -> Tensor:
    """Shift, scale and rotate each image with probability `p` (`translate`: the largest shift, in image sizes)."""
    chosen = _chosen(images, p, generator)
    angles = _draw(images, -degrees, degrees, generator)
    shifts = _draw(images, -translate, translate, generator, columns=2)
    translations = torch.stack([shifts[:, 0] * images.shape[3], shifts[:, 1] * images.shape[2]], dim=1)
    scales = _draw(images, *scale, generator)
    return _where(chosen, affine_at(images, angles, translations, scales, fill), images)


def _color(fill, images: Tensor) -> Tensor:
    """The colour as float32 1×C×1×1. Numbers up to 1 are shares of 255, as a mean of normalized images is.

    The values of a tensor are not looked at on the host, and others are filled in on the device: neither makes a GPU
    wait.
    """
    channels = images.shape[1]
    fits = hasattr(fill, "__iter__") and getattr(fill, "ndim", 1) == 1 and len(fill) == channels
    if not fits or not (isinstance(fill, Tensor) or all(0 <= value <= 255 for value in fill)):
        raise ValueError(f"fill is {fill!r}, expected {channels} numbers, one per channel: 0 to 255, or shares of it")
    if not isinstance(fill, Tensor):
        fill = torch.stack([torch.full((), float(value), device=images.device) for value in fill])
    color = fill.to(images.device, torch.float32)
    color = torch.where(color.max() <= 1, 255 * color, color)
    return color.round().clamp(0, 255)[None, :, None, None]
