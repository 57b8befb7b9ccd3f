"""The operations of a forward pass, found by running it, and which pixels their outputs depend on."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.module_tracker import ModuleTracker

from course_utils.analysis.operations.grid import Grid, of_images, unknown
from course_utils.analysis.operations.rules import PRODUCTS, REDUCTIONS, Window, follow, window_of
from course_utils.device import check_network, device_of, evaluation_mode

WINDOWED = ("convolution", "transposed convolution", "max pooling", "average pooling", "interpolation", "rearrangement")
POINT = Window("other", (), (1,), (1,), (0,), (1,))


@dataclass(frozen=True, eq=False)
class Operation:
    """One operation of a forward pass, and those that made its inputs.

    `name`: PyTorch's word for it. `layer`, `type`: the name and class of the innermost module that called it. `kind`:
    convolution, transposed convolution, max pooling, average pooling, interpolation, rearrangement, linear or other.
    `window`: how it looks at its neighbours. `grid_in`, `grid`: where its input and output lie on the image.
    `new_values`: how many numbers its output keeps in memory of its own.
    """

    name: str
    kind: str
    grid_in: Grid
    grid: Grid
    before: tuple["Operation", ...] = ()
    window: Window = POINT
    layer: str = ""
    type: str = ""
    new_values: int = 0

    @property
    def depthwise(self) -> bool:
        return self.window.groups == "depthwise"

    @property
    def pointwise(self) -> bool:
        return self.kind == "convolution" and max(self.window.kernel) == 1 and not self.depthwise

    @property
    def pools(self) -> bool:
        """Makes a smaller grid, by a maximum or a mean."""
        return self.kind.endswith("pooling") and 1 < self.grid.cells < self.grid_in.cells

    @property
    def collapses(self) -> bool:
        """From a grid to one number per channel, or to no grid at all."""
        return self.grid_in.cells > 1 and self.grid.cells == 1


class _Recorder(TorchDispatchMode):
    """Writes down what is computed from the images, by modules, by functions and by methods of tensors alike."""

    def __init__(self, images: Tensor, model: nn.Module):
        super().__init__()
        grid = of_images(images.shape)
        self.operations = [Operation("images", "images", grid, grid)]
        self.made = {id(images): self.operations[0]}
        self.written: dict[int, Operation] = {}  # memory that holds what was computed elsewhere, by its address
        self.alive = [images]  # the id of a tensor that is gone would be given to another one
        self.tracker, self.modules = ModuleTracker(), dict(model.named_modules())

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        inputs = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        for tensor in inputs:
            self.find(tensor)
        if (
            any(id(tensor) in self.made for tensor in inputs)
            and "_like" not in func.name()
            and "new_" not in func.name()
        ):
            outputs = [leaf for leaf in tree_leaves(result) if isinstance(leaf, Tensor)]
            schema = func._schema.arguments
            given = {each.name: each.default_value for each in schema if each.has_default_value()}
            given |= dict(zip((each.name for each in schema), args, strict=False)) | (kwargs or {})
            # What a norm or a pooling returns besides its result has another number of dimensions, or is not used.
            operations = [
                self._describe(func, given, inputs, output) for output in outputs if output.ndim == outputs[0].ndim
            ]
            self.operations += operations
            if func._schema.is_mutable:
                self._overwritten(operations[0], inputs[0])
            self.alive += outputs
            self.made |= {id(output): operation for output, operation in zip(outputs, operations, strict=False)}
        return result

    def _describe(self, func, given: dict[str, Any], inputs: list[Tensor], output: Tensor) -> Operation:
        name = func.overloadpacket.__name__.removesuffix("_")
        known = [tensor for tensor in inputs if id(tensor) in self.made]
        before = tuple(dict.fromkeys(self.made[id(tensor)] for tensor in known))
        grids = [(tensor, self.made[id(tensor)].grid if id(tensor) in self.made else None) for tensor in inputs]
        grid = follow(name, given, grids, output, torch.Tag.pointwise in func.tags)
        window = window_of(name, given, known[0], output)
        kind = window.kind if window else "other"
        if name in REDUCTIONS and before[0].grid.cells > grid.cells:
            kind = REDUCTIONS[name]
            sizes = tuple(a // b for a, b in zip(before[0].grid.sizes, grid.sizes, strict=True)) if grid.sizes else ()
            window = Window(kind, (), sizes, sizes) if sizes else None
        elif name in PRODUCTS and len(known) < len(inputs):  # with something that was not made from images: weights
            kind = "linear"
        elif name == "slice" and given["step"] > 1 and known[0].shape != output.shape:
            kind = "rearrangement"
        new = 0 if _memory(output) in map(_memory, self.alive) else output.numel() // 2
        layer, type_ = self._caller(name)
        return Operation(name, kind, before[0].grid, grid, before, window or POINT, layer, type_, new)

    def _caller(self, name: str) -> tuple[str, str]:
        """The name and the class of the innermost module that is running; where it is no layer, PyTorch's name."""
        _, _, layer = max(self.tracker.parents - {"Global"}, key=len, default="").partition(".")
        kind = type(self.modules.get(layer)).__name__.removeprefix("Parametrized")
        function = name.removeprefix("_").removesuffix("_with_indices").replace("convolution", "conv2d")
        return layer, kind if hasattr(nn, kind) and kind != "Sequential" else function

    def find(self, tensor: object) -> Operation | None:
        """The operation that made `tensor`; None if nothing in it was computed from the images."""
        if isinstance(tensor, Tensor) and id(tensor) not in self.made and (memory := _memory(tensor)) in self.written:
            self._lose(tensor, self.written[memory])
        return self.made.get(id(tensor))

    def _lose(self, tensor: Tensor, writer: Operation) -> None:
        grid = unknown(writer.name, [writer.grid], tensor)
        self.made[id(tensor)] = Operation(writer.name, "other", grid, grid, (writer,))
        self.operations.append(self.made[id(tensor)])
        self.alive.append(tensor)

    def _overwritten(self, writer: Operation, tensor: Tensor) -> None:
        """Other views of memory that `writer` has changed hold what it computed, at places that are not known."""
        if id(tensor) not in self.made:
            self.written[_memory(tensor)] = writer
        elif len(writer.before) > 1:  # with more than the values that it had
            for other in [each for each in self.alive if each is not tensor and _memory(each) == _memory(tensor)]:
                self._lose(other, writer)


def _memory(tensor: Tensor) -> int:
    return tensor.untyped_storage().data_ptr()


@torch.no_grad()
def trace(model: nn.Module, input_size: tuple[int, int, int] = (3, 32, 32)) -> list[Operation]:
    """The operations that lead from an image to the output of `model`, in order of call; the last one made the output.

    Two images are sent through in evaluation mode. Raises `TypeError` for what is no network, and `ValueError` if the
    output is no tensor computed from the images.
    """
    check_network(model)
    if any(isinstance(module, torch.jit.ScriptModule) for module in model.modules()):
        raise TypeError("model is compiled by torch.jit, expected the nn.Module that it was made from")
    images = torch.zeros(2, *input_size, device=device_of(model))
    recorder = _Recorder(images, model)
    with evaluation_mode(model), recorder.tracker, recorder:
        output = model(images)
    if (last := recorder.find(output)) is None:
        raise ValueError(f"the network returned {type(output).__name__}, expected logits computed from the images")
    read, todo = set(), [last]
    while todo:
        operation = todo.pop()
        if operation not in read:
            read.add(operation)
            todo += operation.before
    return [operation for operation in recorder.operations if operation in read]
