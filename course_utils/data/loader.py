"""A data set as two tensors, where to find it, and batches of it."""

import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import torch
from torch import Generator, Tensor

from course_utils.arguments import number
from course_utils.data.augment import refuse_other_images
from course_utils.data.cifar10 import BATCHES, fetch_cifar10, holds_batches, read_batches
from course_utils.data.folders import SPLITS, Split, class_names, read_image_folder
from course_utils.data.shapes import SHAPE_CLASSES, SIZE, make_shapes
from course_utils.files import data_root

CIFAR10_CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")

Augment = Callable[[Tensor, Generator], Tensor]


@dataclass(frozen=True, eq=False)
class ImageSet:
    """Labelled images in memory, with the statistics that normalize them.

    `images`: uint8 `N×3×H×W`; `labels`: int64 `N`; `classes`: their names; `name`: what to call results obtained on it;
    `mean`, `std`: float32 `3`, in 0…1, always those of the *training* set. Raises `ValueError` for other images, and
    for labels of another number or dtype.
    """

    images: Tensor
    labels: Tensor
    classes: tuple[str, ...]
    name: str
    mean: Tensor
    std: Tensor

    def __post_init__(self):
        refuse_other_images(self.images, "images")
        labels = self.labels
        if labels.dtype != torch.int64 or labels.shape != (len(self.images),):
            found = f"{labels.dtype} of shape {tuple(labels.shape)}"
            raise ValueError(f"labels are {found}, expected torch.int64, one for each of {len(self.images)} images")

    def __len__(self) -> int:
        return len(self.images)

    __iter__ = None  # it holds no batches

    def __getitem__(self, indices: slice | Tensor) -> "ImageSet":
        """The part of the set that a slice, an index tensor or a boolean mask selects."""
        return replace(self, images=self.images[indices], labels=self.labels[indices])

    def to(self, device: torch.device | str) -> "ImageSet":
        """The same set with every tensor on `device`."""
        moved = {name: getattr(self, name).to(device) for name in ("images", "labels", "mean", "std")}
        return replace(self, **moved)


def channel_statistics(images: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation per channel of uint8 `N×C×H×W` images, float32 `C`, in 0…1; exact integer sums."""
    values = torch.arange(256, dtype=torch.float64, device=images.device) / 255
    counts = torch.stack([torch.bincount(channel.flatten(), minlength=256) for channel in images.unbind(1)]).double()
    counts /= counts.sum(1, keepdim=True)
    mean = counts @ values
    return mean.float(), (counts @ values**2 - mean**2).clamp_min(0).sqrt().float()


def load_images(dataset: str | Path) -> tuple[ImageSet, ImageSet]:
    """The training and the test set of `"cifar10"`, `"shapes"` (built in), or a folder.

    A folder is or holds `cifar-10-batches-py/`, or holds `{train,test}/<class>/*.{png,jpg}`. `"cifar10"` takes the
    first one of CIFAR-10's images among `data_root()` and the folders `cifar10*` and `cifar-10*` in it, and else
    unpacks the original archive, which it downloads if it is not there.
    Raises `ValueError` for another name, `FileNotFoundError` or `ValueError` for a folder that is not whole.
    """
    if dataset == "shapes":
        return _pair(make_shapes(10_000, seed=0), make_shapes(2_000, seed=1), SHAPE_CLASSES, "shapes")
    if dataset == "cifar10":
        root = data_root()
        for folder in (root, *sorted(root.glob("cifar10*")), *sorted(root.glob("cifar-10*"))):
            if holds_batches(folder) or any(class_names(folder / part) == CIFAR10_CLASSES for part in SPLITS):
                train, test = _load_folder(folder)
                if train.images.shape[2] == SIZE:
                    return train, test
        return _load_folder(fetch_cifar10(root))
    folder = Path(dataset).expanduser().resolve() if dataset and isinstance(dataset, str | Path) else None
    if folder is None or not folder.is_dir():
        raise ValueError(f"unknown data set {dataset!r}, expected 'cifar10', 'shapes' or an existing folder")
    if not holds_batches(folder) and not any((folder / part).is_dir() for part in SPLITS):
        raise FileNotFoundError(f"{folder} has neither {BATCHES}/ nor train/ and test/ with images in it")
    return _load_folder(folder)


def _pair(train: Split, test: Split, classes: tuple[str, ...], name: str) -> tuple[ImageSet, ImageSet]:
    mean, std = channel_statistics(train[0])
    return ImageSet(*train, classes, name, mean, std), ImageSet(*test, classes, name, mean, std)


def _load_folder(folder: Path) -> tuple[ImageSet, ImageSet]:
    if holds_batches(folder):
        return _pair(read_batches(folder, True), read_batches(folder, False), CIFAR10_CLASSES, "CIFAR-10")
    train, test, classes, suffix = read_image_folder(folder, cache=data_root() / "cache")
    name = folder.name
    if classes == CIFAR10_CLASSES and train[0].shape[2] == SIZE:
        name = f"CIFAR-10 ({suffix})"  # a copy is not the original: results obtained on it carry another name
    elif name.startswith(("CIFAR-10", "shapes")):
        name = f"folder {name}"  # not what is known by that name
    return _pair(train, test, classes, name)


def split(image_set: ImageSet, held_out: int, generator: Generator) -> tuple[ImageSet, ImageSet]:
    """Draw `held_out` images at random; returns the rest and the held-out ones."""
    count = len(image_set)
    held_out = number(held_out, "held_out", 1, count, whole=True, note=f", for {count} images")
    order = torch.randperm(count, generator=generator, device=generator.device).to(image_set.images.device)
    return image_set[order[held_out:]], image_set[order[:held_out]]


class BatchLoader:
    """Normalized batches of an `ImageSet`, drawn, augmented and normalized whole on the set's device.

    Iterating yields images, float32 `B×3×H×W`, `channels_last`, and labels, int64 `B`; the last batch may be smaller,
    and with `drop_last` it is left out then. `augment(images, generator)` works on uint8 batches and returns such.
    Everything random comes from `generator`, on the set's device.
    Raises `ValueError` for a batch size below 1 or over the size of the set, for shuffling without a generator, and
    while iterating for an augmentation that returns anything else.
    """

    def __init__(
        self,
        image_set: ImageSet,
        batch_size: int,
        *,
        shuffle: bool = False,
        augment: Augment | None = None,
        generator: Generator | None = None,
        drop_last: bool = False,
    ):
        batch_size = number(batch_size, "batch_size", 1, len(image_set) + 1, whole=True, note=", the number of images")
        if (shuffle or augment) and not isinstance(generator, Generator):
            raise ValueError("shuffle and augment draw random numbers, expected a torch.Generator as generator=")
        self.image_set, self.batch_size, self.drop_last = image_set, batch_size, drop_last
        self.shuffle, self.augment, self.generator = shuffle, augment, generator
        self._rows = image_set.images.permute(0, 2, 3, 1).contiguous()  # no copy for channels_last images

        std = image_set.std.clamp_min(1e-3)  # a channel that never changes is left at zero
        self._scale, self._shift = 1 / (255 * std), -image_set.mean / std

    @cached_property
    def fingerprint(self) -> str:
        """What a run is trained on, in words; equal for equal images, labels, order of drawing and batches."""
        parts = self._rows, self.image_set.labels, self.image_set.mean, self.image_set.std
        crc = 0
        for tensor in parts:
            # numpy declares its arrays as buffers from Python 3.12 on.
            crc = zlib.crc32(tensor.cpu().contiguous().numpy(), crc)  # type: ignore[arg-type]
        order = "shuffled" if self.shuffle else "in order"
        images = f"{len(self.image_set)} images of {self.image_set.name} (CRC {crc:08x})"
        whole = " (whole ones alone)" if self.drop_last else ""
        return f"{images}, {order}, in batches of {self.batch_size}{whole}, {'' if self.augment else 'not '}augmented"

    @property
    def num_classes(self) -> int:
        """How wide a network's output must be."""
        return len(self.image_set.classes)

    def __len__(self) -> int:
        whole, rest = divmod(len(self.image_set), self.batch_size)
        return whole if self.drop_last or not rest else whole + 1

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        labels, device = self.image_set.labels, self._rows.device
        order = torch.randperm(len(labels), generator=self.generator, device=device) if self.shuffle else None
        for start in range(0, len(self) * self.batch_size, self.batch_size):
            part = slice(start, start + self.batch_size)
            rows = self._rows[part] if order is None else self._rows.index_select(0, order[part])
            if self.augment:
                if order is None:
                    rows = rows.clone()  # a view of the set, which an augmentation that works in place would change
                # __init__ has made sure that there is a generator, which the type checker cannot see.
                changed = self.augment(rows.permute(0, 3, 1, 2), self.generator)  # type: ignore[arg-type]
                name = getattr(self.augment, "__name__", repr(self.augment))
                refuse_other_images(changed, f"what augment = {name} returns", len(rows), device)
                # Affine maps give NCHW; the copy back is of bytes, and none where the layout has stayed.
                rows = changed.permute(0, 2, 3, 1).contiguous()
            # By whole lines of pixels: three numbers at a time are slow.
            scale, shift = (channel.repeat(rows.shape[2]) for channel in (self._scale, self._shift))
            images = torch.mul(rows.flatten(2), scale).add_(shift).view(rows.shape).permute(0, 3, 1, 2)
            yield images, labels[part] if order is None else labels[order[part]]
