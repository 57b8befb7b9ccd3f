"""Building blocks against torch.nn.functional."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.testing import assert_close

from course_utils.analysis.networks import budget
from course_utils.networks.layers import NORMS, conv_block, depthwise_separable, make_norm, norm_of


@pytest.mark.parametrize("norm", ["batch", "layer", "group"])
def test_norms_match_functional(norm, generator):
    activations = torch.randn(8, 12, 5, 7, generator=generator) * 3 + 2
    weight, bias = torch.randn(2, 12, generator=generator)
    layer = make_norm(12, norm, num_groups=3)
    layer.load_state_dict(layer.state_dict() | {"weight": weight, "bias": bias})
    expected = {
        "batch": F.batch_norm(activations, None, None, weight, bias, training=True),
        "layer": F.layer_norm(activations, (12, 5, 7)) * weight[:, None, None] + bias[:, None, None],
        "group": F.group_norm(activations, 3, weight, bias),
    }
    assert_close(layer(activations), expected[norm], rtol=1e-5, atol=1e-5)
    assert sum(p.numel() for p in layer.parameters()) == 24
    assert isinstance(make_norm(12, "none"), nn.Identity)


@pytest.mark.parametrize("norm_first", [False, True])
@pytest.mark.parametrize("norm", NORMS)
def test_relu_in_place_keeps_no_memory_and_changes_no_gradient(norm, norm_first, generator):
    block = conv_block(3, 8, norm=norm, norm_first=norm_first)
    apart = [nn.ReLU() if isinstance(layer, nn.ReLU) else layer for layer in block]
    images = torch.randn(4, 3, 6, 6, generator=generator)
    gradients = []
    for layers in (block, nn.Sequential(*apart)):
        layers(images).square().sum().backward()
        gradients.append([parameter.grad.clone() for parameter in block.parameters()])
        block.zero_grad()
    assert_close(*gradients, rtol=0, atol=0)
    assert budget(block, (3, 6, 6)).activation_bytes == 4 * 8 * 36 * (1 if norm == "none" else 2)


@pytest.mark.parametrize("num_groups", [0, -2, 5, 24])
def test_norm_errors_list_the_choices(num_groups):
    with pytest.raises(ValueError, match=f"num_groups is {num_groups}, .*12 channels: 1, 2, 3, 4, 6, 12$"):
        make_norm(12, "group", num_groups)
    with pytest.raises(ValueError, match="unknown norm 'instance', expected one of batch, layer, group, none"):
        make_norm(12, "instance")


@pytest.mark.parametrize(
    ("options", "layers"),
    [
        ({}, "Conv2d ReLU BatchNorm2d Dropout"),
        (dict(norm_first=True), "Conv2d BatchNorm2d ReLU Dropout"),
        (dict(dropout=None), "Conv2d ReLU BatchNorm2d"),
        (dict(separable=True, norm="layer"), "Conv2d Conv2d ReLU GroupNorm Dropout"),
        (dict(separable=True, norm="none", norm_first=True, dropout=None), "Conv2d Conv2d Identity ReLU"),
    ],
)
def test_conv_block_stacks_its_layers(options, layers):
    assert [type(layer).__name__ for layer in conv_block(4, 8, **options)] == layers.split()


@pytest.mark.parametrize("separable", [False, True])
@pytest.mark.parametrize("norm", ["batch", "layer", "group", "none"])
@pytest.mark.parametrize("bias", [None, False, True])
def test_conv_block_passes_its_options_on(separable, norm, bias):
    geometry = dict(kernel_size=5, stride=2, padding=3, dilation=2)
    block = conv_block(4, 6, **geometry, bias=bias, separable=separable, norm=norm, num_groups=3, dropout=0.3)
    convolutions, normalization, dropout = block[:-3], block[-2], block[-1]
    assert all(getattr(convolutions[0], name) == (value, value) for name, value in geometry.items())
    assert convolutions[0].groups == (4 if separable else 1)
    # without an argument: a bias where the normalization has none
    assert {layer.bias is not None for layer in convolutions} == {norm == "none" if bias is None else bias}
    assert getattr(normalization, "num_groups", None) == {"layer": 1, "group": 3}.get(norm)
    assert dropout.p == 0.3


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(
    ("kernel_size", "options"),
    [(3, {}), (3, dict(stride=2, padding=0)), (3, dict(dilation=2, padding=2)), (5, dict(stride=2, padding=3))],
)
def test_depthwise_separable_is_a_convolution_with_a_product_kernel(kernel_size, options, bias, generator):
    images = torch.randn(2, 4, 11, 13, generator=generator)
    pair = depthwise_separable(4, 6, kernel_size, bias=bias, **options)
    assert sum(p.numel() for p in pair.parameters()) == 4 * kernel_size**2 + 4 * 6 + (4 + 6) * bias
    depthwise, pointwise = pair[0].weight, pair[1].weight
    geometry = dict(padding=1) | options
    grouped = F.conv2d(images, depthwise, pair[0].bias, groups=4, **geometry)
    assert_close(pair(images), F.conv2d(grouped, pointwise, pair[1].bias))
    dense_bias = pointwise[:, :, 0, 0] @ pair[0].bias + pair[1].bias if bias else None
    dense = F.conv2d(images, pointwise * depthwise.transpose(0, 1), dense_bias, **geometry)
    assert_close(pair(images), dense, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("norm", NORMS)
def test_norm_of_a_network(norm):
    assert norm_of(nn.Sequential(nn.Conv2d(3, 8, 3), make_norm(8, norm))) == norm
