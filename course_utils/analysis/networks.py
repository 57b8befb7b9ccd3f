"""Receptive fields, input gradients and cost of a network."""

from collections.abc import Callable
from dataclasses import dataclass

import pandas as pd
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from course_utils.device import device_of, evaluation_mode

Visit = Callable[[str, nn.Module, Tensor, Tensor], None]


@torch.no_grad()
def _visit_leaves(model: nn.Module, input_size: tuple[int, int, int], visit: Visit) -> None:
    """Send one empty image through and call `visit(name, module, input, output)` for every leaf, in order of call."""

    def hook_for(name: str):
        return lambda module, inputs, output: visit(name, module, inputs[0], output)

    leaves = [(name, module) for name, module in model.named_modules() if not list(module.children())]
    handles = [module.register_forward_hook(hook_for(name)) for name, module in leaves]
    try:
        with evaluation_mode(model):
            model(torch.zeros(1, *input_size, device=device_of(model)))
    finally:
        for handle in handles:
            handle.remove()


def _square(value: int | tuple[int, ...], what: str) -> int:
    values = {value} if isinstance(value, int) else set(value)
    if len(values) != 1:
        raise ValueError(f"{what} is {value}, expected the same number in both directions")
    return values.pop()


def _window(module: nn.Module, size_in: int, size_out: int) -> tuple[int, int, int, int] | None:
    """Kernel size, stride, padding and dilation of a module that looks at neighbours; None for the others."""
    if isinstance(module, nn.AdaptiveAvgPool2d | nn.AdaptiveMaxPool2d):
        stride = size_in // size_out
        return size_in - (size_out - 1) * stride, stride, 0, 1
    if not isinstance(module, nn.Conv2d | nn.MaxPool2d | nn.AvgPool2d):
        return None
    if isinstance(module.padding, str):
        raise ValueError(f"padding is {module.padding!r}, expected a number of pixels")
    names = ("kernel_size", "stride", "padding", "dilation")
    kernel_size, stride, padding, dilation = (_square(getattr(module, name, 1), name) for name in names)
    return kernel_size, stride, padding, dilation


def receptive_field(model: nn.Module, input_size: tuple[int, int, int] = (3, 32, 32)) -> pd.DataFrame:
    """The receptive field after every convolution and pooling of a network without branches, in order of call.

    Columns: `layer` (its name in the model), `type`, `kernel`, `stride`, `padding`, `dilation`, `size_in`, `size_out`,
    `channels`, `jump` (input pixels between neighbouring outputs) and `receptive_field` (input pixels on a side).
    A window of k pixels, d apart, reaches (k - 1)·d jumps further; a stride multiplies the jump *after* the layer
    (Araujo et al. 2019, "Computing Receptive Fields of Convolutional Neural Networks", section 2).
    Only modules are seen, not `F.max_pool2d` and its like; layer and group norm, whose statistics look at the whole
    image, do not count; of adaptive pooling with uneven windows the widest counts.
    Raises `ValueError` for windows that are not square.
    """
    rows, jump, field = [], 1, 1

    def visit(name: str, module: nn.Module, inputs: Tensor, output: Tensor) -> None:
        nonlocal jump, field
        if inputs.ndim != 4 or (window := _window(module, inputs.shape[-1], output.shape[-1])) is None:
            return
        kernel, stride, padding, dilation = window
        field += (kernel - 1) * dilation * jump
        jump *= stride
        kind = type(module).__name__
        if isinstance(module, nn.Conv2d) and module.groups > 1:
            kind += " depthwise" if module.groups == module.in_channels else " grouped"
        row = dict(layer=name, type=kind, kernel=kernel, stride=stride, padding=padding, dilation=dilation)
        row |= dict(size_in=inputs.shape[-1], size_out=output.shape[-1], channels=output.shape[1])
        rows.append(row | dict(jump=jump, receptive_field=field))

    _visit_leaves(model, input_size, visit)
    return pd.DataFrame(rows)


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
    Raises `ValueError` for a name that the model does not have.
    """
    modules = dict(model.named_modules())
    if layer not in modules:
        raise ValueError(f"unknown layer {layer!r}, expected one of {', '.join(filter(None, modules))}")
    outputs = []
    handle = modules[layer].register_forward_hook(lambda module, inputs, output: outputs.append(output))
    try:
        with evaluation_mode(model), torch.enable_grad():
            images = torch.randn(n, *input_size, generator=generator).to(device_of(model)).requires_grad_()
            model(images)
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
    the float32 outputs of all layers, about what training keeps for the backward pass.
    """

    parameters: int
    macs: int
    activation_bytes: int


def budget(model: nn.Module, input_size: tuple[int, int, int] = (3, 32, 32)) -> Budget:
    """Count parameters, multiply-accumulates and activation memory, by running one image through `model`."""
    sizes = []
    counter = FlopCounterMode(display=False)
    with counter:
        _visit_leaves(model, input_size, lambda name, module, inputs, output: sizes.append(output.numel() * 4))
    parameters = sum(p.numel() for p in model.parameters() if p.requires_grad)
    return Budget(parameters, counter.get_total_flops() // 2, sum(sizes))
