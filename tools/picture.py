"""The picture at the top of the README: what a norm averages over, what a convolution reads, what the runs reached.

    python tools/picture.py

Drawn from the layers and from data/reference/; the accuracies that it shows stand in the file too, for the tests.
"""

import io
import json
from functools import partial
from pathlib import Path

import pandas as pd
import torch
from matplotlib.figure import Figure
from PIL import Image, PngImagePlugin
from torch import Tensor, nn

from course_utils.analysis.diagrams import plot_norm_cubes, plot_reads
from course_utils.analysis.plotting import plot_seeds
from course_utils.files import REFERENCE
from course_utils.networks.layers import make_norm
from course_utils.runs.bands import read_published
from course_utils.runs.run import load_runs

FILE = Path(__file__).resolve().parents[1] / "site" / "_static" / "course.png"
NETWORK = "S8Net46k"
WIDTH, GAP = 1000, 20  # pixels


def shared_by(norm: str) -> Tensor:
    """Which values of 4 images of 8 channels and 5 positions move one output of a norm; bool 4×8×5."""
    images = torch.randn(4, 8, 5, 1, generator=torch.Generator().manual_seed(0)).requires_grad_()
    layer = make_norm(8, norm, num_groups=2)
    (gradient,) = torch.autograd.grad(layer(images)[0, -1, 0, 0], images)
    return gradient[..., 0] != 0


def reads(layer: nn.Conv2d) -> Tensor:
    """What two neighbouring outputs of the first channel read of 3×9×9 pixels: 1, 2 or, where both do, 3."""
    images = torch.ones(1, 3, 9, 9, requires_grad=True)
    nn.init.ones_(layer.weight)
    row = layer(images)[0, 0]
    middle = row.shape[0] // 2
    outputs = [row[middle, middle - 1 + k] for k in (0, 1)]
    one, other = (torch.autograd.grad(output, images, retain_graph=True)[0][0] != 0 for output in outputs)
    return one.long() + 2 * other.long()


def accuracies() -> pd.DataFrame:
    """The test accuracies of the runs of `NETWORK` in per cent, by norm."""
    rows = [
        (run.job.norm, 100 * run.test_accuracy)
        for run in load_runs(REFERENCE)
        if run.job.network == NETWORK and run.test_accuracy is not None
    ]
    return pd.DataFrame(rows, columns=["group", "accuracy"]).sort_values(["group", "accuracy"], ignore_index=True)


def panels() -> list[Figure]:
    convolution = partial(nn.Conv2d, 3, 3, 3, padding=1)
    convolutions = {"3×3": convolution(), "stride 2": convolution(stride=2), "dilation 2": convolution(dilation=2)}
    convolutions |= {"depthwise": convolution(groups=3)}
    published = {row["norm"]: 100 * row["published"] for row in read_published() if row["network"] == NETWORK}
    return [
        plot_norm_cubes({f"{norm} norm": shared_by(norm) for norm in ("batch", "layer", "group")}),
        plot_reads({name: reads(layer) for name, layer in convolutions.items()}),
        plot_seeds(accuracies(), published),
    ]


def drawn(figure: Figure, dpi: float) -> Image.Image:
    figure.savefig(buffer := io.BytesIO(), dpi=dpi)
    return Image.open(buffer)


def main() -> None:
    cubes, convolutions, seeds = panels()
    left = [drawn(figure, WIDTH / figure.get_figwidth()) for figure in (cubes, convolutions)]
    height = sum(image.height for image in left) + GAP
    seeds.set_size_inches(3.4, 4.4)
    seeds.axes[0].set_title(f"{NETWORK}, a dot for each seed", fontsize=10)
    right = drawn(seeds, height / seeds.get_figheight())
    picture = Image.new("RGB", (WIDTH + right.width, height), "white")
    picture.paste(left[0], (0, 0))
    picture.paste(left[1], (0, left[0].height + GAP))
    picture.paste(right, (WIDTH, 0))
    note = PngImagePlugin.PngInfo()
    note.add_text("accuracies", json.dumps(accuracies().to_numpy().tolist()))
    FILE.parent.mkdir(parents=True, exist_ok=True)
    picture.quantize(128).save(FILE, pnginfo=note, optimize=True)


if __name__ == "__main__":
    main()
