"""The networks of session S8: fewer than 50,000 parameters, two transitions of a 1×1 convolution and max-pooling."""

from functools import partial

import torch.nn.functional as F
from torch import Tensor, nn

from course_utils.networks.layers import CourseNet, conv_block, make_norm, pointwise


class S8Net46k(CourseNet):
    """46,202 parameters: two transitions of a 1×1 convolution and max-pooling, then the global average."""

    def __init__(self, norm: str = "batch", num_groups: int = 4, dropout: float = 0.0, num_classes: int = 10):
        super().__init__()
        block = partial(conv_block, norm=norm, num_groups=num_groups, dropout=dropout, bias=True)
        self.features = nn.Sequential(
            nn.Sequential(block(3, 16), block(16, 32)),
            nn.Sequential(pointwise(32, 16), nn.MaxPool2d(2)),  # 32×32 → 16×16
            nn.Sequential(block(16, 16), block(16, 32), block(32, 32)),
            nn.Sequential(pointwise(32, 16), nn.MaxPool2d(2)),  # 16×16 → 8×8
            nn.Sequential(block(16, 32), block(32, 32, padding=0), nn.Conv2d(32, 32, kernel_size=3)),  # → 4×4
        )
        self.classifier = nn.Sequential(nn.AdaptiveAvgPool2d(1), pointwise(32, num_classes))


class S8Net31k(CourseNet):
    """31,216 parameters: unpadded first convolutions, and no bias in any convolution."""

    def __init__(self, norm: str = "batch", num_groups: int = 4, dropout: float = 0.0, num_classes: int = 10):
        super().__init__()
        block = partial(conv_block, norm=norm, num_groups=num_groups, dropout=dropout)
        self.features = nn.Sequential(
            nn.Sequential(block(3, 16, padding=0), block(16, 20, padding=0)),  # 32×32 → 28×28
            nn.Sequential(pointwise(20, 16, bias=False), nn.MaxPool2d(2)),  # 28×28 → 14×14
            nn.Sequential(block(16, 20), block(20, 24), block(24, 28)),
            nn.Sequential(pointwise(28, 16, bias=False), nn.MaxPool2d(2)),  # 14×14 → 7×7
            nn.Sequential(block(16, 20), block(20, 24), block(24, 28)),
        )
        self.classifier = nn.Sequential(nn.AvgPool2d(7), pointwise(28, num_classes, bias=False))


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
        return dropout(norm(F.relu(convolution(inputs), inplace=True)))


class S8Net38k(CourseNet):
    """37,664 parameters: wide blocks of 32 channels, squeezed to 8 in both transitions."""

    def __init__(self, norm: str = "batch", num_groups: int = 2, dropout: float = 0.0, num_classes: int = 10):
        super().__init__()
        block = partial(_ReluAsFunction, norm=norm, num_groups=num_groups, dropout=dropout)
        self.features = nn.Sequential(
            nn.Sequential(block(3, 32), block(32, 32)),
            nn.Sequential(pointwise(32, 8, bias=False), nn.MaxPool2d(2)),  # 32×32 → 16×16
            nn.Sequential(block(8, 32), block(32, 32), block(32, 32, padding=0)),  # 16×16 → 14×14
            nn.Sequential(pointwise(32, 8, bias=False), nn.MaxPool2d(2)),  # 14×14 → 7×7
            nn.Sequential(block(8, 16), block(16, 16), block(16, 16)),
        )
        self.classifier = nn.Sequential(nn.AvgPool2d(7), pointwise(16, num_classes, bias=False))
