"""Checks of the exercises: each says what is wrong with an answer, and gives a hint, but not the answer."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from course_utils.audit import S8_RULES, audit
from course_utils.runtime import choose


def _sample(*shape: int) -> Tensor:
    return 3 + 2 * torch.randn(*shape, generator=torch.Generator().manual_seed(1))


def _same(answer: Callable, arguments: tuple, expected: Tensor, hint: str) -> None:
    """The function `answer` gives `expected`, to the rounding of float32."""
    assert callable(answer), f"answer is {type(answer).__name__}, expected a function"
    found = answer(*arguments)
    assert isinstance(found, Tensor), f"your function returned {type(found).__name__}, expected a tensor"
    assert found.shape == expected.shape, f"the result has shape {tuple(found.shape)}, expected {tuple(expected.shape)}"
    error = (found - expected).abs().max().item()
    assert error < 1e-4, f"the result is off by up to {error:.2g}. {hint}"


def _counting(answer) -> None:
    assert isinstance(answer, tuple) and len(answer) == 2, f"answer is {answer!r}, expected (means, numbers in each)"
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
    hint = "In evaluation the running statistics stand in for the batch's own; do they have the shape 1×C×1×1?"
    _same(answer, (x, mean, variance), F.batch_norm(x, mean, variance), hint)


def _folded(answer) -> None:
    assert callable(answer), f"answer is {type(answer).__name__}, expected a function of a convolution and a norm"
    convolution, norm = nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6)
    with torch.no_grad():
        for tensor in (norm.weight, norm.bias, norm.running_mean, norm.running_var):
            tensor.copy_(_sample(6).abs() + 0.5)
        x = _sample(2, 3, 8, 8)
        folded, expected = answer(convolution, norm.eval()), norm(convolution(x))
        assert isinstance(folded, nn.Conv2d), f"your function returned {type(folded).__name__}, expected a Conv2d"
        hint = "Every output channel is multiplied with γ/√(σ²+ε); the bias takes part in that, too."
        _same(folded, (x,), expected, hint)


def _designed(answer) -> None:
    assert isinstance(answer, nn.Module), f"answer is {type(answer).__name__}, expected a network"
    with torch.no_grad():
        shape = tuple(answer.eval()(torch.zeros(2, 3, 32, 32)).shape)
    assert shape == (2, 10), f"the output has shape {shape}, expected 10 logits for each of 2 images"
    table = audit(answer, S8_RULES)
    broken = table[table["passes"] == "NO"]
    assert broken.empty, "these rules are broken:\n" + broken.to_string(index=False)
    parameters = sum(p.numel() for p in answer.parameters())
    assert parameters < 20_000, f"the rules are kept, but with {parameters:,} parameters, expected fewer than 20,000"


CHECKS = {
    "S8.1": _counting,
    "S8.2": _as_instance_norm,
    "S8.3": _instance_norm,
    "S8.4": _batch_norm_in_use,
    "S8.5": _folded,
    "S8.6": _designed,
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
