"""The networks of session S9: fewer than 200,000 parameters, strided convolutions in place of pooling."""

from functools import partial

from torch import nn

from course_utils.networks.layers import CourseNet, conv_block, pointwise


class S9Net180k(CourseNet):
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
        self.classifier = nn.Sequential(nn.AdaptiveAvgPool2d(1), pointwise(64, num_classes))


class S9Net85k(CourseNet):
    """84,904 parameters: a strided 1×1 in place of pooling, two depthwise-separable pairs and a dilated 3×3."""

    def __init__(self, norm: str = "batch", num_groups: int = 4, dropout: float = 0.0, num_classes: int = 10):
        super().__init__()
        block = partial(conv_block, norm=norm, num_groups=num_groups, dropout=dropout, norm_first=True)
        strided_pointwise = pointwise(64, 64, stride=2, padding=1, bias=norm == "none")
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
