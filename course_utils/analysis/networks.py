"""Receptive fields, input gradients and cost of a network."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from course_utils.analysis.operations import WINDOWED, trace
from course_utils.analysis.operations.grid import Grid
from course_utils.device import check_network, device_of, evaluation_mode


def _one(values: Sequence) -> Any:
    """The number that stands for both directions; where they differ, both: (rows, columns)."""
    return values[0] if len(set(values)) == 1 else tuple(values)


def receptive_field(model: nn.Module, input_size: tuple[int, int, int] = (3, 32, 32)) -> pd.DataFrame:
    """The receptive field after every convolution, pooling, interpolation and the like, in order of call.

    Columns: `layer` (its name in the model), `type`, `kernel`, `stride`, `padding`, `dilation`, `size_in`, `size_out`,
    `channels`, `jump_in` and `field_in` (before the layer), `jump` (input pixels between neighbouring outputs, on
    average) and `receptive_field` (input pixels on a side, for an output away from the borders); `(rows, columns)`
    where the two differ.
    A window of k pixels, d apart, reaches (k - 1)·d jumps further; a stride multiplies the jump *after* the layer
    (Araujo et al. 2019, "Computing Receptive Fields of Convolutional Neural Networks", section 2).
    Where branches meet, both count. Layer and group norm, whose statistics look at the whole image, do not. Where
    outputs see fields of several sizes, the largest counts. Raises `ValueError` that names an operation which cannot be
    followed.
    """
    columns = ["layer", "type", "kernel", "stride", "padding", "dilation", "size_in", "size_out", "channels"]
    rows = []
    for operation in trace(model, input_size):
        grid, window, before = operation.grid, operation.window, operation.grid_in
        if operation.kind not in WINDOWED:
            continue
        if grid.lost:
            where = f"{operation.layer or 'the network'} ({operation.type})"
            raise ValueError(f"the receptive field of {where} is not known: {grid.lost!r} cannot be followed")
        if grid.sizes and before.sizes:
            pairs = [window.kernel, window.stride, window.padding, window.dilation, before.sizes, grid.sizes]
            kind = f"{operation.type} {window.groups}".strip()
            rows.append([operation.layer, kind, *map(_one, pairs), grid.channels, *_seen(before), *_seen(grid)])
    return pd.DataFrame(rows, columns=[*columns, "jump_in", "field_in", "jump", "receptive_field"])


def _seen(grid: Grid) -> tuple:
    """The jump and the receptive field."""
    jumps = [reach.jump for reach, _ in grid.reaches.values()]
    return _one([int(jump) if jump.denominator == 1 else float(jump) for jump in jumps]), _one(grid.field)


def input_gradient(
    model: nn.Module,
    layer: str,
    generator: torch.Generator,
    input_size: tuple[int, int, int] = (3, 64, 64),
    n: int = 32,
) -> Tensor:
    """How strongly each input pixel moves the central output of the module named `layer`: float32 `H×W`, on the CPU.

    The mean over `n` random images (drawn from `generator`, on the CPU) of the absolute gradient of that output, summed
    over its channels, with respect to the input, summed over its channels; in evaluation mode. Where it is not zero is
    the receptive field; how it falls off is the *effective* one (Luo et al. 2016, section 2).
    Of a module that is called several times, the last call counts. Raises `ValueError` for a name that the model does
    not have, and for a module without such an output.
    """
    check_network(model)
    modules = dict(model.named_modules())
    if layer not in modules:
        raise ValueError(f"unknown layer {layer!r}, expected one of {', '.join(filter(None, modules))}")
    outputs: list[Tensor] = []

    def keep(module: nn.Module, inputs: tuple, output: Tensor) -> Tensor:
        outputs.append(output)
        return output.clone()  # the next operation may work in place

    handle = modules[layer].register_forward_hook(keep)
    try:
        with evaluation_mode(model), torch.enable_grad():
            images = torch.randn(n, *input_size, generator=generator).to(device_of(model)).requires_grad_()
            model(images)
            if not outputs or outputs[-1].ndim != 4:
                what = f"has an output of shape {tuple(outputs[-1].shape)}" if outputs else "is not used"
                raise ValueError(f"the layer {layer!r} {what}, expected one whose output is N×channels×height×width")
            height, width = outputs[-1].shape[2:]
            center = outputs[-1][:, :, height // 2, width // 2].sum()
            (gradient,) = torch.autograd.grad(center, images)
    finally:
        handle.remove()
    return gradient.abs().sum(1).mean(0).cpu()


@dataclass(frozen=True)
class Budget:
    """What a network costs for one image.

    `parameters`: trained numbers; `macs`: multiply-accumulates of convolutions and linear layers; `activation_bytes`:
    the float32 outputs of all operations, about what training keeps for the backward pass.
    """

    parameters: int
    macs: int
    activation_bytes: int


def budget(model: nn.Module, input_size: tuple[int, int, int] = (3, 32, 32)) -> Budget:
    """Count parameters, multiply-accumulates and activation memory, by running one image through `model`."""
    with FlopCounterMode(display=False) as counter:
        numbers = sum(operation.new_values for operation in trace(model, input_size))
    parameters = sum(p.numel() for p in model.parameters() if p.requires_grad)
    return Budget(parameters, counter.get_total_flops() // 4, 4 * numbers)  # a multiply-add is two; two images
