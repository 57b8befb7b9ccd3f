"""The checks of the exercises of session S9."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial

import torch.nn.functional as F
from torch import Tensor, nn

from course_utils.analysis.operations import Operation, trace
from course_utils.exercises.answers import designed, same, sample, whole_numbers
from course_utils.exercises.rules import S9_RULES
from course_utils.networks import S9Net180k


def _wrong_row(answer) -> None:
    row, field = whole_numbers(answer, 2, "(row, receptive field)")
    assert row == 6, f"row {row} is right. Compute (k - 1)·d·j for every row, and add it to the field before"
    assert field == 19, f"{field} is not right: kernel 3 and dilation 2 at a jump of 2"


def _break_even(answer) -> None:
    (channels,) = whole_numbers(answer, 1, "a whole number of channels")
    share = 1 / max(1, channels) + 1 / 9
    assert share <= 1 / 5, f"with {channels} output channels it needs 1/{1 / share:.2f} of the multiply-adds"
    assert channels == 12, f"{channels} are more than it takes: solve 1/C + 1/9 = 1/5 for C"


def _reads_everything(answer) -> None:
    designed(answer, replace(S9_RULES, min_accuracy=None))
    for operation in trace(answer, (3, 32, 32)):
        if operation.kind == "convolution":
            _refuse_skipping(operation)
    shapes, asked = ([weight.shape for weight in model.parameters()] for model in (answer, S9Net180k()))
    assert shapes == asked, "expected the weights of S9Net180k: change strides, dilations and paddings alone"


def _refuse_skipping(convolution: Operation) -> None:
    """`AssertionError` for a row or column of its input that no output reads, and weights that meet only padding."""
    window, sizes, counts = convolution.window, convolution.grid_in.shape[-2:], convolution.grid.shape[-2:]
    each = zip(window.kernel, window.stride, window.dilation, window.padding, sizes, counts, strict=True)
    for kernel, stride, dilation, padding, size, count in each:
        what = f"{convolution.layer} has kernel {kernel}, stride {stride}, dilation {dilation} and padding {padding}"
        read = {i * stride + t * dilation - padding for i in range(count) for t in range(kernel)}
        missed = sorted(set(range(size)) - read)
        assert not missed, f"{what}: no output reads position {missed[0]} of its grid of {size}, in any channel"
        assert dilation == 1 or dilation < size, f"{what}: on a grid of {size}, its outer weights meet only padding"


class _Layer(nn.Module):
    """The function `layer` of images and of `weight`, as a layer."""

    def __init__(self, layer: Callable[[Tensor, Tensor], Tensor], weight: Tensor):
        super().__init__()
        self.layer, self.weight = layer, weight

    def forward(self, images: Tensor) -> Tensor:
        return self.layer(images, self.weight)


def _depthwise(answer) -> None:
    x, weight = sample(2, 4, 9, 9), sample(4, 1, 3, 3)
    hint = "Channel c of the result comes from channel c of x and from weight[c, 0] alone."
    same(answer, (x, weight), F.conv2d(x, weight, padding=1, groups=4), hint)
    assert not any(operation.window.groups for operation in trace(_Layer(answer, weight), (4, 9, 9))), "use no `groups`"


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
    "S9.1": _wrong_row,
    "S9.2": _break_even,
    "S9.3": _reads_everything,
    "S9.4": _depthwise,
    "S9.5": _without_holes,
    "S9.6": partial(designed, rules=replace(S9_RULES, max_parameters=80_000)),
}
