"""How the dimensions of a tensor lie on the image, and what an operation makes of that."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from course_utils.analysis.operations.spans import Reach, repeated, sliding


@dataclass(frozen=True)
class Merged:
    """A dimension made of several: their sizes and what each of them is."""

    sizes: tuple[int, ...]
    dims: tuple[Reach | None, ...]


Dim = Reach | Merged | None


@dataclass(frozen=True)
class Grid:
    """Where the values of a tensor lie on the image.

    `dims`: for each dimension its `Reach`, None for the images of a batch and their channels, or what was `Merged` in
    it. `image`: rows and columns of the image. `whole`: sides of the image that every value depends on in full, besides
    its own reach. `lost`: the operation that could not be followed; what stands here is then not known.
    """

    shape: tuple[int, ...]
    dims: tuple[Dim, ...]
    image: tuple[int, int]
    whole: frozenset[int] = frozenset()
    lost: str = ""

    @property
    def cells(self) -> int:
        """How many positions each channel has."""
        return math.prod(size for size, dim in zip(self.shape, self.dims, strict=True) if dim is not None)

    @property
    def channels(self) -> int:
        """How many numbers each position of an image has."""
        return math.prod(self.shape) // self.cells // self.shape[0]

    @property
    def reaches(self) -> dict[int, tuple[Reach, int]]:
        """For each side of the image that has positions: their reach and how many there are."""
        pairs = zip(self.dims, self.shape, strict=True)
        return dict(sorted((dim.side, (dim, size)) for dim, size in pairs if isinstance(dim, Reach)))

    @property
    def sizes(self) -> tuple[int, ...]:
        """Rows and columns of positions; empty where these are no two dimensions."""
        return tuple(size for _, size in self.reaches.values()) if len(self.reaches) == 2 else ()

    @property
    def field(self) -> tuple[int, ...]:
        """The receptive field of one position, away from the borders: rows and columns, in pixels."""
        own = {side: reach.field(size) for side, (reach, size) in self.reaches.items()}
        whole = self.whole | ({0, 1} - own.keys())
        return tuple(max(own.get(side, 1), self.image[side] if side in whole else 1) for side in (0, 1))

    def without(self, dim: Dim, size: int, name: str) -> "Grid":
        """This, where the operation `name` brings all positions of a dimension together."""
        if isinstance(dim, Reach):
            first, last = dim.at(0)[0], dim.at(size - 1)[1]
            if first > 0 or last < self.image[dim.side] - 1:
                return replace(self, lost=self.lost or name)
        return replace(self, whole=self.whole | _sides(dim))


def _sides(dim: Dim) -> frozenset[int]:
    parts = dim.dims if isinstance(dim, Merged) else (dim,)
    return frozenset(part.side for part in parts if part)


def of_images(shape: torch.Size) -> Grid:
    """The grid of a batch of images, `N×C×H×W`."""
    return Grid(tuple(shape), (None, None, Reach(0), Reach(1)), (shape[2], shape[3]))


def unknown(name: str, grids: Sequence[Grid], output: Tensor) -> Grid:
    """After an operation that cannot be followed: the last two of four dimensions are taken for positions."""
    dims = (None, None, Reach(0), Reach(1)) if output.ndim == 4 else (None,) * output.ndim
    return Grid(tuple(output.shape), dims, grids[0].image, lost=next((grid.lost for grid in grids if grid.lost), name))


def joined(name: str, grids: Sequence[Grid], output: Tensor) -> Grid:
    """What is computed value by value from tensors that are broadcast to the shape of `output`."""
    whole = frozenset().union(*(grid.whole for grid in grids))
    result = Grid(tuple(output.shape), (), grids[0].image, whole, next((grid.lost for grid in grids if grid.lost), ""))
    dims: list[Dim] = []
    for back in range(output.ndim, 0, -1):
        size, found = output.shape[-back], None
        for grid in grids:
            dim = grid.dims[-back] if back <= len(grid.dims) else None
            if dim is not None and grid.shape[-back] != size:  # one position for all: it has to see all
                result = result.without(dim, 1, name)
            elif isinstance(dim, Reach) and isinstance(found, Reach) and dim.side == found.side:
                found = found.union(dim, size)
            elif dim is not None and found not in (None, dim):
                result = replace(result, lost=result.lost or name)
            else:
                found = dim or found
        dims.append(found)
    return replace(result, dims=tuple(dims))


def _groups(before: Sequence[int], after: Sequence[int]) -> Iterator[tuple[list[int], list[int]]]:
    """Which neighbouring dimensions of one shape hold the same values as which of another, in the same order."""
    i = j = 0
    while i < len(before) or j < len(after):
        ins, outs = list(range(i, i + 1))[: len(before) - i], list(range(j, j + 1))[: len(after) - j]
        i, j = i + len(ins), j + len(outs)
        while (a := math.prod(before[k] for k in ins)) != (b := math.prod(after[k] for k in outs)):
            if a < b:
                ins, i = [*ins, i], i + 1
            else:
                outs, j = [*outs, j], j + 1
        yield ins, outs


def viewed(name: str, grid: Grid, output: Tensor) -> Grid:
    """The same values, in the same order, in another shape."""
    parts: list[tuple[int, Reach | None]] = []
    for size, dim in zip(grid.shape, grid.dims, strict=True):
        parts += zip(dim.sizes, dim.dims, strict=True) if isinstance(dim, Merged) else [(size, dim)]
    dims: list[Dim] = [None] * output.ndim
    result = replace(grid, shape=tuple(output.shape))
    for ins, outs in _groups([size for size, _ in parts], output.shape):
        found = [parts[k] for k in ins if parts[k][0] > 1 or len(ins) == len(outs) == 1]
        to = [k for k in outs if output.shape[k] > 1 or len(ins) == len(outs) == 1]
        for size, dim in (parts[k] for k in ins):
            if size == 1 and len(to) != 1:
                result = result.without(dim, 1, name)
        reaches = [dim for _, dim in found if dim]
        if not reaches:
            continue
        if len(found) == len(to) == 1:
            dims[to[0]] = reaches[0]
        elif len(to) == 1 and len(reaches) == 1 and found[0][1]:  # channels become a finer grid
            part = output.shape[to[0]] // found[0][0]
            dims[to[0]] = reaches[0].through(repeated(part))
        elif len(to) == 1:
            dims[to[0]] = Merged(*zip(*found, strict=True))
        elif len(found) == 1:  # a coarser grid, the positions in whose cells become channels
            part = found[0][0] // output.shape[to[0]]
            dims[to[0]] = reaches[0].through(sliding(part, stride=part))
        else:
            result = replace(result, lost=result.lost or name)
    return replace(result, dims=tuple(dims))
