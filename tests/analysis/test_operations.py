"""What an output depends on, as `trace` says it and as the gradient shows it, for random networks."""

import random

import pytest
import torch
import torch.nn.functional as F
import torchvision
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm

from course_utils.analysis.networks import receptive_field
from course_utils.analysis.operations import trace


class Do(nn.Module):
    """A function as a layer."""

    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


class Joined(nn.Module):
    """Two branches, cropped to a common size and added or put beside one another."""

    def __init__(self, left: nn.Module, right: nn.Module, add: bool):
        super().__init__()
        self.left, self.right, self.add, self.mix = left, right, add, nn.Conv2d(8, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        a, b = self.left(x), self.right(x)
        rows, columns = (min(a.shape[k], b.shape[k]) for k in (2, 3))
        a, b = (branch[:, :, :rows, :columns] for branch in (a, b))
        return a + b if self.add else self.mix(torch.cat([a, b], 1))


class Builder:
    """Draws layers of 4 channels; with `smooth`, means stand for maxima: what counts then has a gradient."""

    def __init__(self, seed: int, smooth: bool):
        self.draw, self.smooth = random.Random(seed), smooth

    def pair(self, low: int, high: int) -> tuple[int, int]:
        return self.draw.randint(low, high), self.draw.randint(low, high)

    def convolution(self) -> nn.Module:
        options = dict(dilation=self.pair(1, 3), groups=self.draw.choice((1, 2, 4)))
        options |= dict(padding_mode=self.draw.choice(("zeros", "reflect", "replicate")))
        if self.draw.random() < 0.2:
            layer = nn.Conv2d(4, 4, self.draw.choice((1, 3, 5)), padding="same", **options)
        else:
            layer = nn.Conv2d(4, 4, self.pair(1, 4), self.pair(1, 2), padding=self.pair(0, 2), **options)
        return weight_norm(layer) if self.draw.random() < 0.2 else layer

    def transposed(self) -> nn.Module:
        stride = self.pair(1, 3)
        kernel, more = (
            [each + self.draw.randint(0, 2) for each in stride],
            [self.draw.randrange(each) for each in stride],
        )
        dilation = self.draw.randint(1, 2) if stride == (1, 1) else 1
        return nn.ConvTranspose2d(4, 4, kernel, stride, self.pair(0, 1), more, dilation=dilation)

    def pooling(self) -> nn.Module:
        kernel, stride = self.pair(1, 4), self.pair(1, 2)
        options = dict(padding=tuple(each // 2 for each in kernel), ceil_mode=self.draw.random() < 0.5)
        if self.draw.random() < 0.5 or self.smooth:
            return Do(lambda x: F.avg_pool2d(x, kernel, stride, **options))
        return nn.MaxPool2d(kernel, stride, **options)

    def adaptive(self) -> nn.Module:
        share = self.draw.choice((1, 2, 3)), self.draw.choice((1, 1.5, 2))
        maximum = self.draw.random() < 0.5 and not self.smooth
        pool = F.adaptive_max_pool2d if maximum else F.adaptive_avg_pool2d
        return Do(lambda x: pool(x, [int(size / each) for size, each in zip(x.shape[2:], share, strict=True)]))

    def interpolation(self) -> nn.Module:
        mode = self.draw.choice(("nearest", "nearest-exact", "bilinear", "bicubic"))
        options = dict(align_corners=self.draw.random() < 0.5) if mode[0] == "b" else {}
        factor = self.draw.choice((2, 1.5, 0.5, (2, 1)))
        if self.draw.random() < 0.5:
            return nn.Upsample(scale_factor=factor, mode=mode, **options)
        return Do(lambda x: F.interpolate(x, size=(x.shape[2] * 3 // 2, x.shape[3] + 1), mode=mode, **options))

    def rearrangement(self) -> nn.Module:
        first, step = self.pair(0, 3), self.pair(1, 2)
        choices = [
            lambda: nn.Sequential(nn.PixelShuffle(2), nn.Conv2d(1, 4, 1)),
            lambda: nn.Sequential(
                Do(lambda x: F.pad(x, (0, x.shape[3] % 2, 0, x.shape[2] % 2))),
                nn.PixelUnshuffle(2),
                nn.Conv2d(16, 4, 1),
            ),
            lambda: Do(lambda x: x[:, :, first[0] :: step[0], first[1] : -2 : step[1]]),
            lambda: Do(lambda x: F.pad(x, (1, 2, 0, 3))),
            lambda: Do(lambda x: x.flip(self_dims)),
            lambda: Do(lambda x: x.flatten(2).relu().unflatten(2, x.shape[2:])),
            lambda: Do(lambda x: x.narrow(3, 1, x.shape[3] - 2)),
            lambda: Do(lambda x: x.unsqueeze(1).squeeze(1)),
            lambda: nn.Sequential(
                Do(lambda x: x.permute(0, 2, 3, 1)), nn.Linear(4, 4), Do(lambda x: x.permute(0, 3, 1, 2))
            ),
            lambda: Do(lambda x: torch.cat([part.relu() for part in x.chunk(2, 1)], 1)),
        ]
        self_dims = self.draw.choice(((2,), (3,), (2, 3)))
        return self.draw.choice(choices)()

    def branches(self) -> nn.Module:
        left, right = (nn.Sequential(*(self.layer(False) for _ in range(self.draw.randint(0, 2)))) for _ in range(2))
        return Joined(left, right, self.draw.random() < 0.5)

    def layer(self, may_branch: bool = True) -> nn.Module:
        kinds = [self.convolution] * 3 + [self.transposed, self.pooling, self.adaptive, self.interpolation]
        kinds += [self.rearrangement] * 2 + [self.branches] * (2 if may_branch else 0)
        return self.draw.choice(kinds)()

    def network(self) -> nn.Sequential:
        layers = [self.layer() for _ in range(self.draw.randint(2, 4))]
        if self.draw.random() < 0.1:
            layers.insert(1, Do(lambda x: x.transpose(2, 3)))
        model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.ReLU(), *layers).double().eval()
        for parameter in model.parameters():
            parameter.requires_grad_(False).abs_().add_(0.01)
        return model


SIZE = (3, 90, 101)


def extents(gradient: Tensor) -> list[tuple[int, int] | None]:
    """The first and the last row, and column, where a gradient is not zero."""
    seen = gradient.abs().sum((0, 1))
    seen = seen > 1e-9 * seen.max()
    return [(where.min().item(), where.max().item()) if len(where := seen.any(k).nonzero()) else None for k in (1, 0)]


def checked_positions(seed: int) -> int:
    """Compare what central outputs of a random network see; how many of them see no border."""
    model, count = Builder(seed, smooth=True).network(), 0
    images = torch.ones(1, *SIZE, dtype=torch.float64, requires_grad=True)
    output = model(images)
    grid = trace(Builder(seed, smooth=False).network().float(), SIZE)[-1].grid
    assert grid.shape[1:] == output.shape[1:] and not grid.lost
    reaches = [(dim.side, dim) for dim in grid.dims if dim is not None]
    for row, column in ((0, 0), (1, -1), (2, 3)):
        place = output.shape[2] // 2 + row, output.shape[3] // 2 + column
        if not all(0 <= k < size for k, size in zip(place, output.shape[2:], strict=True)):
            continue
        (gradient,) = torch.autograd.grad(output[0, :, place[0], place[1]].sum(), images, retain_graph=True)
        expected = {side: reach.at(k) for (side, reach), k in zip(reaches, place, strict=True)}
        if any(first > last for first, last in expected.values()):
            assert not gradient.any()
        elif all(first > 0 and last < SIZE[1 + side] - 1 for side, (first, last) in expected.items()):
            assert extents(gradient) == [expected[0], expected[1]], (seed, place)
            count += 1
    return count


@pytest.mark.parametrize("start", range(0, 340, 20))
def test_what_an_output_depends_on_is_where_its_gradient_is(start):
    found = [checked_positions(seed) for seed in range(start, start + 20)]
    assert sum(count > 0 for count in found) >= 18, "the image is too small for this test"


def last_field(model: nn.Module, size: tuple[int, int, int] = (3, 32, 32)):
    return receptive_field(model, size)["receptive_field"].iloc[-1]


def conv(kernel_size=3, **options) -> nn.Conv2d:
    return nn.Conv2d(3, 3, kernel_size, **options)


class Shortcut(nn.Module):
    """The shortcut of the CIFAR ResNets (He et al. 2016, section 4.2): every second position, more channels."""

    def __init__(self, stride: int):
        super().__init__()
        self.body = nn.Sequential(conv(stride=stride, padding=1), nn.ReLU(), conv(padding=1))
        self.stride = stride

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.body(x) + x[:, :, :: self.stride, :: self.stride])


def gate(x: Tensor) -> Tensor:
    return x * x.mean((2, 3), keepdim=True).sigmoid()


def rolled(x: Tensor) -> Tensor:
    return x.roll(1, 2)


def written(x: Tensor) -> Tensor:
    canvas = torch.zeros_like(x)
    canvas[:, :, 1:] = x[:, :, :-1]
    return canvas


def overwritten(x: Tensor) -> Tensor:
    y = x + 1
    y[:, :1] += F.max_pool2d(x, 9, 1, 4)[:, :1]
    return y


FIELDS = {
    "pairs of 3×1 and 1×3": (nn.Sequential(*[conv((3, 1)), conv((1, 3))] * 11), 23),
    "rows and columns apart": (nn.Sequential(conv((3, 5)), conv((1, 3), stride=(1, 2))), (3, 7)),
    "adaptive, one column": (nn.Sequential(conv(), nn.AdaptiveAvgPool2d((2, 1))), (17, 32)),
    "padding same": (nn.Sequential(conv(padding="same"), conv(5, padding="same", dilation=2)), 11),
    "strided slice": (nn.Sequential(Do(lambda x: x[:, :, ::2, ::2]), conv()), 5),
    "residual, of CIFAR": (nn.Sequential(*[Shortcut(stride) for stride in (1, 1, 2, 1, 2, 1)]), 51),
    "functions": (nn.Sequential(conv(), Do(lambda x: F.avg_pool2d(F.max_pool2d(x, 2), 2))), 6),
    "one module thrice": (nn.Sequential(*[conv(padding=1)] * 3), 7),
    "weight normalization": (nn.Sequential(weight_norm(conv()), weight_norm(conv(dilation=3))), 9),
    "gate over the whole image": (nn.Sequential(conv(), Do(gate), conv()), 32),
    "gate over a part of the image": (
        nn.Sequential(Do(lambda x: x * x[:, :, :30].mean(2).mean(2)[:, :, None, None]), conv()),
        "'mean' cannot be followed",
    ),
    "gate over one pixel": (
        nn.Sequential(Do(lambda x: x * x[:, :, :1, :1].flatten(1)[:, :, None, None]), conv()),
        "'view' cannot be followed",
    ),
    "layer norm over channels": (
        nn.Sequential(conv(), Do(lambda x: F.layer_norm(x.movedim(1, 3), (3,)).movedim(3, 1)), conv()),
        5,
    ),
    "holes": (nn.Sequential(nn.ConvTranspose2d(3, 3, 1, stride=2), conv(1)), 1),
    "after a vector": (
        nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, 48), nn.ReLU(), nn.Unflatten(1, (3, 4, 4)), conv()),
        "'convolution' cannot be followed",
    ),
    "circular padding": (nn.Sequential(conv(padding=1, padding_mode="circular"), conv()), "cannot be followed"),
    "roll": (nn.Sequential(Do(rolled), conv()), r"of 1 \(Conv2d\) is not known: 'roll' cannot be followed"),
    "written in place": (nn.Sequential(Do(written), conv()), "'copy' cannot be followed"),
    "overwritten in place": (nn.Sequential(Do(overwritten), conv()), "cannot be followed"),
}


@pytest.mark.parametrize(
    "name, layer, field",
    [("alexnet", "features.12", 195), ("vgg16", "features.30", 212), ("resnet18", "layer4.1.conv2", 435)],
)
def test_fields_of_well_known_networks(name, layer, field):
    """AlexNet and VGG-16: Araujo et al. 2019, table 1; ResNet-18: the formula of section 2 along its longest branch."""
    table = receptive_field(getattr(torchvision.models, name)(weights=None), (3, 64, 64)).set_index("layer")
    assert table.loc[layer, "receptive_field"] == field


@pytest.mark.parametrize("case", FIELDS)
def test_fields_by_hand(case):
    model, expected = FIELDS[case]
    if isinstance(expected, str):
        with pytest.raises(ValueError, match=expected):
            last_field(model)
    else:
        assert last_field(model) == expected


def test_a_slice_counts_from_the_end():
    grid = trace(nn.Sequential(conv(), Do(lambda x: x[:, :, -1:, -2:])), (3, 8, 8))[-1].grid
    rows, columns = (dim for dim in grid.dims if dim)
    assert rows.at(0) == columns.at(1) == (5, 7) and columns.at(0) == (4, 6)


def test_rows_alone():
    grid = trace(nn.Sequential(Do(lambda x: x.mean(3)), nn.Conv1d(3, 3, 3)), (3, 8, 8))[-1].grid
    assert grid.field == (3, 8) and not grid.lost
