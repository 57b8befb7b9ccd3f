"""The five networks against their layer tables, as torchsummary prints them, and what the tables cannot show."""

import csv
import re
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
import torchsummary
from torch import nn
from torch.testing import assert_close

from course_utils.networks import NETWORKS, make_network

NORM_LAYERS = {"batch": "BatchNorm2d", "layer": "GroupNorm", "group": "GroupNorm", "none": "Identity"}
# table, parameters, num_groups, and (kernel_size, stride, padding, dilation) of all convolutions that are
# neither 3×3 with padding 1 nor plain 1×1, in order of call
FACTS = {
    "S8Net46k": ("s8_46k", 46_202, 4, [(3, 1, 0, 1), (3, 1, 0, 1)]),
    "S8Net38k": ("s8_38k", 37_664, 2, [(3, 1, 0, 1)]),
    "S8Net31k": ("s8_31k", 31_216, 4, [(3, 1, 0, 1), (3, 1, 0, 1)]),
    "S9Net180k": ("s9_180k", 180_298, 4, [(3, 2, 1, 1), (3, 2, 1, 2), (3, 2, 1, 2)]),
    "S9Net85k": ("s9_85k", 84_904, 4, [(3, 1, 0, 1), (1, 2, 1, 1), (3, 1, 2, 2), (3, 2, 1, 1), (3, 2, 1, 1)]),
}
every_network = pytest.mark.parametrize("name", NETWORKS)
every_norm = pytest.mark.parametrize("norm", NORM_LAYERS)


def layers(model: nn.Module, kind: type) -> list[nn.Module]:
    return [module for module in model.modules() if isinstance(module, kind)]


def read_table(name: str, norm: str) -> list[tuple]:
    """Rows of layer, channels, height, width, parameters, with the normalization's name replaced by that of `norm`."""
    with (Path(__file__).parents[1] / "tables" / f"{FACTS[name][0]}.csv").open(newline="") as file:
        rows = [(row["layer"], *(int(row[key]) for key in list(row)[2:])) for row in csv.DictReader(file)]
    return [(NORM_LAYERS[norm] if "Norm" in row[0] else row[0], *row[1:]) for row in rows]


@every_network
@every_norm
def test_layers_and_parameters_are_those_of_the_table(name, norm, capsys):
    model = make_network(name, norm=norm).eval()
    torchsummary.summary(model, (3, 32, 32), device="cpu")
    printed = capsys.readouterr().out.replace(",", "")
    rows = re.findall(r"^\s*(\w+)-\d+\s+\[-1 (\d+) (\d+) (\d+)\]\s+(\d+)$", printed, re.MULTILINE)
    rows, expected = [(row[0], *map(int, row[1:])) for row in rows], read_table(name, norm)
    if norm == "none":  # what normalizes nothing has no parameters; the convolutions before it have a bias instead
        assert [row[:4] for row in rows] == [row[:4] for row in expected]
        assert all(conv.bias is not None for conv in layers(model, nn.Conv2d) if conv.kernel_size == (3, 3))
    else:
        assert rows == expected
        assert f"\nTotal params: {FACTS[name][1]}\n" in printed
        assert sum(p.numel() for p in model.parameters()) == FACTS[name][1]


@every_network
def test_what_the_table_cannot_show(name):
    _, _, num_groups, unusual = FACTS[name]
    model = make_network(name, norm="group")
    names = ("kernel_size", "stride", "padding", "dilation")
    geometry = [tuple(getattr(conv, name) for name in names) for conv in layers(model, nn.Conv2d)]
    assert all(rows == columns for conv in geometry for rows, columns in conv)
    geometry = [tuple(rows for rows, _ in conv) for conv in geometry]
    assert [conv for conv in geometry if conv not in {(3, 1, 1, 1), (1, 1, 0, 1)}] == unusual
    pools = [(pool.kernel_size, pool.stride, pool.padding) for pool in layers(model, nn.MaxPool2d)]
    assert pools == ([(2, 2, 0)] * 2 if name.startswith("S8") else [])
    assert {layer.p for layer in layers(model, nn.Dropout)} == {0}
    assert {layer.num_groups for layer in layers(model, nn.GroupNorm)} == {num_groups}


@every_network
def test_the_classifier_averages_the_whole_grid(name, generator):
    model, found = make_network(name), {}
    (pool,) = layers(model, (nn.AvgPool2d, nn.AdaptiveAvgPool2d))
    pool.register_forward_hook(lambda module, inputs, output: found.update(before=inputs[0], after=output))
    model(torch.randn(2, 3, 32, 32, generator=generator))
    torch.testing.assert_close(found["after"], found["before"].mean((2, 3), keepdim=True))


@every_network
@every_norm
def test_arguments_arrive(name, norm):
    num_groups = 4 if FACTS[name][2] == 2 else 2  # not the default
    model = make_network(name, norm=norm, num_groups=num_groups, dropout=0.25, num_classes=7)
    assert model(torch.randn(3, 3, 32, 32)).shape == (3, 7)
    assert {layer.p for layer in layers(model, nn.Dropout)} == {0.25}
    expected = {"layer": {1}, "group": {num_groups}}.get(norm, set())
    assert {layer.num_groups for layer in layers(model, nn.GroupNorm)} == expected


@every_network
def test_a_network_is_its_layers_in_order(name):
    """No more and no less; S8Net38k's ReLU alone is no layer but a function, after each 3×3 convolution."""
    torch.manual_seed(0)
    model = make_network(name, norm="group").eval()
    images = activations = torch.randn(4, 3, 32, 32)
    for layer in (module for module in model.modules() if not list(module.children())):
        activations = layer(activations)
        if name == "S8Net38k" and isinstance(layer, nn.Conv2d) and layer.kernel_size == (3, 3):
            activations = F.relu(activations)
    assert_close(model(images), activations.flatten(1))


def test_unknown_network_lists_the_choices():
    with pytest.raises(ValueError, match=f"unknown network 'S10', expected one of {', '.join(NETWORKS)}"):
        make_network("S10")
