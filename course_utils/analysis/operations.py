"""The operations of a forward pass, found by running it."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from course_utils.device import device_of, evaluation_mode

PRODUCTS = ("addmm", "mm", "bmm", "baddbmm", "linear", "matmul")


@dataclass(frozen=True, eq=False)
class Operation:
    """One operation of a forward pass, and those that made its inputs.

    `kind`: convolution, max pooling, average pooling, linear or other. `cells_in`, `cells_out`: positions per channel.
    `field`: the receptive field of its output, in input pixels; `jump`: from one output to the next.
    """

    kind: str
    before: tuple["Operation", ...] = ()
    kernel: int = 1
    stride: int = 1
    dilation: int = 1
    depthwise: bool = False
    cells_in: int = 1
    cells_out: int = 1
    field: int = 1
    jump: int = 1

    @property
    def pointwise(self) -> bool:
        return self.kind == "convolution" and self.kernel == 1 and not self.depthwise

    @property
    def pools(self) -> bool:
        """Makes a smaller grid, by a maximum or a mean."""
        return self.kind.endswith("pooling") and 1 < self.cells_out < self.cells_in

    @property
    def collapses(self) -> bool:
        """From a grid to one number per channel, or to no grid at all."""
        return self.cells_in > 1 and self.cells_out == 1


class _Recorder(TorchDispatchMode):
    """Writes down what is computed from the images, by modules, by functions and by methods of tensors alike."""

    def __init__(self, images: Tensor):
        super().__init__()
        self.maker = {id(images): Operation("images", cells_out=_cells(images))}
        self.alive = [images]  # the id of a tensor that is gone would be given to another one

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        inputs = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        if any(id(tensor) in self.maker for tensor in inputs):
            outputs = [leaf for leaf in tree_leaves(result) if isinstance(leaf, Tensor)]
            operation = self._describe(func.overloadpacket.__name__, args, inputs, outputs[0])
            self.alive += outputs
            self.maker |= {id(output): operation for output in outputs}
        return result

    def _describe(self, name: str, args: tuple, inputs: list[Tensor], output: Tensor) -> Operation:
        known = [tensor for tensor in inputs if id(tensor) in self.maker]
        before, images = tuple(dict.fromkeys(self.maker[id(tensor)] for tensor in known)), known[0]
        kind, kernel, stride, dilation, depthwise = "other", [1], [1], [1], False
        if name == "convolution":
            weight, stride, dilation = args[1], args[3], args[5]
            kind, kernel, depthwise = "convolution", weight.shape[2:], args[8] > 1 and weight.shape[1] == 1
        elif name in ("max_pool2d_with_indices", "avg_pool2d"):
            kind, kernel = ("max pooling" if name.startswith("max") else "average pooling"), args[1]
            stride = (args[2] if len(args) > 2 else None) or kernel
            dilation = args[4] if name.startswith("max") and len(args) > 4 else [1]
        elif name in ("_adaptive_avg_pool2d", "adaptive_max_pool2d"):
            kind = "max pooling" if "max" in name else "average pooling"
            sizes = list(zip(images.shape[2:], output.shape[2:], strict=True))
            stride = [size // to for size, to in sizes]
            kernel = [size - (to - 1) * (size // to) for size, to in sizes]
        elif name in ("mean", "sum", "amax", "max") and images.ndim > 2 and _over_positions(args, images):
            kind = "average pooling" if name in ("mean", "sum") else "max pooling"
        elif name in PRODUCTS and len(known) < len(inputs):  # with something that was not made from images: weights
            kind = "linear"
        elif name == "slice" and args[1] >= 2 and len(args) > 4:
            stride = [args[4]]
        jump, field = max(source.jump for source in before), max(source.field for source in before)
        kernel, stride, dilation = max(kernel), max(stride), max(dilation)
        cells = max(source.cells_out for source in before), _cells(output)
        field += (kernel - 1) * dilation * jump
        return Operation(kind, before, kernel, stride, dilation, depthwise, *cells, field, jump * stride)


def _cells(tensor: Tensor) -> int:
    return tensor.shape[2:].numel()


def _over_positions(args: tuple, tensor: Tensor) -> bool:
    axes = args[1] if len(args) > 1 else range(tensor.ndim)
    return min(axis % tensor.ndim for axis in ([axes] if isinstance(axes, int) else axes)) >= 2


@torch.no_grad()
def trace(model: nn.Module, input_size: tuple[int, int, int] = (3, 32, 32)) -> list[Operation]:
    """The operations that lead from an image to the output of `model`; those whose result nobody reads are left out.

    In evaluation mode. Raises `ValueError` if the output is no tensor computed from the images.
    """
    images = torch.zeros(2, *input_size, device=device_of(model))
    recorder = _Recorder(images)
    with evaluation_mode(model), recorder:
        output = model(images)
    if not isinstance(output, Tensor) or id(output) not in recorder.maker:
        raise ValueError(f"the network returned {type(output).__name__}, expected logits computed from the images")
    found, todo = {}, [recorder.maker[id(output)]]
    while todo:
        operation = todo.pop()
        if operation not in found:
            found[operation] = True
            todo += operation.before
    return list(found)
