"""Folders of images as tensors, decoded once and kept."""

import hashlib
import os
import warnings
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor
from torchvision.datasets import ImageFolder

from course_utils.data.shapes import SIZE

# What Pillow raises for damaged files, and for those that would fill the memory.
UNREADABLE = (OSError, SyntaxError, ValueError, Image.DecompressionBombError)


SUFFIXES = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG"}


Split = tuple[Tensor, Tensor]


def read_image_folder(folder: Path, cache: Path) -> tuple[Split, Split, tuple[str, ...], str]:
    """Read `{train,test}/<class>/*.{png,jpg}`: both splits, the names of the classes, and `"PNG"` or `"JPEG"`.

    A split is images, uint8 `N×3×32×32` (`channels_last`), and labels, int64 `N`, in order of class and file name. The
    decoded images are kept in `cache`, keyed by the paths, sizes and times of the files.
    Raises `FileNotFoundError` or `ValueError` that names the folder or file for a split, a class or images that are
    missing, and for files that are no 32×32 RGB images.
    """
    train, test = (_list_images(folder / split) for split in ("train", "test"))
    for split, missing in (
        ("train", set(test.classes) - set(train.classes)),
        ("test", set(train.classes) - set(test.classes)),
    ):
        if missing:
            raise ValueError(f"{folder / split}: no folder for {', '.join(sorted(missing))}, the other split has one")
    paths = [path for path, _ in train.samples + test.samples]
    listing = "\n".join(f"{path} {stat.st_size} {stat.st_mtime_ns}" for path, stat in _stats(paths).items())
    file = cache / f"{hashlib.sha256(listing.encode()).hexdigest()[:32]}.safetensors"
    images = _read_cache(file)
    if images is None:
        images = _decode(paths)
        _write_cache(file, images)
    parts = images.permute(0, 3, 1, 2).split([len(train), len(test)])
    splits = [(part, torch.tensor(listed.targets)) for part, listed in zip(parts, (train, test), strict=True)]
    # The type checker does not see that there are two splits.
    return *splits, tuple(train.classes), SUFFIXES[Path(paths[0]).suffix.lower()]  # type: ignore[return-value]


def _list_images(folder: Path) -> ImageFolder:
    try:
        return ImageFolder(str(folder), is_valid_file=lambda path: Path(path).suffix.lower() in SUFFIXES)
    except FileNotFoundError as error:
        expected = f"train/ and test/ with one folder of {', '.join(SUFFIXES)} files per class in each"
        raise FileNotFoundError(f"{folder}: {error}; expected {expected}") from error


def _stats(paths: list[str]) -> dict[str, os.stat_result]:
    stats, seen = {}, {}
    for path in paths:
        try:
            stats[path] = stat = os.stat(path)
        except OSError as error:
            raise ValueError(f"{path} cannot be read: {error}") from error
        if other := seen.get((stat.st_dev, stat.st_ino)):
            raise ValueError(f"{path} is the same file as {other}: does a link lead back to a folder above it?")
        seen[stat.st_dev, stat.st_ino] = path
    return stats


def _decode(paths: list[str]) -> Tensor:
    """Decode 8-bit RGB files of 32×32 pixels: uint8 `N×32×32×3`."""
    images = np.empty((len(paths), SIZE, SIZE, 3), dtype=np.uint8)

    def read(index: int) -> None:
        expected = f"expected a PNG or JPEG of {SIZE}×{SIZE} pixels in mode RGB"
        try:
            with Image.open(paths[index]) as image:
                if image.mode == "RGB" and image.size == (SIZE, SIZE):
                    images[index] = np.asarray(image)
                    return
                found = f"{image.width}×{image.height} pixels in mode {image.mode}"
        except UNREADABLE as error:
            raise ValueError(f"{paths[index]} cannot be read as an image: {error}; {expected}") from error
        raise ValueError(f"{paths[index]} has {found}, {expected}")

    with ThreadPoolExecutor() as pool:
        for _ in pool.map(read, range(len(paths))):
            pass
    return torch.from_numpy(images)


def _read_cache(file: Path) -> Tensor | None:
    try:
        with safe_open(file, framework="pt") as tensors:
            return tensors.get_tensor("images")
    except (OSError, SafetensorError):  # none yet, or cut short: it is only a cache
        return None


def _write_cache(file: Path, images: Tensor) -> None:
    partial = file.with_suffix(f".{os.getpid()}.partial")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        save_file({"images": images}, partial)
        os.replace(partial, file)
    except (OSError, SafetensorError) as error:
        with suppress(OSError):
            partial.unlink()
        warnings.warn(f"{file.parent} cannot keep the decoded images ({error}): next time takes as long", stacklevel=2)
