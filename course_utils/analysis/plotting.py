"""Figures of images, trainings, predictions and other measurements. They are computed elsewhere.

Every function returns a new `matplotlib.figure.Figure`. Colours are seaborn's `"colorblind"` (Okabe–Ito), and where
colours tell things apart, markers or line styles do so too.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import seaborn as sns
import torch
from matplotlib import pyplot as plt
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle
from torch import Tensor

from course_utils.analysis.figure_parts import grid, nothing, show
from course_utils.analysis.predictions import Predictions
from course_utils.data import ImageSet
from course_utils.data.augment import refuse_other_images
from course_utils.training import History

COLORS = sns.color_palette("colorblind")


def plot_images(images: Tensor, titles: Sequence | None = None, columns: int = 10) -> Figure:
    """A grid of uint8 `N×3×H×W` images, each under its title."""
    refuse_other_images(images, "images")
    if len(images) == 0:
        return nothing("no images")
    texts = [""] * len(images) if titles is None else [str(title) for title in titles]
    lines = 0 if titles is None else max(text.count("\n") + 1 for text in texts)
    figure, axes = grid(len(images), columns, 1.1, 1.1 + 0.2 * lines)
    for ax, image, text in zip(axes.flat[: len(images)], images, texts, strict=True):
        show(ax, image)
        ax.set_title(text, fontsize=9)
    return figure


def plot_augmentations(
    images: Tensor, augmentations: Mapping[str, Callable], generator: torch.Generator, draws: int = 6
) -> Figure:
    """One row per augmentation: the original `images[row]` (uint8 `3×H×W`), then `draws` random versions of it."""
    figure, axes = grid(len(augmentations) * (draws + 1), draws + 1, 1.1, 1.15)
    for row, (name, augment) in enumerate(augmentations.items()):
        original = images[row % len(images)]
        copies = augment(original[None].repeat(draws, 1, 1, 1), generator)
        refuse_other_images(copies, f"what augmentation {name!r} returns", draws)
        for ax, image in zip(axes[row], [original, *copies], strict=True):
            show(ax, image)
        axes[row, 0].set_ylabel(name, rotation=0, ha="right", va="center", fontsize=9)
    axes[0, 0].set_title("original", fontsize=9)
    axes[0, 1].set_title("random draws", fontsize=9, loc="left")
    return figure


def plot_histories(histories: Mapping[str, History]) -> Figure:
    """Loss and accuracy by epoch of several runs: colour and marker tell the run, dashes the training part."""
    frame = pd.concat([history.frame().assign(run=name) for name, history in histories.items()])
    figure, axes = plt.subplots(1, 2, figsize=(10, 4.2), layout="constrained")
    for ax, metric in zip(axes, ("loss", "accuracy"), strict=True):
        for index, name in enumerate(histories):
            for part, dashes in (("train", "--"), ("validation", "-")):
                line = frame[(frame["run"] == name) & (frame["part"] == part)]
                values = line[metric] * (100 if metric == "accuracy" else 1)
                if len(line):
                    every = max(1, len(line) // 6)  # markers of several runs beside one another, not on top
                    style = dict(color=COLORS[index % 10], marker="os^Dv"[index % 5], markersize=5)
                    style |= dict(markevery=(index % every, every), linewidth=1 if part == "train" else 1.6)
                    ax.plot(line["epoch"], values, dashes, label=f"{name}, {part}", **style)
        ax.set(xlabel="epoch", ylabel={"loss": "loss (nats)", "accuracy": "accuracy (%)"}[metric])
        ax.xaxis.get_major_locator().set_params(integer=True)
        ax.grid(alpha=0.3)
    lines = axes[0].get_lines()  # named here, since a legend leaves out what begins with "_"
    labels = [line.get_label() for line in lines]
    figure.legend(lines, labels, loc="outside lower center", ncols=min(3, len(histories)), fontsize=9)
    plt.close(figure)
    return figure


def plot_seeds(runs: pd.DataFrame, published: Mapping[str, float], hue: str = "group") -> Figure:
    """Accuracy of several seeds: a dot for each run, a bar for their mean, a dashed line for the published figure.

    `runs`: a row per run, with its `group`, its `accuracy` in per cent, and the column `hue` by which it is coloured;
    `published`: per cent, by group.
    """
    if runs.empty:
        return nothing("no runs")
    groups = list(dict.fromkeys(runs["group"]))
    figure, ax = plt.subplots(figsize=(1.1 + 0.9 * len(groups), 3), layout="constrained")
    style: dict[str, Any] = dict(palette="colorblind", size=6, legend=False)
    sns.swarmplot(runs, x="group", y="accuracy", hue=hue, ax=ax, **style)
    for x, group in enumerate(groups):
        ax.hlines(runs["accuracy"][runs["group"] == group].mean(), x - 0.25, x + 0.25, color="black", linewidth=2)
        if group in published:
            ax.hlines(published[group], x - 0.35, x + 0.35, color="black", linestyle="--", linewidth=1)
    handles = [Line2D([], [], color="black", linewidth=2, label="mean")]
    handles += [Line2D([], [], color="black", linestyle="--", linewidth=1, label="published")] if published else []
    ax.legend(handles=handles, fontsize=8, frameon=False, loc="best")
    ax.set(xlabel="", ylabel="test accuracy (%)")
    ax.grid(axis="y", alpha=0.3)
    plt.close(figure)
    return figure


def _per_cent(share: float) -> str:
    return ">99.9 %" if share > 0.999 else f"{100 * share:.1f} %"


def plot_misclassified(
    image_set: ImageSet, predictions: Predictions, n: int = 10, columns: int = 5, title: str = ""
) -> Figure:
    """The `n` most confidently misclassified images, each with its true and its predicted class and the confidence.

    Raises `ValueError` for predictions that are not of the images of `image_set` in their order.
    """
    if not torch.equal(predictions.labels, image_set.labels.cpu()):
        raise ValueError("the predictions have other labels than the images, expected the same ones in their order")
    worst = predictions.misclassified[:n]
    if len(predictions.misclassified) == 0:
        return nothing("no image is misclassified")
    titles = [
        f"{image_set.classes[predictions.labels[i]]}, taken for\n"
        f"{image_set.classes[predictions.predicted[i]]} ({_per_cent(predictions.confidence[i].item())})"
        for i in worst.tolist()
    ]
    figure, axes = grid(len(worst), columns, 1.75, 1.9)
    figure.suptitle(title, fontsize=11)
    for ax, index, title in zip(axes.flat, worst.tolist(), titles, strict=False):
        show(ax, image_set.images[index])
        ax.set_title(title, fontsize=9)
    return figure


def plot_maps(images: Tensor, maps: Tensor, titles: Sequence[str]) -> Figure:
    """uint8 `N×3×H×W` images, and below each its float `N×h×w` map, from its smallest (dark) to its largest value."""
    figure, axes = grid(2 * len(images), len(images), 1.1, 1.35)
    for column, (image, heat, title) in enumerate(zip(images, maps, titles, strict=True)):
        show(axes[0, column], image)
        axes[1, column].imshow(heat.float().cpu().numpy(), cmap="viridis", interpolation="nearest")
        axes[0, column].set_title(title, fontsize=9)
    return figure


def plot_confusion(matrix: Tensor, classes: Sequence[str], title: str = "") -> Figure:
    """A confusion matrix (int64 C×C, rows: true) in percent of each true class.

    Colours tell the mistakes apart; the diagonal, far above them, is grey.
    """
    shares = (100 * matrix.double() / matrix.sum(1, keepdim=True).clamp_min(1)).numpy()
    right = np.eye(len(shares), dtype=bool)
    figure, ax = plt.subplots(figsize=(6.4, 5.4), layout="constrained")
    options: dict[str, Any] = dict(annot=True, fmt=".0f", annot_kws={"size": 8}, ax=ax)
    options |= dict(xticklabels=classes, yticklabels=classes)
    bar = {"label": "mistakes, % of the true class"}
    sns.heatmap(shares, mask=right, cmap="Blues", vmin=0, cbar_kws=bar, **options)
    sns.heatmap(shares, mask=~right, cmap=["#dddddd"], cbar=False, **options)
    ax.set(xlabel="predicted class", ylabel="true class", title=title)
    ax.tick_params(axis="x", rotation=40)
    ax.tick_params(axis="y", rotation=0)
    plt.setp(ax.get_xticklabels(), ha="right", rotation_mode="anchor")
    plt.close(figure)
    return figure


def plot_receptive_field(gradients: Mapping[str, Tensor], fields: Mapping[str, int]) -> Figure:
    """Where the input moves one central output: a panel per layer, its gradient (`H×W`) on a log scale of colours.

    The dashed square is the theoretical receptive field of `fields[name]` pixels, centred on the picture.
    """
    figure, axes = grid(len(gradients), 4, 2.6, 2.9)
    figure.set_figwidth(figure.get_figwidth() + 1.4)  # for the bar
    for ax, (name, gradient) in zip(axes.flat, gradients.items(), strict=False):
        shares = (gradient / gradient.max().clamp_min(1e-30)).clamp_min(1e-4).log10()
        picture = ax.imshow(shares.numpy(), cmap="viridis", vmin=-4, vmax=0)
        rows, columns = gradient.nonzero(as_tuple=True)
        side = fields[name]
        x, y = ((where.min() + where.max()).item() / 2 - side / 2 for where in (columns, rows))
        ax.add_patch(Rectangle((x, y), side, side, fill=False, linestyle="--", linewidth=1.5, edgecolor="white"))
        ax.set_title(f"{name}: {side} pixels", fontsize=9)
        ax.set(xlim=(-0.5, gradient.shape[1] - 0.5), ylim=(gradient.shape[0] - 0.5, -0.5))
    colorbar = figure.colorbar(picture, ax=axes.ravel().tolist(), shrink=0.8, ticks=[-4, -3, -2, -1, 0])
    colorbar.set_label("gradient, share of the largest")
    colorbar.set_ticklabels(["≤ 1/10,000", "1/1000", "1/100", "1/10", "1"])
    return figure
