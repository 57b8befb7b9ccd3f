"""Batches of images and labels: what passes for them, and what is counted over a pass."""

from collections.abc import Iterable, Iterator
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from course_utils.device import Placement


class Batches(Protocol):
    """What is trained and evaluated on: images, float32 `B×3×H×W`, and labels, int64 `B`, in batches of known number.

    A `BatchLoader`, a `torch.utils.data.DataLoader` and a list of pairs of tensors are such.
    """

    def __len__(self) -> int: ...

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]: ...


def refuse_augmented(batches: object) -> None:
    """Raise `ValueError` for a `BatchLoader` that augments: every pass would measure another data set."""
    if getattr(batches, "augment", None) is not None:
        raise ValueError("these batches are augmented, expected the images as they are: a BatchLoader without augment=")


EXPECTED = "expected pairs of tensors, images and labels, from a DataLoader or BatchLoader(image_set, batch_size)"


def placed(
    batches: Iterable[Any], placement: Placement, image_size: int | None = None
) -> Iterator[tuple[Tensor, Tensor]]:
    """The images and labels of each batch as `placement` wants them; `ValueError` for what is no such pair.

    `image_size`: the images are resized to so many pixels on a side, smoothed before (bilinear with `antialias`).
    """
    if not isinstance(batches, Iterable):
        raise ValueError(f"{type(batches).__name__} holds no batches, {EXPECTED}")
    for batch in batches:
        if not isinstance(batch, tuple | list) or [isinstance(part, Tensor) for part in batch] != [True, True]:
            parts = ", ".join(type(part).__name__ for part in batch) if isinstance(batch, tuple | list) else ""
            given = f"{type(batch).__name__} ({parts})" if parts else type(batch).__name__
            raise ValueError(f"a batch of this {type(batches).__name__} is a {given}, {EXPECTED}")
        images, labels = placement.images(batch[0]), placement.labels(batch[1], len(batch[0]))
        if image_size is not None:
            images = F.interpolate(images, (image_size, image_size), mode="bilinear", antialias=True)
        yield images, labels


class Tally:
    """Sums over the images of a pass, which stay on the device: to ask for a number would make a GPU wait."""

    def __init__(self, device: torch.device):
        self.loss, self.correct, self.count = torch.zeros((), device=device), torch.zeros((), device=device), 0
        self.extremes: list[Tensor] = []  # the lowest and the highest label of each batch

    def within(self, labels: Tensor, classes: int) -> Tensor:
        """`labels`, those out of range replaced: in `cross_entropy` one would end CUDA for the rest of the process."""
        self.classes = classes
        self.extremes += labels.aminmax()
        return labels.clamp(0, classes - 1)

    def add(self, loss: Tensor, logits: Tensor, labels: Tensor) -> None:
        """Count a batch, whose losses sum up to `loss`."""
        self.loss += loss
        self.correct += (logits.argmax(1) == labels).sum()
        self.count += len(labels)

    def means(self) -> tuple[float, float]:
        """Mean loss and accuracy; `ValueError` if a label was none of the classes, or nothing was counted."""
        if self.count == 0:
            raise ValueError("there are no batches to train or evaluate on")
        refuse_other_classes(torch.stack(self.extremes), self.classes)
        return self.loss.item() / self.count, self.correct.item() / self.count


def refuse_other_classes(labels: Tensor, classes: int) -> None:
    """Raise `ValueError` if `labels` are not all from 0 to below `classes`."""
    low, high = labels.min().item(), labels.max().item()
    if low < 0 or high >= classes:
        raise ValueError(f"labels reach from {low} to {high}, expected 0 to {classes - 1}, one of {classes} outputs")
