"""The checks of the exercises of session S8."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial

import torch
import torch.nn.functional as F
from torch import nn

from course_utils.exercises.answers import designed, same, sample, whole_numbers
from course_utils.exercises.rules import S8_RULES


def _counting(answer) -> None:
    means, numbers = whole_numbers(answer, 2, "(means, numbers in each)")
    assert means * numbers == 32 * 64 * 16 * 16, "means × numbers is not the size of the batch"
    assert means == 32 * 8, f"{means} means is not right. How many groups does one image have, and how many images?"


def _as_instance_norm(answer) -> None:
    assert isinstance(answer, nn.Module), f"answer is {type(answer).__name__}, expected a layer made by make_norm"
    hint = "Instance normalization averages over H and W alone: how many channels are in a group then?"
    x = sample(4, 16, 5, 5)
    same(answer, (x,), F.instance_norm(x), hint)


def _instance_norm(answer) -> None:
    x = sample(4, 6, 5, 7)
    variance, mean = torch.var_mean(x, (2, 3), keepdim=True)
    unbiased = {"The variance is the mean of the squares: unbiased=False.": (x - mean) / (variance + 1e-5).sqrt()}
    hint = "Over which axes do you average? Not over N, and not over C."
    same(answer, (x,), F.instance_norm(x), hint, unbiased)


def _batch_norm_in_use(answer) -> None:
    x, mean, variance = sample(4, 6, 5, 5), sample(6), sample(6).abs() + 0.5
    variance[0] = 1e-3  # small enough for a forgotten ε to show
    hint = "In evaluation the running statistics stand in for the batch's own, in the shape 1×C×1×1; √(σ²+ε) divides."
    same(answer, (x, mean, variance), F.batch_norm(x, mean, variance), hint)


def _folded(answer) -> None:
    assert callable(answer), f"answer is {type(answer).__name__}, expected a function of a convolution and a norm"
    convolution, norm = nn.Conv2d(3, 6, 3, stride=2, padding=1), nn.BatchNorm2d(6)
    with torch.no_grad():
        for name in ("weight", "bias", "running_mean", "running_var"):
            getattr(norm, name).copy_(sample(6).abs() + 0.5)
        x = sample(2, 3, 8, 8)
        expected = norm.eval()(convolution(x))  # first: who folds in place changes the convolution
        folded = answer(convolution, norm)
        assert isinstance(folded, nn.Conv2d), f"your function returned {type(folded).__name__}, expected a Conv2d"
        hint = (
            "Every output channel is multiplied with γ/√(σ²+ε), its bias too; μ and β come in; stride and padding stay."
        )
        same(folded, (x,), expected, hint)


S8_CHECKS: dict[str, Callable] = {
    "S8.1": _counting,
    "S8.2": _as_instance_norm,
    "S8.3": _instance_norm,
    "S8.4": _batch_norm_in_use,
    "S8.5": _folded,
    "S8.6": partial(designed, rules=replace(S8_RULES, max_parameters=20_000)),
}
