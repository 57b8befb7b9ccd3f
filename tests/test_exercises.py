"""The checks of the exercises: right answers pass, wrong ones are told what is wrong with them."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from course_utils.exercises import CHECKS, check_answer
from course_utils.layers import make_norm
from course_utils.networks import S8Net46k


def fold(convolution: nn.Conv2d, norm: nn.BatchNorm2d) -> nn.Conv2d:
    return nn.utils.fusion.fuse_conv_bn_eval(convolution.eval(), norm)


def small(last: int = 10) -> nn.Sequential:
    """A network that keeps the rules with few parameters."""
    layers = [nn.Conv2d(3, 8, 3), nn.Conv2d(8, 4, 1), nn.MaxPool2d(2), nn.Conv2d(4, 8, 3), nn.Conv2d(8, 4, 1)]
    return nn.Sequential(*layers, nn.MaxPool2d(2), nn.Conv2d(4, last, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())


RIGHT = {
    "S8.1": (256, 2048),
    "S8.2": nn.InstanceNorm2d(16),
    "S8.3": F.instance_norm,
    "S8.4": F.batch_norm,
    "S8.5": fold,
    "S8.6": small(),
}


@pytest.mark.parametrize("exercise", CHECKS)
def test_right_answer(exercise, capsys):
    check_answer(exercise, RIGHT[exercise])
    assert capsys.readouterr().out == f"{exercise}: right\n"


WRONG = [
    ("S8.1", 256, r"answer is 256, expected \(means, numbers in each\)"),
    ("S8.1", (256, 2047), "not the size of the batch"),
    ("S8.1", (2048, 256), "2048 means is not right"),
    ("S8.2", 16, "answer is int, expected a layer"),
    ("S8.2", make_norm(16, "group", num_groups=8), "off by up to .* how many channels"),
    ("S8.3", F.layer_norm, "normalized_shape|missing"),
    ("S8.3", lambda x: F.layer_norm(x, x.shape[1:]), "off by up to .* Not over N, and not over C"),
    ("S8.3", lambda x: x[0], r"shape \(6, 5, 7\), expected \(4, 6, 5, 7\)"),
    ("S8.3", lambda x: None, "returned NoneType, expected a tensor"),
    ("S8.3", 3, "answer is int, expected a function"),
    ("S8.4", lambda x, mean, variance: F.batch_norm(x, None, None, training=True), "running statistics stand in"),
    ("S8.5", lambda convolution, norm: convolution, "off by up to .* the bias takes part"),
    ("S8.5", lambda convolution, norm: nn.Sequential(convolution, norm), "returned Sequential, expected a Conv2d"),
    ("S8.5", None, "answer is NoneType, expected a function"),
    ("S8.6", None, "answer is NoneType, expected a network"),
    ("S8.6", small(12), r"the output has shape \(2, 12\), expected 10 logits"),
    ("S8.6", S8Net46k(), "with 46,202 parameters, expected fewer than 20,000"),
    ("S8.6", nn.Sequential(nn.Flatten(), nn.Linear(3072, 10)), "rules are broken:\n.*\n.*2 transitions"),
]


@pytest.mark.parametrize(("exercise", "answer", "message"), WRONG)
def test_wrong_answer(exercise, answer, message):
    error = TypeError if answer is F.layer_norm else AssertionError  # an error of its own is not hidden
    with pytest.raises(error, match=message):
        check_answer(exercise, answer)


@pytest.mark.parametrize("exercise", CHECKS)
def test_no_answer_yet(exercise):
    with pytest.raises(AssertionError, match=f"{exercise}: replace the three dots"):
        check_answer(exercise, ...)


def test_unknown_exercise():
    with pytest.raises(ValueError, match=r"unknown exercise 'S8.7', expected one of S8\.1, "):
        check_answer("S8.7", torch.ones(3))
