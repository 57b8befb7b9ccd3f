"""The checks of the exercises: right answers pass, wrong ones are told what is wrong with them."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from course_utils.analysis.networks import receptive_field
from course_utils.exercises import CHECKS, check_answer
from course_utils.networks import S8Net46k, S9Net85k, S9Net180k
from course_utils.networks.layers import make_norm


def fold(convolution: nn.Conv2d, norm: nn.BatchNorm2d) -> nn.Conv2d:
    return nn.utils.fusion.fuse_conv_bn_eval(convolution.eval(), norm)


def small(last: int = 10) -> nn.Sequential:
    """A network that keeps the rules with few parameters."""
    layers = [nn.Conv2d(3, 8, 3), nn.Conv2d(8, 4, 1), nn.MaxPool2d(2), nn.Conv2d(4, 8, 3), nn.Conv2d(8, 4, 1)]
    return nn.Sequential(*layers, nn.MaxPool2d(2), nn.Conv2d(4, last, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())


def field_of(layers: list[tuple[int, int, int]]) -> int:
    """What the table of `receptive_field` says of these layers."""
    steps = [nn.Conv2d(3, 3, kernel, stride=stride, dilation=dilation) for kernel, stride, dilation in layers]
    return receptive_field(nn.Sequential(*steps), (3, 64, 64))["receptive_field"].iloc[-1]


class Pair(nn.Module):
    def forward(self, images):
        return images, images


RIGHT = {
    "S8.1": (256, 2048),
    "S8.2": nn.InstanceNorm2d(16),
    "S8.3": F.instance_norm,
    "S8.4": F.batch_norm,
    "S8.5": fold,
    "S8.6": small(),
    "S9.1": 15,
    "S9.2": (73_728, 8_768),
    "S9.3": field_of,
    "S9.4": lambda x, weight: F.conv2d(x, weight, padding=1, groups=len(weight)),
    "S9.5": (9, 1, 3),
    "S9.6": S9Net85k(),
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
    ("S8.2", 16, "answer is int, expected a layer"),
    ("S8.2", make_norm(16, "group", num_groups=8), "off by up to .* how many channels"),
    ("S8.3", F.layer_norm, "your function raised TypeError: .*normalized_shape.* Over which axes"),
    ("S8.3", lambda x: F.layer_norm(x, x.shape[1:]), "off by up to .* Not over N, and not over C"),
    ("S8.3", lambda x: (x - x.mean((2, 3), True)) / x.std((2, 3), keepdim=True), r"off by .* unbiased=False"),
    ("S8.3", lambda x: x[0], r"shape \(6, 5, 7\), expected \(4, 6, 5, 7\)"),
    ("S8.3", lambda x: None, "returned NoneType, expected a tensor"),
    ("S8.3", 3, "answer is int, expected a function"),
    ("S8.4", lambda x, mean, variance: F.batch_norm(x, None, None, training=True), "running statistics stand in"),
    ("S8.4", lambda x, mean, variance: (x - mean) / variance, r"raised RuntimeError: .* in the shape 1×C×1×1"),
    ("S8.4", lambda x, mean, variance: F.batch_norm(x, mean, variance, eps=1e-9), r"off by up to .* √\(σ²\+ε\)"),
    ("S8.5", lambda convolution, norm: convolution, "off by up to .* its bias too; μ and β come in"),
    ("S8.5", lambda convolution, norm: fold(nn.Conv2d(3, 6, 3), norm), "shape .* expected"),
    ("S8.5", lambda convolution, norm: nn.Sequential(convolution, norm), "returned Sequential, expected a Conv2d"),
    ("S8.5", None, "answer is NoneType, expected a function"),
    ("S8.6", None, "answer is NoneType, expected a network"),
    ("S8.6", small(12), r"the output has shape \(2, 12\), expected 10 logits"),
    ("S8.6", Pair(), "the output is a tuple, expected a tensor of 10 logits"),
    ("S8.6", S8Net46k(), "rules are broken:\n.*\n *fewer than 20,000 parameters +46202"),
    ("S8.6", nn.Sequential(nn.Flatten(), nn.Linear(3072, 10)), "rules are broken:\n.*\n.*\n2 transitions"),
    ("S9.1", "15", "answer is '15', expected a whole number"),
    ("S9.1", 14, r"14 is not right.*\(k - 1\)"),
    ("S9.2", (73_856, 8_960), "and nothing has a bias"),
    ("S9.2", 73_728, r"expected \(standard, separable\)"),
    ("S9.2", (576, 8_768), "576 is not right: every pair"),
    ("S9.2", (73_728, 8_192), "8192 is not right: one kernel per input channel"),
    ("S9.3", 15, "answer is int, expected a function"),
    ("S9.3", lambda layers: 1 + sum(k - 1 for k, _, _ in layers), r"\(3, 1, 2\)\] your function gives 3, expected 5"),
    ("S9.3", lambda layers: 1 + sum((k - 1) * d for k, _, d in layers), "gives 5, expected 7. A stride counts"),
    ("S9.3", lambda layers: print(len(layers)), "gives None: does it return"),
    ("S9.4", lambda x, weight: F.conv2d(x, weight.expand(4, 4, 3, 3), padding=1), "off by up to .* Channel c"),
    ("S9.4", lambda x, weight: F.conv2d(x, weight, groups=4), r"shape \(2, 4, 7, 7\), expected \(2, 4, 9, 9\)"),
    ("S9.5", 9, "answer is 9, expected three dilations"),
    ("S9.5", (1, 0, 2), "0 is no dilation"),
    ("S9.5", (2, 2, 2), r"pixels \[1, 3, 5\] away from the centre are never seen"),
    ("S9.5", (1, 2, 4), "a field of 15 pixels is not the largest"),
    ("S9.6", small(), "no max-pooling"),
    ("S9.6", S9Net180k(), "fewer than 100,000 parameters +180298"),
]


@pytest.mark.parametrize(("exercise", "answer", "message"), WRONG)
def test_wrong_answer(exercise, answer, message):
    with pytest.raises(AssertionError, match=message):
        check_answer(exercise, answer)


def test_folding_in_place_is_right(capsys):
    def answer(convolution: nn.Conv2d, norm: nn.BatchNorm2d) -> nn.Conv2d:
        folded = fold(convolution, norm)
        convolution.load_state_dict(folded.state_dict())
        return convolution

    check_answer("S8.5", answer)
    assert capsys.readouterr().out == "S8.5: right\n"


@pytest.mark.parametrize("exercise", ["S8.1", "S9.2", "S9.5"])
def test_a_list_will_do_for_a_tuple(exercise):
    check_answer(exercise, list(RIGHT[exercise]))


@pytest.mark.parametrize("kind", [np.int64, torch.tensor, lambda number: np.array(number, dtype="int16")])
def test_whole_numbers_of_other_libraries(kind):
    check_answer("S9.1", kind(15))
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
