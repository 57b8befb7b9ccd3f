"""Compare an answer with what it should be; the hint does not give it away."""

import operator
from collections.abc import Callable

import torch
from torch import Tensor, nn

from course_utils.device import evaluation_mode
from course_utils.exercises.rules import Rules, audit


def sample(*shape: int) -> Tensor:
    return 3 + 2 * torch.randn(*shape, generator=torch.Generator().manual_seed(1))


def whole_numbers(answer, count: int, expected: str) -> tuple[int, ...]:
    """`answer`, one whole number or `count` of them, as Python's; those of NumPy and torch count too."""
    try:
        numbers = tuple(operator.index(each) for each in (answer if count > 1 else [answer]))
    except TypeError:
        numbers = ()
    assert len(numbers) == count, f"answer is {answer!r}, expected {expected}"
    return numbers


def same(answer: Callable, arguments: tuple, expected: Tensor, hint: str) -> None:
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


def designed(answer, rules: Rules) -> None:
    assert isinstance(answer, nn.Module), f"answer is {type(answer).__name__}, expected a network"
    with torch.no_grad(), evaluation_mode(answer):
        output = answer(torch.zeros(2, 3, 32, 32))
    assert isinstance(output, Tensor), f"the output is a {type(output).__name__}, expected a tensor of 10 logits"
    shape = tuple(output.shape)
    assert shape == (2, 10), f"the output has shape {shape}, expected 10 logits for each of 2 images"
    table = audit(answer, rules)
    broken = table[table["passes"] == "NO"]
    assert broken.empty, "these rules are broken:\n" + broken.to_string(index=False)
