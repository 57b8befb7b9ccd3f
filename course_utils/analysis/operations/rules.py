"""What each of PyTorch's operations makes of the grid of a tensor."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor

from course_utils.analysis.operations.grid import Dim, Grid, joined, unknown, viewed
from course_utils.analysis.operations.spans import (
    Reach,
    Windows,
    adaptive,
    interpolated,
    mirrored,
    repeated,
    sliding,
    transposed,
)

PRODUCTS = ("addmm", "mm", "bmm", "baddbmm", "mv", "dot")
VIEWS = ("view", "_unsafe_view", "_reshape_alias", "squeeze", "unsqueeze")
# What works value by value carries a tag in PyTorch; this is the rest.
BY_VALUE = ("clone", "detach", "alias", "_to_copy", "native_dropout", "channel_shuffle", "expand", "lift_fresh")
BY_VALUE += ("hardtanh",)  # has no tag in torch 2.11
BY_VALUE += ("native_batch_norm", "_native_batch_norm_legit_no_training", "cudnn_batch_norm", "_batch_norm_with_update")
BY_VALUE += ("native_group_norm", "native_layer_norm", "_fused_rms_norm")  # norms, whose statistics do not count
REDUCTIONS = {"mean": "average pooling", "sum": "average pooling", "amax": "max pooling", "max": "max pooling"}
REDUCTIONS |= dict.fromkeys(("amin", "min", "var", "std", "var_mean", "linalg_vector_norm", "logsumexp"), "other")


@dataclass(frozen=True)
class Window:
    """The window of an operation over the last dimensions of a tensor, and what its positions are made of."""

    kind: str
    through: Sequence[Windows]
    kernel: Sequence[int]
    stride: Sequence[int]
    padding: Sequence[int] = (0, 0)
    dilation: Sequence[int] = (1, 1)
    groups: str = ""


def _each(values: Any, n: int) -> list[int]:
    values = [values] if isinstance(values, int) else list(values)
    return values * n if len(values) == 1 else values


def window_of(name: str, given: dict[str, Any], tensor: Tensor, output: Tensor) -> Window | None:
    """The window with which the operation `name` with the arguments `given` looks at `tensor`; None if it has none."""
    if (n := tensor.ndim - 2) < 1:
        return None
    sizes, to = tensor.shape[2:], output.shape[2:]
    if name == "convolution":
        stride, padding, dilation = (_each(given[key], n) for key in ("stride", "padding", "dilation"))
        kernel = given["weight"].shape[2:]
        kind, make = ("transposed convolution", transposed) if given["transposed"] else ("convolution", sliding)
        groups = "depthwise" if given["weight"].shape[1] == 1 else "grouped"
        through = list(map(make, kernel, stride, padding, dilation))
        return Window(kind, through, kernel, stride, padding, dilation, groups if given["groups"] > 1 else "")
    if name in ("max_pool2d_with_indices", "avg_pool2d"):
        kernel, padding, dilation = (_each(given.get(key, 1), n) for key in ("kernel_size", "padding", "dilation"))
        stride = _each(given["stride"] or kernel, n)
        kind = "max pooling" if name.startswith("max") else "average pooling"
        return Window(kind, list(map(sliding, kernel, stride, padding, dilation)), kernel, stride, padding, dilation)
    if name in ("_adaptive_avg_pool2d", "adaptive_max_pool2d"):
        stride = [size // cells for size, cells in zip(sizes, to, strict=True)]
        through = list(map(adaptive, sizes, to))
        kernel = [max(len(list(w.of(i))) for i in range(w.period)) for w in through]
        return Window("max pooling" if "max" in name else "average pooling", through, kernel, stride)
    if name.removeprefix("_").startswith("upsample_") and not name.endswith("_aa"):
        mode = name.removeprefix("_").removeprefix("upsample_").removesuffix("2d")
        corners, scales = given.get("align_corners", False), (given.get("scales_h"), given.get("scales_w"))
        through = [interpolated(mode, a, b, corners, scale) for a, b, scale in zip(sizes, to, scales, strict=True)]
        return Window("interpolation", through, (1, 1), (1, 1))
    if name in ("pixel_shuffle", "pixel_unshuffle"):
        part = given.get("upscale_factor") or given["downscale_factor"]
        through = [repeated(part) if name == "pixel_shuffle" else sliding(part, stride=part)] * 2
        return Window("rearrangement", through, (1, 1), (1, 1))
    if name in ("constant_pad_nd", "reflection_pad2d", "replication_pad2d"):
        pad = given["pad" if name.startswith("constant") else "padding"]
        if len(pad) == 4:
            return Window("other", [sliding(1, padding=pad[2]), sliding(1, padding=pad[0])], (1, 1), (1, 1))
    return None


def _windowed(name: str, grid: Grid, window: Window, output: Tensor) -> Grid:
    n = len(window.through)
    mixing, dims = grid.dims[-n - 1], list(grid.dims)
    result = replace(grid, shape=tuple(output.shape))
    for k, windows in zip(range(-n, 0), window.through, strict=True):
        dim = dims[k]
        if dim is None and grid.shape[k] == output.shape[k] == 1:  # a vector, written as a grid
            continue
        if not isinstance(dim, Reach):
            return unknown(name, [grid], output)
        dims[k] = dim.through(windows)
    if mixing is not None:  # a convolution over channels that are positions
        result, dims[-n - 1] = result.without(mixing, grid.shape[-n - 1], name), None
    return replace(result, dims=tuple(dims))


def _reduced(name: str, grid: Grid, given: dict[str, Any], output: Tensor) -> Grid:
    axes = given.get("dim")
    axes = range(len(grid.dims)) if axes is None or axes == [] else [axes] if isinstance(axes, int) else axes
    axes = {axis % len(grid.dims) for axis in axes}
    dims: list[Dim] = list(grid.dims)
    for axis in axes:
        dim, size = dims[axis], grid.shape[axis]
        keeps = isinstance(dim, Reach) and given.get("keepdim", False)
        dims[axis] = dim.through(sliding(size, stride=size)) if keeps and isinstance(dim, Reach) else None
        if not keeps:
            grid = grid.without(dim, size, name)
    if not given.get("keepdim", False):
        dims = [dim for axis, dim in enumerate(dims) if axis not in axes]
    return replace(grid, shape=tuple(output.shape), dims=tuple(dims))


def _product(name: str, factors: list[tuple[Tensor, Grid | None]], output: Tensor) -> Grid:
    """A product of matrices: the last dimension of the first factor meets the last but one of the second."""
    (a, left), (b, right) = factors[-2:]
    known = [grid for grid in (left, right) if grid]
    dims: list[Dim] = [None] * output.ndim
    result = joined(name, [replace(grid, shape=(), dims=()) for grid in known], output.new_empty(()))
    if left:
        dims[: a.ndim - 1] = left.dims[:-1]
        result = result.without(left.dims[-1], a.shape[-1], name)
    if right:
        at = max(b.ndim - 2, 0)
        result = result.without(right.dims[at], b.shape[at], name)
        for k in range(b.ndim - 2):
            dims[k] = dims[k] or right.dims[k]
        if b.ndim > 1:
            dims[-1] = right.dims[-1]
    return replace(result, shape=tuple(output.shape), dims=tuple(dims))


def _sliced(grid: Grid, given: dict[str, Any], output: Tensor) -> Grid:
    axis, start, step = given["dim"] % len(grid.dims), given["start"] or 0, given["step"]
    start = min(max(start + grid.shape[axis] if start < 0 else start, 0), grid.shape[axis])
    dims = list(grid.dims)
    if isinstance(dim := dims[axis], Reach):
        dims[axis] = dim.through(sliding(1, stride=step, padding=-start))
    return replace(grid, shape=tuple(output.shape), dims=tuple(dims))


def follow(
    name: str, given: dict[str, Any], inputs: list[tuple[Tensor, Grid | None]], output: Tensor, by_value: bool
) -> Grid:
    """The grid of `output`, which the operation `name` computed from `inputs`; those without a grid are constants.

    `by_value`: the operation works value by value. What is not known here gives a grid that is `lost`.
    """
    known = [grid for _, grid in inputs if grid]
    tensor, grid = next((tensor, grid) for tensor, grid in inputs if grid)
    free = [axis for axis, dim in enumerate(grid.dims) if dim is None]
    axis = given["dim"] % tensor.ndim if isinstance(given.get("dim"), int) and tensor.ndim else None
    if len(known) == 1 and (window := window_of(name, given, tensor, output)):
        return _windowed(name, grid, window, output)
    if by_value or name in BY_VALUE:
        return joined(name, known, output)
    if name in PRODUCTS:
        return _product(name, inputs, output)
    if name in VIEWS:
        return viewed(name, grid, output)
    if name in REDUCTIONS:
        return _reduced(name, grid, given, output)
    if name == "slice":
        return _sliced(grid, given, output)
    if name in ("permute", "transpose", "t"):
        order = list(range(tensor.ndim))
        if name == "permute":
            order = [k % tensor.ndim for k in given["dims"]]
        else:
            a, b = (given["dim0"], given["dim1"]) if name == "transpose" else (0, -1)
            order[a], order[b] = order[b], order[a]
        return replace(grid, shape=tuple(output.shape), dims=tuple(grid.dims[k] for k in order))
    if name in ("_softmax", "_log_softmax") and axis is not None:
        return joined(name, [grid.without(grid.dims[axis], tensor.shape[axis], name)], output)
    if name == "flip":
        dims = list(grid.dims)
        for k in given["dims"]:
            if isinstance(dim := dims[k], Reach):
                dims[k] = dim.through(mirrored(tensor.shape[k]))
        return replace(grid, dims=tuple(dims))
    if name in ("split", "split_with_sizes", "select", "unbind", "index_select", "cat") and axis in free:
        if name in ("select", "unbind"):
            dims = tuple(dim for k, dim in enumerate(grid.dims) if k != axis)
            return replace(grid, shape=tuple(output.shape), dims=dims)
        shape = tuple(output.shape[axis] if k == axis else size for k, size in enumerate(tensor.shape))
        widened = [replace(each, shape=shape) for each in known]
        if len({len(each.dims) for each in widened}) == 1:
            return joined(name, widened, output)
    return unknown(name, known, output)
