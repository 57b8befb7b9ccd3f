"""What several figures of `plotting` are made of: panels, an image in one, a sentence in place of a figure."""

import numpy as np
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor


def grid(n: int, columns: int, width: float, height: float) -> tuple[Figure, np.ndarray]:
    """A figure with `n` empty panels of `width×height` inches and no ticks; the others are switched off."""
    if n < 1:
        raise ValueError(f"there is nothing to draw: expected at least 1 panel, not {n}")
    columns = min(n, columns)
    rows = -(-n // columns)
    figure, axes = plt.subplots(
        rows, columns, figsize=(columns * width, rows * height), squeeze=False, layout="constrained"
    )
    for index, ax in enumerate(axes.flat):
        ax.set(xticks=[], yticks=[])
        ax.set_visible(index < n)
    plt.close(figure)  # returned, not shown: a notebook draws the figure once, as the cell's result
    return figure, axes


def show(ax: Axes, image: Tensor) -> None:
    """Draw a uint8 `3×H×W` image."""
    ax.imshow(image.permute(1, 2, 0).cpu().numpy(), interpolation="nearest")


def nothing(text: str) -> Figure:
    """A figure that only says so."""
    figure, axes = grid(1, 1, 4, 1)
    axes[0, 0].text(0.5, 0.5, text, ha="center", va="center")
    return figure
