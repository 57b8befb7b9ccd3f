"""Diagrams of how layers and networks work; nothing measured."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib import pyplot as plt
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure
from matplotlib.patches import Patch, Rectangle
from torch import Tensor, nn

from course_utils.analysis.operations import Operation, trace
from course_utils.analysis.plotting import COLORS


def plot_norm_cubes(sets: Mapping[str, Tensor]) -> Figure:
    """Activations as a cube of images × channels × positions, with the values of one mean; a panel each.

    `sets`: bool `N×C×P`, true for the values of one mean.
    """
    figure = plt.figure(figsize=(2.7 * len(sets), 2.4))
    for index, (name, members) in enumerate(sets.items()):
        ax: Any = figure.add_axes((index / len(sets), -0.05, 1 / len(sets), 1), projection="3d")
        cube = members.permute(1, 0, 2).numpy()  # channels to the right, images to the back, positions upwards
        colors = np.where(cube[..., None], to_rgba(COLORS[0]), to_rgba("#eeeeee"))
        ax.voxels(np.ones_like(cube), facecolors=colors, edgecolor="#777777", linewidth=0.4, shade=False)
        ax.set_box_aspect(cube.shape, zoom=1.02)
        ax.set(xticks=[], yticks=[], zticks=[])
        ax.set_title(name, fontsize=11, y=0.97)
        for label, place in {"channels": (0.38, 0.06), "images": (0.9, 0.15), "positions": (0.06, 0.5)}.items():
            ax.text2D(
                *place, label, transform=ax.transAxes, fontsize=8, ha="center", rotation=90 * (label == "positions")
            )
        ax.view_init(elev=22, azim=-58)
        ax.set_axis_off()
    plt.close(figure)
    return figure


def plot_reads(reads: Mapping[str, Tensor]) -> Figure:
    """What one output reads: a panel per layer, with the channels of the input behind one another.

    `reads`: int64 `C×H×W`: 1 where this output reads, 2 where its neighbour does, 3 where both do.
    """
    figure, axes = plt.subplots(1, len(reads), figsize=(2.7 * len(reads), 2.9), squeeze=False, layout="constrained")
    fills: list[Any] = ["#f4f4f4", to_rgba(COLORS[0], 0.95), to_rgba(COLORS[1], 0.95), to_rgba(COLORS[2], 0.95)]
    for ax, (name, channels) in zip(axes.flat, reads.items(), strict=True):
        rows, columns = channels.shape[1:]
        for depth in reversed(range(len(channels))):
            shift = 0.5 * rows * depth
            for row in range(rows):
                for column in range(columns):
                    corner = (column + shift, rows - 1 - row + shift)
                    color = fills[int(channels[depth, row, column])]
                    ax.add_patch(Rectangle(corner, 1, 1, facecolor=color, edgecolor="#888888", linewidth=0.4))
        side = max(rows, columns) * (1 + len(channels)) / 2 + 0.3
        ax.set(xlim=(-0.3, side), ylim=(-0.3, side), aspect="equal", title=name)
        ax.axis("off")
    names = ["one output reads it", "its neighbour does", "both do"]
    handles = [Patch(facecolor=fill, label=label) for fill, label in zip(fills[1:], names, strict=True)]
    figure.legend(handles=handles, loc="outside lower center", ncols=3, fontsize=9, frameon=False)
    plt.close(figure)
    return figure


KINDS = ("convolution", "1×1 convolution", "depthwise", "dilated", "pooling")


def _kind(operation: Operation) -> str:
    window = operation.window
    if operation.kind.endswith("pooling"):
        return "pooling"
    if max(window.dilation) > 1:
        return "dilated"
    if operation.depthwise:
        return "depthwise"
    return "1×1 convolution" if max(window.kernel) == 1 else "convolution"


def plot_network(models: Mapping[str, nn.Module], input_size: tuple[int, int, int] = (3, 32, 32)) -> Figure:
    """The convolutions and poolings of networks, in order of call, after a box for the images.

    A box is as high as the grid of its output and as wide as its channels; hatched ones have a stride.
    """
    figure, axes = plt.subplots(
        len(models), 1, figsize=(10, 2.3 * len(models)), sharex=True, squeeze=False, layout="constrained"
    )
    colors, found, strides = dict(zip(KINDS, COLORS, strict=False)), set(), set()
    strided: dict[str, Any] = dict(hatch="///")
    for ax, (name, model) in zip(axes.flat, models.items(), strict=True):
        x = 0.0
        for operation in trace(model, input_size):
            if (
                operation.kind not in ("images", "convolution", "max pooling", "average pooling")
                or not operation.grid.sizes
            ):
                continue
            height, width = operation.grid.sizes[0], operation.grid.channels / 8
            kind = "images" if operation.kind == "images" else _kind(operation)
            stride = 1 if kind in ("images", "pooling") else max(operation.window.stride)
            style = strided if stride > 1 else {}
            found.add(kind)
            strides.add(stride)
            box = dict(facecolor=colors.get(kind, "white"), edgecolor="black", linewidth=0.6)
            ax.add_patch(Rectangle((x, -height / 2), width, height, **box, **style))
            ax.text(x + width / 2, -height / 2 - 1, f"{operation.grid.channels}", ha="center", va="top", fontsize=7)
            ax.text(x + width / 2, height / 2 + 0.7, f"{height}", ha="center", va="bottom", fontsize=7, color="#444444")
            x += width + 2.2
        side = 0.62 * max(input_size[1:])
        ax.set(xlim=(-1, max(x, ax.get_xlim()[1])), ylim=(-side, side), aspect="equal")
        ax.set_title(name, loc="left", fontsize=10)
        ax.axis("off")
    handles = [Patch(facecolor=color, edgecolor="black", label=kind) for kind, color in colors.items() if kind in found]
    if larger := sorted(strides - {1}):
        label = "stride " + " or ".join(map(str, larger))
        handles.append(Patch(facecolor="white", edgecolor="black", label=label, **strided))
    figure.legend(handles=handles, loc="outside lower center", ncols=len(handles), fontsize=8, frameon=False)
    plt.close(figure)
    return figure
