"""The checks of the exercises of session S9."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial

import torch.nn.functional as F

from course_utils.exercises.answers import designed, same, sample, whole_numbers
from course_utils.exercises.rules import S9_RULES


def _reach(answer) -> None:
    (pixels,) = whole_numbers(answer, 1, "a whole number of pixels")
    assert pixels == 15, f"{pixels} is not right. Each layer adds (k - 1)·d·j pixels to the first one"


def _cost(answer) -> None:
    standard, separable = whole_numbers(answer, 2, "(standard, separable)")
    assert standard == 64 * 128 * 9, (
        f"{standard} is not right: every pair of channels has a kernel, and nothing has a bias"
    )
    hint = "one kernel per input channel, then one number per pair of channels"
    assert separable == 64 * 9 + 64 * 128, f"{separable} is not right: {hint}"


def _field_of(answer) -> None:
    assert callable(answer), f"answer is {type(answer).__name__}, expected a function"
    cases = {((3, 1, 1),): 3, ((3, 1, 2),): 5, ((3, 1, 1), (3, 1, 1)): 5, ((3, 2, 1), (3, 1, 1)): 7}
    cases |= {((3, 1, 1), (3, 2, 1), (3, 1, 2), (1, 2, 1), (3, 1, 1)): 21}
    for layers, expected in cases.items():
        found = answer(list(layers))
        strides = [stride for _, stride, _ in layers]
        hint = "A stride counts for the layers after it, and several multiply" if max(strides) > 1 else "(k - 1)·d"
        assert found is not None, "your function gives None: does it return what it computes?"
        assert found == expected, f"for {list(layers)} your function gives {found}, expected {expected}. {hint}"


def _depthwise(answer) -> None:
    x, weight = sample(2, 4, 9, 9), sample(4, 1, 3, 3)
    hint = "Channel c of the result comes from channel c of x and from weight[c, 0] alone."
    same(answer, (x, weight), F.conv2d(x, weight, padding=1, groups=4), hint)


def _without_holes(answer) -> None:
    seen = {0}
    for dilation in whole_numbers(answer, 3, "three dilations"):
        assert dilation > 0, f"{dilation} is no dilation, expected 1, 2, 3, …"
        seen = {pixel + step * dilation for pixel in seen for step in (-1, 0, 1)}
    holes = sorted(set(range(max(seen))) - seen)
    assert not holes, f"pixels {holes[:5]} away from the centre are never seen"
    hint = "Three positions per layer, three layers: how many pixels can be told apart at most?"
    assert len(seen) == 27, f"no holes, but a field of {len(seen)} pixels is not the largest. {hint}"


S9_CHECKS: dict[str, Callable] = {
    "S9.1": _reach,
    "S9.2": _cost,
    "S9.3": _field_of,
    "S9.4": _depthwise,
    "S9.5": _without_holes,
    "S9.6": partial(designed, rules=replace(S9_RULES, max_parameters=100_000)),
}
