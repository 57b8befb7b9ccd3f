"""The checks of the exercises: right answers pass, wrong ones are told what is wrong with them."""

from functools import partial

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from course_utils.exercises import CHECKS, check_answer
from course_utils.networks import S8Net46k, S9Net85k, S9Net180k
from course_utils.networks.layers import conv_block
from course_utils.networks.variants import S9Net180kPooled, S9Net180kUndilated


def fold(convolution: nn.Conv2d, norm: nn.BatchNorm2d) -> nn.Conv2d:
    return nn.utils.fusion.fuse_conv_bn_eval(convolution.eval(), norm)


def fold_plain(convolution: nn.Conv2d, norm: nn.BatchNorm2d, bias: bool = False, dilation: bool = False) -> nn.Conv2d:
    """Right for a convolution with a bias; forgets what is not asked for."""
    sizes = (convolution.in_channels, convolution.out_channels, convolution.kernel_size, convolution.stride)
    folded = nn.Conv2d(*sizes, convolution.padding, convolution.dilation if dilation else 1)
    factor = norm.weight / (norm.running_var + norm.eps).sqrt()
    folded.weight.data = convolution.weight * factor[:, None, None, None]
    before = convolution.bias if convolution.bias is not None or not bias else torch.zeros(6)
    folded.bias.data = (before - norm.running_mean) * factor + norm.bias
    return folded


def forgets_eps(convolution: nn.Conv2d, norm: nn.BatchNorm2d) -> nn.Conv2d:
    norm.eps = 1e-5
    return fold(convolution, norm)


def small(last: int = 10) -> nn.Sequential:
    """A network that keeps the rules with few parameters."""
    layers = [nn.Conv2d(3, 8, 3), nn.Conv2d(8, 4, 1), nn.MaxPool2d(2), nn.Conv2d(4, 8, 3), nn.Conv2d(8, 4, 1)]
    return nn.Sequential(*layers, nn.MaxPool2d(2), nn.Conv2d(4, last, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())


class MeanOnly(nn.Module):
    def __init__(self, channels: int):
        super().__init__()

    def forward(self, x):
        return x - x.mean((0, 2, 3), keepdim=True)


class NoChannels(nn.Module):
    def __init__(self):
        super().__init__()


def repaired(dilation: int = 2, padding: int = 1) -> nn.Module:
    """`S9Net180k` whose dilation stands where there is no stride, and the padding of a layer with a stride."""
    model = S9Net180kUndilated()
    model.features[1][2].padding = (padding, padding)
    model.features[3][0][0].dilation = model.features[3][0][0].padding = (dilation, dilation)
    return model


def own(width: int = 40) -> nn.Sequential:
    """A network without pooling that keeps the rules of S9 with few parameters."""
    layers = [conv_block(3, 32), conv_block(32, 32), conv_block(32, 32, stride=2), conv_block(32, 64, separable=True)]
    layers += [conv_block(64, width, dilation=2, padding=2), conv_block(width, width, stride=2)]
    layers += [conv_block(width, 32, dilation=2, padding=2), nn.Conv2d(32, 10, 3, padding=1)]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten())


class Pair(nn.Module):
    def forward(self, images):
        return images, images


RIGHT = {
    "S8.1": (256, 2048),
    "S8.2": (0.5, 1.46),
    "S8.3": MeanOnly,
    "S8.4": F.batch_norm,
    "S8.5": fold,
    "S8.6": small(),
    "S9.1": (6, 19),
    "S9.2": 12,
    "S9.3": repaired(),
    "S9.4": lambda x, weight: F.conv2d(x, weight * torch.eye(len(weight))[:, :, None, None], padding=1),
    "S9.5": (9, 1, 3),
    "S9.6": own(),
}


@pytest.mark.parametrize("exercise", CHECKS)
def test_right_answer(exercise, capsys):
    check_answer(exercise, RIGHT[exercise])
    assert capsys.readouterr().out == f"{exercise}: right\n"


WRONG = [
    ("S8.1", 256, r"answer is 256, expected \(means, numbers in each\)"),
    ("S8.1", ("256", "2048"), r"answer is \('256', '2048'\), expected \(means, numbers in each\)"),
    ("S8.1", (256.0, 2048.0), r"expected \(means, numbers in each\)"),
    ("S8.1", (256, 2047), "not the size of the batch"),
    ("S8.1", (2048, 256), "2048 means is not right"),
    ("S8.2", 0.5, r"answer is 0.5, expected two numbers"),
    ("S8.2", (0.5,), r"expected two numbers, \(points of accuracy, standard deviations\)"),
    ("S8.2", ("half", 1), r"expected two numbers"),
    ("S8.2", (50, 1.46), "50 points are not right"),
    ("S8.2", (0.5, -1.46), "both are positive, or both are negative"),
    ("S8.2", (0.5, 1.2), "1.2 standard deviations are not right: the difference of the two counts"),
    ("S8.3", F.batch_norm, "answer is <function batch_norm.*expected a subclass of nn.Module"),
    ("S8.3", MeanOnly(6), r"answer is MeanOnly\(\), expected a subclass"),
    ("S8.3", NoChannels, r"answer\(6\) raised TypeError: .* made with the number of channels"),
    ("S8.3", nn.BatchNorm2d, "off by up to .* leave the scale alone"),
    ("S8.3", nn.Identity, "off by up to .* one mean per channel, over N, H and W"),
    ("S8.4", lambda x, mean, variance: F.batch_norm(x, None, None, training=True), "running statistics stand in"),
    ("S8.4", lambda x, mean, variance: (x - mean) / variance, r"raised RuntimeError: .* in the shape 1×C×1×1"),
    ("S8.4", lambda x, mean, variance: F.batch_norm(x, mean, variance, eps=1e-9), r"off by up to .* √\(σ²\+ε\)"),
    ("S8.5", forgets_eps, "off by up to .* γ/√"),
    ("S8.5", lambda convolution, norm: convolution, "off by up to .* its bias too; μ and β come in"),
    ("S8.5", lambda convolution, norm: fold(nn.Conv2d(4, 6, 3), norm), "shape .* expected"),
    ("S8.5", fold_plain, r"bias=False\) your function raised TypeError: .* no bias: then it is zero"),
    ("S8.5", partial(fold_plain, bias=True), "shape .* expected"),
    ("S8.5", partial(fold_plain, bias=True, dilation=True), "your function raised RuntimeError: .* The groups stay"),
    ("S8.5", lambda convolution, norm: nn.Sequential(convolution, norm), "returned Sequential, expected a Conv2d"),
    ("S8.5", None, "answer is NoneType, expected a function"),
    ("S8.6", None, "answer is NoneType, expected a network"),
    ("S8.6", small(12), r"the output has shape \(2, 12\), expected 10 logits"),
    ("S8.6", Pair(), "the output is a tuple, expected a tensor of 10 logits"),
    ("S8.6", S8Net46k(), "rules are broken:\n.*\n *fewer than 20,000 parameters +46202"),
    ("S8.6", nn.Sequential(nn.Flatten(), nn.Linear(3072, 10)), "rules are broken:\n.*\n.*\n2 transitions"),
    ("S9.1", 6, r"answer is 6, expected \(row, receptive field\)"),
    ("S9.1", (6.5, 19), r"expected \(row, receptive field\)"),
    ("S9.1", (7, 19), r"row 7 is right. Compute \(k - 1\)·d·j"),
    ("S9.1", (6, 17), "17 is not right: kernel 3 and dilation 2"),
    ("S9.2", "12", "answer is '12', expected a whole number"),
    ("S9.2", 11, r"with 11 output channels it needs 1/4.95 of"),
    ("S9.2", 0, "with 0 output channels"),
    ("S9.2", 13, "13 are more than it takes"),
    ("S9.3", S9Net180k(), "features.1.2 has .* stride 2, dilation 2 and padding 1: no output reads position 0 .* 16"),
    ("S9.3", S9Net85k(), "features.1.0 has kernel 1, stride 2, dilation 1 and padding 1: no output reads position 0 "),
    ("S9.3", repaired(padding=0), "features.1.2 has .* padding 0: no output reads position 15 of its grid of 16"),
    ("S9.3", repaired(dilation=4), "features.3.0.0 has .* dilation 4 .* on a grid of 4, its outer weights meet only"),
    ("S9.3", S9Net180kUndilated(), "rules are broken:\n.*\n *at least 1 dilated"),
    ("S9.3", S9Net180kPooled(), "no max-pooling"),
    ("S9.4", lambda x, weight: F.conv2d(x, weight.expand(4, 4, 3, 3), padding=1), "off by up to .* Channel c"),
    ("S9.3", own(), "expected the weights of S9Net180k"),
    ("S9.4", lambda x, weight: F.conv2d(x, weight, padding=1, groups=4), "use no `groups`"),
    ("S9.4", lambda x, weight: F.conv2d(x, weight, groups=4), r"shape \(2, 4, 7, 7\), expected \(2, 4, 9, 9\)"),
    ("S9.5", 9, "answer is 9, expected three dilations"),
    ("S9.5", (1, 0, 2), "0 is no dilation"),
    ("S9.5", (2, 2, 2), r"pixels \[1, 3, 5\] away from the centre are never seen"),
    ("S9.5", (1, 2, 4), "a field of 15 pixels is not the largest"),
    ("S9.6", small(), "no max-pooling"),
    ("S9.6", S9Net180k(), "fewer than 80,000 parameters +180298"),
    ("S9.6", S9Net85k(), "fewer than 80,000 parameters"),
    ("S9.6", own(48), "fewer than 80,000 parameters"),
]


@pytest.mark.parametrize(("exercise", "answer", "message"), WRONG)
def test_wrong_answer(exercise, answer, message):
    with pytest.raises(AssertionError, match=message):
        check_answer(exercise, answer)


def test_folding_in_place_is_right(capsys):
    def answer(convolution: nn.Conv2d, norm: nn.BatchNorm2d) -> nn.Conv2d:
        folded = fold(convolution, norm)
        convolution.weight, convolution.bias = folded.weight, folded.bias
        return convolution

    check_answer("S8.5", answer)
    assert capsys.readouterr().out == "S8.5: right\n"


@pytest.mark.parametrize("exercise", ["S8.1", "S8.2", "S9.1", "S9.5"])
def test_a_list_will_do_for_a_tuple(exercise):
    check_answer(exercise, list(RIGHT[exercise]))


@pytest.mark.parametrize("kind", [np.int64, torch.tensor, lambda number: np.array(number, dtype="int16")])
def test_whole_numbers_of_other_libraries(kind):
    check_answer("S9.2", kind(12))
    check_answer("S8.1", tuple(map(kind, RIGHT["S8.1"])))
    check_answer("S9.5", torch.tensor(RIGHT["S9.5"]))


def test_a_network_is_left_in_its_mode():
    network = small().train()
    network[2].eval()
    check_answer("S8.6", network)
    assert network.training and not network[2].training


@pytest.mark.parametrize("exercise", CHECKS)
def test_no_answer_yet(exercise):
    with pytest.raises(AssertionError, match=f"{exercise}: replace the three dots"):
        check_answer(exercise, ...)


def test_unknown_exercise():
    with pytest.raises(ValueError, match=r"unknown exercise 'S9.7', expected one of S8\.1, "):
        check_answer("S9.7", torch.ones(3))
