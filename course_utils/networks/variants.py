"""The networks to which the studies of the course compare its own: each changes one thing."""

from torch import nn

from course_utils.networks.layers import CourseNet, conv_block, make_norm
from course_utils.networks.s8 import S8Net46k
from course_utils.networks.s9 import S9Net180k


class S8Net46kHe(S8Net46k):
    """`S8Net46k` whose convolutions start with normal weights of variance 2 / fan-in and no bias (He et al. 2015)."""

    def __init__(self, norm: str = "none", num_groups: int = 4, dropout: float = 0.0, num_classes: int = 10):
        super().__init__(norm, num_groups, dropout, num_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
                if module.bias is not None:
                    nn.init.zeros_(module.bias)


class S8Skeleton(CourseNet):
    """224,522 parameters: three convolutions with their ReLU, max-pooling between them; where a design may begin."""

    def __init__(self, norm: str = "none", num_groups: int = 4, dropout: float = 0.0, num_classes: int = 10):
        super().__init__()
        options: dict = dict(norm=norm, num_groups=num_groups, dropout=dropout)
        self.features = nn.Sequential(
            *(conv_block(3, 64, **options), nn.MaxPool2d(2)),
            *(conv_block(64, 128, **options), nn.MaxPool2d(2)),
            conv_block(128, 128, **options),
        )
        self.classifier = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(128, num_classes, kernel_size=1))


class S9Net180kPooled(S9Net180k):
    """`S9Net180k` whose strided convolutions compute every position, and max-pooling takes the largest of four."""

    def __init__(self, norm: str = "batch", num_groups: int = 4, dropout: float = 0.0, num_classes: int = 10):
        super().__init__(norm, num_groups, dropout, num_classes)
        for block in list(self.features)[:3]:
            block[2].stride = (1, 1)
            block[2] = nn.Sequential(block[2], nn.MaxPool2d(2, ceil_mode=True))  # the same grids: 16, 7 and 3


class S9Net180kActivated(S9Net180k):
    """`S9Net180k` with a ReLU and a normalization after each strided convolution, as after the others."""

    def __init__(self, norm: str = "batch", num_groups: int = 4, dropout: float = 0.0, num_classes: int = 10):
        super().__init__(norm, num_groups, dropout, num_classes)
        for block in list(self.features)[:3]:
            channels = block[2].out_channels
            block[2] = nn.Sequential(block[2], nn.ReLU(), make_norm(channels, norm, num_groups))


class S9Net180kUndilated(S9Net180k):
    """`S9Net180k` without dilation: its strided convolutions read three positions in a row, on grids of 16, 8 and 4."""

    def __init__(self, norm: str = "batch", num_groups: int = 4, dropout: float = 0.0, num_classes: int = 10):
        super().__init__(norm, num_groups, dropout, num_classes)
        for block in list(self.features)[:3]:
            block[2].dilation = (1, 1)
