"""The pictures of layers and networks show what they were given."""

import matplotlib
import pytest
import torch
from matplotlib import pyplot as plt
from matplotlib.colors import to_rgba
from mpl_toolkits.mplot3d import Axes3D
from torch import nn

from course_utils.analysis import diagrams
from course_utils.analysis.plotting import COLORS
from course_utils.networks import make_network

matplotlib.use("Agg")


@pytest.fixture(autouse=True)
def nothing_left_open():
    yield
    left_open = plt.get_fignums()
    plt.close("all")
    assert left_open == []


def test_norm_cubes(monkeypatch):
    drawn = []
    original = Axes3D.voxels
    keep = lambda ax, filled, **options: drawn.append(options["facecolors"]) or original(ax, filled, **options)  # noqa: E731
    monkeypatch.setattr(Axes3D, "voxels", keep)
    one_channel, one_image = torch.zeros(2, 2, 3, 4, dtype=torch.bool)
    one_channel[:, 1], one_image[0] = True, True
    figure = diagrams.plot_norm_cubes({"batch": one_channel, "layer": one_image})
    figure.canvas.draw()
    assert [ax.get_title() for ax in figure.axes] == ["batch", "layer"]
    for colors, members in zip(drawn, (one_channel, one_image), strict=True):
        blue = (colors == to_rgba(COLORS[0])).all(-1)
        assert torch.equal(torch.from_numpy(blue), members.permute(1, 0, 2))  # x: channels, y: images, z: positions


def test_reads():
    reads = torch.zeros(2, 3, 3, dtype=torch.int64)
    reads[0, 1, 0], reads[0, 1, 1], reads[1, 2, 2] = 1, 3, 2
    figure = diagrams.plot_reads({"layer": reads})
    figure.canvas.draw()
    (ax,) = figure.axes
    color_at = {(patch.get_x(), patch.get_y()): patch.get_facecolor()[:3] for patch in ax.patches}
    assert len(color_at) == 18 and ax.get_title() == "layer"
    one, other, both = (to_rgba(color)[:3] for color in COLORS[:3])
    assert color_at[0, 1] == one and color_at[1, 1] == both  # rows from the top, the first channel in front
    assert color_at[2 + 1.5, 0 + 1.5] == other
    assert [text.get_text() for text in figure.legends[0].texts] == [
        "one output reads it",
        "its neighbour does",
        "both do",
    ]


@pytest.mark.parametrize("name", ["S8Net46k", "S9Net180k", "S9Net85k"])
def test_network_diagram_is_of_the_network(name):
    model = make_network(name)
    figure = diagrams.plot_network({name: model})
    figure.canvas.draw()
    (ax,) = figure.axes
    sizes = {}

    def note(module, inputs, output):
        sizes[module] = output.shape[2], output.shape[1] / 8

    layers = [
        m for m in model.modules() if isinstance(m, nn.Conv2d | nn.MaxPool2d | nn.AvgPool2d | nn.AdaptiveAvgPool2d)
    ]
    for layer in layers:
        layer.register_forward_hook(note)
    model(torch.zeros(2, 3, 32, 32))
    found = [(patch.get_height(), patch.get_width()) for patch in ax.patches]
    assert found == [(32, 3 / 8), *(sizes[layer] for layer in layers)]
    numbers = [(text.get_position()[0], text.get_text()) for text in ax.texts]  # below and above the middle of a box
    middles = [patch.get_x() + patch.get_width() / 2 for patch in ax.patches]
    expected = [
        (x, f"{number:g}") for x, (high, wide) in zip(middles, found, strict=True) for number in (8 * wide, high)
    ]
    assert numbers == expected
    strided = [isinstance(layer, nn.Conv2d) and layer.stride != (1, 1) for layer in layers]
    assert [bool(patch.get_hatch()) for patch in ax.patches[1:]] == strided
    labels = [text.get_text() for text in figure.legends[0].texts]
    assert ("stride 2" in labels) is any(strided) and ("depthwise" in labels) is name.startswith("S9")
    dilated = [isinstance(layer, nn.Conv2d) and layer.dilation != (1, 1) for layer in layers]
    colors = [patch.get_facecolor()[:3] == tuple(COLORS[diagrams.KINDS.index("dilated")]) for patch in ax.patches[1:]]
    assert colors == dilated


def test_network_diagram_names_the_strides():
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 3, stride=3), nn.Conv2d(8, 8, 3, stride=2))
    labels = [text.get_text() for text in diagrams.plot_network({"net": model}).legends[0].texts]
    assert "stride 2 or 3" in labels
