"""Folders of images as tensors, decoded once and kept."""

import hashlib
import os
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from course_utils.files import write_whole

# What Pillow raises for damaged files, and for those that would fill the memory.
UNREADABLE = (OSError, SyntaxError, ValueError, Image.DecompressionBombError)
SUFFIXES = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG"}
MODES = ("RGB", "L", "1")  # Pillow's names for colour, gray, and black and white
SPLITS = ("train", "test")
Split = tuple[Tensor, Tensor]


def read_image_folder(folder: Path, cache: Path) -> tuple[Split, Split, tuple[str, ...], str]:
    """Read `{train,test}/<class>/*.{png,jpg}`: both splits, the names of the classes, and `"PNG"` or `"JPEG"`.

    A split is images, uint8 `N×3×S×S` (`channels_last`; gray ones have three equal channels), and labels, int64 `N`, in
    order of class and file name. The decoded images are kept in `cache`, keyed by the paths, sizes and times of the
    files. Hidden files and folders and `__MACOSX` do not count.
    Raises `FileNotFoundError` or `ValueError` that names the folder or file for a split, a class or images that are
    missing, and for files that are no square RGB or gray images, all of one size.
    """
    train, test = (_list_images(folder / split, folder) for split in SPLITS)
    for split, missing in (("train", test.keys() - train.keys()), ("test", train.keys() - test.keys())):
        if missing:
            raise ValueError(f"{folder / split}: no folder for {', '.join(sorted(missing))}, the other split has one")
    if len(train) < 2:
        raise ValueError(f"{folder / 'train'}: one class, {', '.join(train)}, expected at least 2")
    paths = [path for files in (*train.values(), *test.values()) for path in files]
    listing = "\n".join(map(_state, paths))
    file = cache / f"{hashlib.sha256(listing.encode()).hexdigest()[:32]}.safetensors"
    images = _read_cache(file)
    if images is None:
        images = _decode(paths)
        _write_cache(file, images)
    labels = [torch.tensor([i for i, files in enumerate(part.values()) for _ in files]) for part in (train, test)]
    parts = images.permute(0, 3, 1, 2).split([len(part) for part in labels])
    first, second = zip(parts, labels, strict=True)
    return first, second, tuple(train), SUFFIXES[paths[0].suffix.lower()]


def class_names(split: Path) -> tuple[str, ...]:
    """The names of the folders in `split`, in order; none if there is no such folder."""
    return tuple(path.name for path in _visible(split) if path.is_dir()) if split.is_dir() else ()


def _visible(folder: Path) -> list[Path]:
    """What a folder holds, without what systems and notebooks leave there (`.ipynb_checkpoints`, `._0.jpg`)."""
    return sorted(path for path in folder.iterdir() if not path.name.startswith(".") and path.name != "__MACOSX")


def _list_images(split: Path, folder: Path) -> dict[str, list[Path]]:
    """The files of each class, by its name."""
    expected = f"train/ and test/ with one folder of {', '.join(SUFFIXES)} files per class in each"
    above = folder.resolve(), split.resolve()
    # By folder, then by name: a class may have folders in it.
    found = {
        name: sorted(_images_in(split / name, above), key=lambda file: (str(file.parent), file.name))
        for name in class_names(split)
    }
    if not found:
        raise FileNotFoundError(f"{split} has no folders of classes; expected {expected}")
    if empty := [name for name, files in found.items() if not files]:
        raise FileNotFoundError(f"{split}: no images of {', '.join(empty)}; expected {expected}")
    return found


def _images_in(folder: Path, above: tuple[Path, ...]) -> Iterator[Path]:
    """The images in a folder and those inside it; `above`: the real paths of the folders on the way there."""
    real = folder.resolve()
    if any(path.is_relative_to(real) for path in above):
        raise ValueError(f"{folder} is a link that leads back to {real}, a folder above it")
    for path in _visible(folder):
        if path.is_dir():
            yield from _images_in(path, (*above, real))
        elif path.suffix.lower() in SUFFIXES:
            yield path


def _state(path: Path) -> str:
    """A line that changes where the file does."""
    try:
        stat = os.stat(path)
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {error}") from error
    return f"{path} {stat.st_size} {stat.st_mtime_ns}"


def _decode(paths: list[Path]) -> Tensor:
    """Decode 8-bit files, all of the size of the first: uint8 `N×S×S×3`."""
    expected = "expected a square PNG or JPEG in mode RGB or L (gray)"

    def read(path: Path, side: int | None = None) -> np.ndarray:
        """`side`: in pixels; None for any."""
        same = f"{expected} of {side}×{side} pixels, as the first image has" if side else expected
        try:
            with Image.open(path) as image:
                if image.mode in MODES and image.size == (side or image.width,) * 2:
                    return np.asarray(image.convert("RGB"))
                found = f"{image.width}×{image.height} pixels in mode {image.mode}"
        except UNREADABLE as error:
            raise ValueError(f"{path} cannot be read as an image: {error}; {same}") from error
        raise ValueError(f"{path} has {found}, {same}")

    side = len(read(paths[0]))
    images = np.empty((len(paths), side, side, 3), dtype=np.uint8)
    # One after the other: threads take twice as long on images this small, since each holds the interpreter's lock.
    for index, path in enumerate(paths):
        images[index] = read(path, side)
    return torch.from_numpy(images)


def _read_cache(file: Path) -> Tensor | None:
    try:
        with safe_open(file, framework="pt") as tensors:
            return tensors.get_tensor("images")
    except (OSError, SafetensorError):  # none yet, or cut short: it is only a cache
        return None


def _write_cache(file: Path, images: Tensor) -> None:
    try:
        write_whole(file, save({"images": images}))
    except OSError as error:
        warnings.warn(f"{file.parent} cannot keep the decoded images ({error}): next time takes as long", stacklevel=2)
