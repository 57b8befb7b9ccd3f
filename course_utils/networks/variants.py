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


def _strided(model: S9Net180k) -> list[tuple[nn.Sequential, nn.Conv2d]]:
    """The blocks that end in a strided convolution, each with it."""
    blocks = [block for block in model.features if isinstance(block, nn.Sequential)]
    return [(block, last) for block in blocks if isinstance(last := block[-1], nn.Conv2d) and last.stride == (2, 2)]


class S9Net180kPooled(S9Net180k):
    """`S9Net180k` whose strided convolutions compute every position, and max-pooling takes the largest of four."""

    def __init__(self, norm: str = "batch", num_groups: int = 4, dropout: float = 0.0, num_classes: int = 10):
        super().__init__(norm, num_groups, dropout, num_classes)
        for block, convolution in _strided(self):
            convolution.stride = (1, 1)
            block[-1] = nn.Sequential(convolution, nn.MaxPool2d(2, ceil_mode=True))  # the same grids: 16, 7 and 3


class S9Net180kActivated(S9Net180k):
    """`S9Net180k` with a ReLU and a normalization after each strided convolution, as after the others."""

    def __init__(self, norm: str = "batch", num_groups: int = 4, dropout: float = 0.0, num_classes: int = 10):
        super().__init__(norm, num_groups, dropout, num_classes)
        for block, convolution in _strided(self):
            block[-1] = nn.Sequential(convolution, nn.ReLU(), make_norm(convolution.out_channels, norm, num_groups))


class S9Net180kUndilated(S9Net180k):
    """`S9Net180k` without dilation: its strided convolutions read three positions in a row, on grids of 16, 8 and 4."""

    def __init__(self, norm: str = "batch", num_groups: int = 4, dropout: float = 0.0, num_classes: int = 10):
        super().__init__(norm, num_groups, dropout, num_classes)
        for _, convolution in _strided(self):
            convolution.dilation = (1, 1)
