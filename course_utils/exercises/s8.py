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
    means, numbers = whole_numbers(answer, 2, "(means, numbers in each), both whole numbers")
    assert means * numbers == 32 * 64 * 16 * 16, "means × numbers is not the size of the batch"
    assert means == 32 * 8, f"{means} means is not right. How many groups does one image have, and how many images?"


def _difference(answer) -> None:
    expected = "(points of accuracy, standard deviations)"
    try:
        points, deviations = (float(each) for each in answer)
    except (TypeError, ValueError):
        raise AssertionError(f"answer is {answer!r}, expected two numbers, {expected}") from None
    assert points * deviations >= 0, "both are positive, or both are negative: they say which network is ahead"
    points, deviations = abs(points), abs(deviations)
    assert abs(points - 0.5) < 0.01, f"{points:g} points are not right: 50 images of 10,000, in per cent"
    hint = "the difference of the two counts, 610 and 560, in units of the square root of their sum"
    assert abs(deviations - 50 / 1170**0.5) < 0.05, f"{deviations:g} standard deviations are not right: {hint}"


def _mean_only(answer) -> None:
    assert isinstance(answer, type) and issubclass(answer, nn.Module), (
        f"answer is {answer!r}, expected a subclass of nn.Module"
    )
    x = sample(4, 6, 5, 7)
    try:
        layer = answer(6)
    except TypeError as error:
        raise AssertionError(
            f"answer(6) raised TypeError: {error}. It is made with the number of channels: def __init__(self, channels)"
        ) from error
    hint = "Subtract one mean per channel, over N, H and W, and leave the scale alone."
    same(layer.train(), (x,), x - x.mean((0, 2, 3), keepdim=True), hint)


def _batch_norm_in_use(answer) -> None:
    x, mean, variance = sample(4, 6, 5, 5), sample(6), sample(6).abs() + 0.5
    variance[0] = 1e-3  # small enough for a forgotten ε to show
    hint = "In evaluation the running statistics stand in for the batch's own, in the shape 1×C×1×1; √(σ²+ε) divides."
    same(answer, (x, mean, variance), F.batch_norm(x, mean, variance), hint)


def _folded(answer) -> None:
    assert callable(answer), f"answer is {type(answer).__name__}, expected a function of a convolution and a norm"
    hint = "Every output channel is multiplied with γ/√(σ²+ε), its bias too; μ and β come in; stride and padding stay."
    _folds(answer, nn.Conv2d(4, 6, 3, stride=2, padding=1), hint)
    _folds(answer, nn.Conv2d(4, 6, 3, bias=False), "A convolution may have no bias: then it is zero.")
    _folds(answer, nn.Conv2d(4, 6, 3, padding=2, dilation=2), "The dilation stays too.")
    _folds(answer, nn.Conv2d(4, 6, 3, padding=1, groups=2), "The groups stay too.")


def _folds(answer: Callable, convolution: nn.Conv2d, hint: str) -> None:
    norm = nn.BatchNorm2d(6, eps=0.1)
    with torch.no_grad():
        for name in ("weight", "bias", "running_mean", "running_var"):
            getattr(norm, name).copy_(sample(6).abs() + 0.5)
        x = sample(2, 4, 8, 8)
        expected = norm.eval()(convolution(x))  # first: who folds in place changes the convolution
        try:
            folded = answer(convolution, norm)
        except (TypeError, RuntimeError) as error:
            raise AssertionError(
                f"for {convolution} your function raised {type(error).__name__}: {error}. {hint}"
            ) from error
        assert isinstance(folded, nn.Conv2d), f"your function returned {type(folded).__name__}, expected a Conv2d"
        same(folded, (x,), expected, hint)


S8_CHECKS: dict[str, Callable] = {
    "S8.1": _counting,
    "S8.2": _difference,
    "S8.3": _mean_only,
    "S8.4": _batch_norm_in_use,
    "S8.5": _folded,
    "S8.6": partial(designed, rules=replace(S8_RULES, max_parameters=20_000)),
}
