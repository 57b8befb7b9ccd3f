"""Which input pixels a position of a tensor depends on, along one side of the image; exact, in whole numbers."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from fractions import Fraction
from math import gcd, inf, lcm


@dataclass(frozen=True)
class Windows:
    """Position `i` of an output is made of the input positions `of(i)`; `of(i + period)` lies `step` further."""

    of: Callable[[int], Iterable[int]]
    period: int
    step: int


def sliding(kernel: int, stride: int = 1, padding: int = 0, dilation: int = 1) -> Windows:
    """The windows of convolutions, pooling, padding (a negative one crops) and slices with a step."""
    return Windows(lambda i: range(i * stride - padding, i * stride - padding + kernel * dilation, dilation), 1, stride)


def transposed(kernel: int, stride: int, padding: int, dilation: int) -> Windows:
    """The windows of a transposed convolution: input `j` reaches the outputs `j·stride - padding + k·dilation`."""

    def of(i: int) -> list[int]:
        reaching = [i + padding - k * dilation for k in range(kernel)]
        return [place // stride for place in reaching if place % stride == 0]

    return Windows(of, stride, 1)


def repeated(times: int) -> Windows:
    """Each position as often, one after the other."""
    return Windows(lambda i: [i // times], times, 1)


def mirrored(size: int) -> Windows:
    """The last of `size` positions first."""
    return Windows(lambda i: [size - 1 - i], 1, -1)


def adaptive(size: int, to: int) -> Windows:
    """The windows of adaptive pooling from `size` to `to` positions."""
    common = gcd(size, to)
    return Windows(lambda i: range(i * size // to, -(-(i + 1) * size // to)), to // common, size // common)


def interpolated(mode: str, size: int, to: int, align_corners: bool = False, scale: float | None = None) -> Windows:
    """The windows of interpolation from `size` to `to` positions.

    `mode`: `"nearest"`, `"nearest_exact"`, `"bilinear"` or `"bicubic"`. `scale`: the factor that was asked for, which
    PyTorch uses in place of the ratio of the sizes.
    """
    ratio = Fraction(1 / scale).limit_denominator(1000) if scale else Fraction(size, to)
    if align_corners:
        ratio = Fraction(size - 1, to - 1) if to > 1 else Fraction(1)
    start = {"nearest": Fraction(0), "nearest_exact": ratio / 2}.get(mode, (ratio - 1) / 2 * (not align_corners))
    before, after = {"bilinear": (0, 1), "bicubic": (-1, 2)}.get(mode, (0, 0))

    def of(i: int) -> range:
        place = i * ratio + start
        whole = place.numerator // place.denominator
        if place == whole:  # the weights of the other positions are zero
            return range(whole, whole + 1)
        return range(whole + before, whole + after + 1)

    return Windows(of, ratio.denominator, ratio.numerator)


@dataclass(frozen=True)
class Reach:
    """Which pixels the positions along one dimension of a tensor depend on.

    `side`: of the image, 0 for its rows and 1 for its columns. `spans`: the first and the last pixel for each position
    of one period; from one period to the next they lie `advance` further. They are as far from the image's borders:
    pixels may lie outside it. The channels of a position count together.
    """

    side: int
    spans: tuple[tuple[float, float], ...] = ((0, 0),)
    advance: int = 1

    @property
    def jump(self) -> Fraction:
        """Pixels from one position to the next, on average."""
        return Fraction(self.advance, len(self.spans))

    def at(self, position: int) -> tuple[float, float]:
        """The first and the last pixel for a position; `(inf, -inf)` for one that depends on none."""
        periods, phase = divmod(position, len(self.spans))
        first, last = self.spans[phase]
        return first + periods * self.advance, last + periods * self.advance

    def field(self, size: int) -> int:
        """The largest number of pixels that one of the first `size` positions spans."""
        return int(max(last - first + 1 for first, last in self.spans[:size] if first <= last))

    def through(self, windows: Windows) -> "Reach":
        """The reach of what is made of this by `windows`."""
        repeats = len(self.spans) // gcd(len(self.spans), windows.step)
        places = [[self.at(j) for j in windows.of(i)] for i in range(windows.period * repeats)]
        spans = [
            (min((first for first, _ in seen), default=inf), max((last for _, last in seen), default=-inf))
            for seen in places
        ]
        return Reach(self.side, tuple(spans), windows.step * repeats * self.advance // len(self.spans))

    def union(self, other: "Reach", size: int) -> "Reach":
        """The reach of a tensor of `size` positions that depends on two others, position by position."""
        if self == other:
            return self
        period, advance = lcm(len(self.spans), len(other.spans)), self.advance
        if self.jump != other.jump:  # they drift apart: as they stand within the tensor
            period = -(-size // len(self.spans)) * len(self.spans)
        pairs = [(self.at(i), other.at(i)) for i in range(period)]
        spans = tuple((min(a[0], b[0]), max(a[1], b[1])) for a, b in pairs)
        return Reach(self.side, spans, advance * period // len(self.spans))
