"""Checks of the exercises: each says what is wrong with an answer, and gives a hint, but not the answer."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from course_utils.audit import S8_RULES, S9_RULES, Rules, audit
from course_utils.runtime import choose


def _sample(*shape: int) -> Tensor:
    return 3 + 2 * torch.randn(*shape, generator=torch.Generator().manual_seed(1))


def _same(answer: Callable, arguments: tuple, expected: Tensor, hint: str) -> None:
    """The function `answer` gives `expected`, to the rounding of float32."""
    assert callable(answer), f"answer is {type(answer).__name__}, expected a function"
    try:
        found = answer(*arguments)
    except (RuntimeError, TypeError, ValueError, IndexError) as error:  # shapes that do not fit, most often
        raise AssertionError(f"your function raised {type(error).__name__}: {error}. {hint}") from error
    assert isinstance(found, Tensor), f"your function returned {type(found).__name__}, expected a tensor"
    assert found.shape == expected.shape, f"the result has shape {tuple(found.shape)}, expected {tuple(expected.shape)}"
    error = (found - expected).abs().max().item()
    assert error < 1e-4, f"the result is off by up to {error:.2g}. {hint}"


def _counting(answer) -> None:
    assert isinstance(answer, tuple | list) and len(answer) == 2, (
        f"answer is {answer!r}, expected (means, numbers in each)"
    )
    means, numbers = answer
    assert means * numbers == 32 * 64 * 16 * 16, "means × numbers is not the size of the batch"
    assert means == 32 * 8, f"{means} means is not right. How many groups does one image have, and how many images?"


def _as_instance_norm(answer) -> None:
    assert isinstance(answer, nn.Module), f"answer is {type(answer).__name__}, expected a layer made by make_norm"
    hint = "Instance normalization averages over H and W alone: how many channels are in a group then?"
    x = _sample(4, 16, 5, 5)
    _same(answer, (x,), F.instance_norm(x), hint)


def _instance_norm(answer) -> None:
    x = _sample(4, 6, 5, 7)
    _same(answer, (x,), F.instance_norm(x), "Over which axes do you average? Not over N, and not over C.")


def _batch_norm_in_use(answer) -> None:
    x, mean, variance = _sample(4, 6, 5, 5), _sample(6), _sample(6).abs() + 0.5
    variance[0] = 1e-3  # small enough for a forgotten ε to show
    hint = "In evaluation the running statistics stand in for the batch's own, in the shape 1×C×1×1; √(σ²+ε) divides."
    _same(answer, (x, mean, variance), F.batch_norm(x, mean, variance), hint)


def _folded(answer) -> None:
    assert callable(answer), f"answer is {type(answer).__name__}, expected a function of a convolution and a norm"
    convolution, norm = nn.Conv2d(3, 6, 3, stride=2, padding=1), nn.BatchNorm2d(6)
    with torch.no_grad():
        for tensor in (norm.weight, norm.bias, norm.running_mean, norm.running_var):
            tensor.copy_(_sample(6).abs() + 0.5)
        x = _sample(2, 3, 8, 8)
        expected = norm.eval()(convolution(x))  # first: who folds in place changes the convolution
        folded = answer(convolution, norm)
        assert isinstance(folded, nn.Conv2d), f"your function returned {type(folded).__name__}, expected a Conv2d"
        hint = (
            "Every output channel is multiplied with γ/√(σ²+ε), its bias too; μ and β come in; stride and padding stay."
        )
        _same(folded, (x,), expected, hint)


def _designed(answer, rules: Rules) -> None:
    assert isinstance(answer, nn.Module), f"answer is {type(answer).__name__}, expected a network"
    with torch.no_grad():
        shape = tuple(answer.eval()(torch.zeros(2, 3, 32, 32)).shape)
    assert shape == (2, 10), f"the output has shape {shape}, expected 10 logits for each of 2 images"
    table = audit(answer, rules)
    broken = table[table["passes"] == "NO"]
    assert broken.empty, "these rules are broken:\n" + broken.to_string(index=False)


def _reach(answer) -> None:
    assert isinstance(answer, int), f"answer is {answer!r}, expected a whole number of pixels"
    assert answer == 15, f"{answer} is not right. Each layer adds (k - 1)·d·j pixels to the first one"


def _cost(answer) -> None:
    assert isinstance(answer, tuple | list) and len(answer) == 2, (
        f"answer is {answer!r}, expected (standard, separable)"
    )
    standard, separable = answer
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
    x, weight = _sample(2, 4, 9, 9), _sample(4, 1, 3, 3)
    hint = "Channel c of the result comes from channel c of x and from weight[c, 0] alone."
    _same(answer, (x, weight), F.conv2d(x, weight, padding=1, groups=4), hint)


def _without_holes(answer) -> None:
    assert isinstance(answer, tuple | list) and len(answer) == 3, f"answer is {answer!r}, expected three dilations"
    seen = {0}
    for dilation in answer:
        assert isinstance(dilation, int) and dilation > 0, f"{dilation!r} is no dilation, expected 1, 2, 3, …"
        seen = {pixel + step * dilation for pixel in seen for step in (-1, 0, 1)}
    holes = sorted(set(range(max(seen))) - seen)
    assert not holes, f"pixels {holes[:5]} away from the centre are never seen"
    hint = "Three positions per layer, three layers: how many pixels can be told apart at most?"
    assert len(seen) == 27, f"no holes, but a field of {len(seen)} pixels is not the largest. {hint}"


CHECKS = {
    "S8.1": _counting,
    "S8.2": _as_instance_norm,
    "S8.3": _instance_norm,
    "S8.4": _batch_norm_in_use,
    "S8.5": _folded,
    "S8.6": partial(_designed, rules=replace(S8_RULES, max_parameters=20_000)),
    "S9.1": _reach,
    "S9.2": _cost,
    "S9.3": _field_of,
    "S9.4": _depthwise,
    "S9.5": _without_holes,
    "S9.6": partial(_designed, rules=replace(S9_RULES, max_parameters=100_000)),
}


def check_answer(exercise: str, answer) -> None:
    """Say that `answer` is right, or raise `AssertionError` that says what is wrong with it."""
    choose(exercise, CHECKS, "exercise")
    assert answer is not ..., f"{exercise}: replace the three dots by your answer"
    try:
        CHECKS[exercise](answer)
    except AssertionError as error:
        raise AssertionError(f"{exercise}: {error}") from None
    print(f"{exercise}: right")
