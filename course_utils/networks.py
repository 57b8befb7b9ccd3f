"""The five course networks: `N×3×32×32` images to `N×num_classes` logits, each with its normalization as an argument.

Common arguments: `norm` (`"batch"`, `"layer"`, `"group"`, `"none"`), `num_groups` (for `"group"`), `num_classes`, and
`dropout`, a probability: 0 unless asked for, since networks this small rather learn too little than too much, and
drawing the masks takes a CPU almost as long as all the rest.
"""

from functools import partial

import torch.nn.functional as F
from torch import Tensor, nn

from course_utils.layers import conv_block, make_norm
from course_utils.runtime import choose


def _pointwise(in_channels: int, out_channels: int, **options) -> nn.Conv2d:
    return nn.Conv2d(in_channels, out_channels, kernel_size=1, **options)


class _CourseNet(nn.Module):
    """Blocks that see, then a classifier that averages; subclasses fill `features` and `classifier`."""

    features: nn.Sequential
    classifier: nn.Sequential

    def forward(self, images: Tensor) -> Tensor:
        return self.classifier(self.features(images)).flatten(1)


class S8Net46k(_CourseNet):
    """46,202 parameters: two transitions of a 1×1 convolution and max-pooling, then the global average."""

    def __init__(self, norm: str = "batch", num_groups: int = 4, dropout: float = 0.0, num_classes: int = 10):
        super().__init__()
        block = partial(conv_block, norm=norm, num_groups=num_groups, dropout=dropout, bias=True)
        self.features = nn.Sequential(
            nn.Sequential(block(3, 16), block(16, 32)),
            nn.Sequential(_pointwise(32, 16), nn.MaxPool2d(2)),  # 32×32 → 16×16
            nn.Sequential(block(16, 16), block(16, 32), block(32, 32)),
            nn.Sequential(_pointwise(32, 16), nn.MaxPool2d(2)),  # 16×16 → 8×8
            nn.Sequential(block(16, 32), block(32, 32, padding=0), nn.Conv2d(32, 32, kernel_size=3)),  # → 4×4
        )
        self.classifier = nn.Sequential(nn.AdaptiveAvgPool2d(1), _pointwise(32, num_classes))


class S8Net31k(_CourseNet):
    """31,216 parameters: unpadded first convolutions, and no bias in any convolution."""

    def __init__(self, norm: str = "batch", num_groups: int = 4, dropout: float = 0.0, num_classes: int = 10):
        super().__init__()
        block = partial(conv_block, norm=norm, num_groups=num_groups, dropout=dropout)
        self.features = nn.Sequential(
            nn.Sequential(block(3, 16, padding=0), block(16, 20, padding=0)),  # 32×32 → 28×28
            nn.Sequential(_pointwise(20, 16, bias=False), nn.MaxPool2d(2)),  # 28×28 → 14×14
            nn.Sequential(block(16, 20), block(20, 24), block(24, 28)),
            nn.Sequential(_pointwise(28, 16, bias=False), nn.MaxPool2d(2)),  # 14×14 → 7×7
            nn.Sequential(block(16, 20), block(20, 24), block(24, 28)),
        )
        self.classifier = nn.Sequential(nn.AvgPool2d(7), _pointwise(28, num_classes, bias=False))


class _ReluAsFunction(nn.Sequential):
    """Convolution, ReLU, normalization, dropout, where the ReLU is a function and so stands in no layer table."""

    def __init__(
        self, in_channels: int, out_channels: int, norm: str, num_groups: int, dropout: float, padding: int = 1
    ):
        super().__init__(
            nn.Conv2d(in_channels, out_channels, kernel_size=3, padding=padding, bias=norm == "none"),
            make_norm(out_channels, norm, num_groups),
            nn.Dropout(dropout),
        )

    def forward(self, inputs: Tensor) -> Tensor:
        convolution, norm, dropout = self
        return dropout(norm(F.relu(convolution(inputs))))


class S8Net38k(_CourseNet):
    """37,664 parameters: wide blocks of 32 channels, squeezed to 8 in both transitions."""

    def __init__(self, norm: str = "batch", num_groups: int = 2, dropout: float = 0.0, num_classes: int = 10):
        super().__init__()
        block = partial(_ReluAsFunction, norm=norm, num_groups=num_groups, dropout=dropout)
        self.features = nn.Sequential(
            nn.Sequential(block(3, 32), block(32, 32)),
            nn.Sequential(_pointwise(32, 8, bias=False), nn.MaxPool2d(2)),  # 32×32 → 16×16
            nn.Sequential(block(8, 32), block(32, 32), block(32, 32, padding=0)),  # 16×16 → 14×14
            nn.Sequential(_pointwise(32, 8, bias=False), nn.MaxPool2d(2)),  # 14×14 → 7×7
            nn.Sequential(block(8, 16), block(16, 16), block(16, 16)),
        )
        self.classifier = nn.Sequential(nn.AvgPool2d(7), _pointwise(16, num_classes, bias=False))


class S9Net180k(_CourseNet):
    """180,298 parameters: every block but the last ends in a strided convolution, dilated too from 16×16 on."""

    def __init__(self, norm: str = "batch", num_groups: int = 4, dropout: float = 0.0, num_classes: int = 10):
        super().__init__()
        block = partial(conv_block, norm=norm, num_groups=num_groups, dropout=dropout, bias=True)
        strided = partial(nn.Conv2d, kernel_size=3, stride=2, padding=1)
        self.features = nn.Sequential(
            nn.Sequential(block(3, 32), block(32, 64), strided(64, 32)),  # 32×32 → 16×16
            nn.Sequential(block(32, 32), block(32, 64), strided(64, 32, dilation=2)),  # 16×16 → 7×7
            nn.Sequential(block(32, 32), block(32, 64, separable=True), strided(64, 32, dilation=2)),  # 7×7 → 3×3
            nn.Sequential(block(32, 32), block(32, 64), nn.Conv2d(64, 64, kernel_size=3, padding=1)),
        )
        self.classifier = nn.Sequential(nn.AdaptiveAvgPool2d(1), _pointwise(64, num_classes))


class S9Net85k(_CourseNet):
    """84,904 parameters: a strided 1×1 in place of pooling, two depthwise-separable pairs and a dilated 3×3."""

    def __init__(self, norm: str = "batch", num_groups: int = 4, dropout: float = 0.0, num_classes: int = 10):
        super().__init__()
        block = partial(conv_block, norm=norm, num_groups=num_groups, dropout=dropout, norm_first=True)
        strided_pointwise = _pointwise(64, 64, stride=2, padding=1, bias=norm == "none")
        self.features = nn.Sequential(
            nn.Sequential(block(3, 32), block(32, 32), block(32, 64, padding=0)),  # 32×32 → 30×30
            nn.Sequential(strided_pointwise, block(64, 64, kernel_size=1, padding=0)),  # 30×30 → 16×16
            nn.Sequential(
                block(64, 64, separable=True, bias=True, dropout=None),
                block(64, 32, padding=2, dilation=2),
                block(32, 32, stride=2),  # 16×16 → 8×8
            ),
            nn.Sequential(
                block(32, 24, dropout=None),
                block(24, 24, separable=True, bias=True),
                block(24, 16, stride=2),  # 8×8 → 4×4
            ),
            block(16, 16),
        )
        last = nn.Conv2d(16, num_classes, kernel_size=3, padding=1, bias=norm == "none")
        self.classifier = nn.Sequential(last, nn.AvgPool2d(4))


NETWORKS = {network.__name__: network for network in (S8Net46k, S8Net38k, S8Net31k, S9Net180k, S9Net85k)}


def make_network(name: str, **options) -> nn.Module:
    """The course network of that name, with the options of its class; `ValueError` for another name."""
    return NETWORKS[choose(name, NETWORKS, "network")](**options)
