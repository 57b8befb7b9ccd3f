"""The rules of the assignments, on networks that keep them and on networks that break one."""

from dataclasses import fields

import pytest
import torch
import torch.nn.functional as F
import torchvision
from torch import nn

from course_utils.exercises.rules import S8_RULES, S9_RULES, Rules, audit
from course_utils.networks import NETWORKS, make_network
from course_utils.networks.layers import conv_block, depthwise_separable

RULES = {name: S8_RULES if name.startswith("S8") else S9_RULES for name in NETWORKS}
PARAMETERS, ACCURACY = "fewer than 200,000 parameters", "at least 85 % of the test images"


def broken(table) -> list[str]:
    return table.loc[table["passes"] == "NO", "rule"].tolist()


class S9Example(nn.Module):
    """Keeps every rule of S9, with functions and methods in place of modules where that is possible."""

    def __init__(self):
        super().__init__()
        self.one, self.two = nn.Conv2d(3, 16, 3, padding=1), nn.Conv2d(16, 16, 3, stride=2, padding=1)
        self.kernel = nn.Parameter(torch.randn(16, 16, 3, 3))
        self.separable = depthwise_separable(16, 32)
        self.more = nn.ModuleList([nn.Conv2d(32, 32, 3, stride=2, padding=1), nn.Conv2d(32, 32, 3, padding=1)])
        self.last = nn.Conv2d(32, 10, 3, padding=1)

    def start(self, x):
        return self.two(F.relu(self.one(x)))

    def dilate(self, x):
        return F.conv2d(x, self.kernel, padding=4, dilation=4).relu_()

    def separate(self, x):
        return self.separable(x)

    def pool(self, x):
        return x.mean((2, 3))

    def forward(self, images):
        x = self.separate(self.dilate(self.start(images)))
        for layer in self.more:
            x = x + F.relu(layer(x)) if layer.stride == (1, 1) else layer(x)
        return self.pool(self.last(self.more[1](self.more[1](x))))  # one module thrice: its parameters count once


class MaxPooled(S9Example):
    def start(self, x):
        return super().start(F.max_pool2d(x, 3, stride=1, padding=1))


class MaxByHand(S9Example):
    def start(self, x):
        return super().start(x) * x.amax((2, 3)).mean()


class NeverDilated(S9Example):
    def dilate(self, x):
        return F.conv2d(x, self.kernel, padding=1)


class DilatedInVain(S9Example):
    def dilate(self, x):
        super().dilate(x)
        return F.conv2d(x, self.kernel, padding=1)


class OnlyDeclared(NeverDilated):
    def __init__(self):
        super().__init__()
        self.dilated = nn.Conv2d(16, 16, 3, dilation=2)


class WithoutPointwise(S9Example):
    def separate(self, x):
        return torch.cat([self.separable[0](x)] * 2, 1)


class DepthwiseThenFull(S9Example):
    def separate(self, x):
        return torch.cat([self.two(self.separable[0](x))] * 2, 1)


class DepthwiseOfOnePixel(S9Example):
    def __init__(self):
        super().__init__()
        self.separable = depthwise_separable(16, 32, kernel_size=1, padding=0)


class Pooled(S9Example):
    """2×2 means, which are no max-pooling, in place of the strides."""

    def __init__(self):
        super().__init__()
        self.two, self.more[0] = nn.Conv2d(16, 16, 3, padding=1), nn.Conv2d(32, 32, 3, padding=1)

    def separate(self, x):
        return F.avg_pool2d(super().separate(F.avg_pool2d(x, 2)), 2)


class StridedPixel(Pooled):
    def dilate(self, x):
        return super().dilate(F.conv2d(x, self.kernel[:, :, :1, :1], stride=2))


class PooledByMaximum(S9Example):
    def pool(self, x):
        return F.adaptive_max_pool2d(x, 1).flatten(1)


class Flattened(S9Example):
    def __init__(self):
        super().__init__()
        self.head = nn.Linear(640, 10)

    def pool(self, x):
        return self.head(x.flatten(1))


class TooLarge(S9Example):
    def __init__(self):
        super().__init__()
        self.never_used = nn.Parameter(torch.zeros(180_000))


class Near(S9Example):
    def dilate(self, x):
        return F.conv2d(x, self.kernel, padding=2, dilation=2)

    def pool(self, x):
        return x[:, :10].mean((2, 3))

    def forward(self, images):
        return self.pool(self.separate(self.dilate(self.start(images))))


class MeanInSteps(S9Example):
    def pool(self, x):
        return x.mean(3).mean(2)


class MeanOfFlat(S9Example):
    def pool(self, x):
        return x.flatten(2).mean(2)


class SumOverCount(S9Example):
    def pool(self, x):
        return x.sum((-1, -2)) / 64


class ByModule(S9Example):
    def pool(self, x):
        return nn.AvgPool2d(8)(x).reshape(len(x), -1)


MAX, DILATED, SEPARABLE, STRIDED, GLOBAL, FIELD = (
    "no max-pooling",
    "at least 1 dilated convolution",
    "at least 1 depthwise-separable convolution",
    "at least 1 strided 3×3 convolution",
    "global average pooling",
    "receptive field over 44",
)
BREAKS = {
    S9Example: [],
    MeanInSteps: [],
    MeanOfFlat: [],
    SumOverCount: [],
    ByModule: [],
    MaxPooled: [MAX],
    MaxByHand: [MAX],
    NeverDilated: [DILATED],
    DilatedInVain: [DILATED],
    OnlyDeclared: [DILATED],
    WithoutPointwise: [SEPARABLE],
    DepthwiseThenFull: [SEPARABLE],
    DepthwiseOfOnePixel: [SEPARABLE],
    Pooled: [STRIDED],
    StridedPixel: [STRIDED],
    PooledByMaximum: [MAX, GLOBAL],
    Flattened: [GLOBAL],
    TooLarge: [PARAMETERS],
    Near: [FIELD],
}


@pytest.mark.parametrize("network", BREAKS, ids=lambda network: network.__name__)
def test_each_rule_of_s9(network):
    assert broken(audit(network(), S9_RULES)) == BREAKS[network]


@pytest.mark.parametrize("norm", ["batch", "layer", "group", "none"])
@pytest.mark.parametrize("name", NETWORKS)
def test_course_networks_keep_the_rules(name, norm):
    table = audit(make_network(name, norm=norm), RULES[name], test_accuracy=0.85, epochs=20)
    assert set(table["passes"]) == {"yes"} and len(table) == 6 + 2 * name.startswith("S9")


SEEN = {
    "resnet18": ([PARAMETERS, MAX, SEPARABLE, DILATED], [11_689_512, 435, 1, 3, 0, 0, "average pooling"]),
    "mobilenet_v2": ([PARAMETERS, DILATED], [3_504_872, 491, 0, 5, 17, 0, "average pooling"]),
}


@pytest.mark.parametrize("name", SEEN)
def test_networks_never_seen_before(name):
    table = audit(getattr(torchvision.models, name)(), S9_RULES, input_size=(3, 224, 224))
    assert (broken(table), table["found"].tolist()[:-1]) == SEEN[name]
    assert broken(audit(getattr(torchvision.models, name)(), S8_RULES))[-1] == "no fully connected layer"


def transition(*between: nn.Module, pool: nn.Module, kernel_size: int = 1) -> nn.Sequential:
    return nn.Sequential(nn.LazyConv2d(8, kernel_size, padding=kernel_size // 2), *between, pool)


@pytest.mark.parametrize(
    "first, found",
    [
        (transition(pool=nn.AvgPool2d(2)), 2),
        (transition(nn.BatchNorm2d(8), nn.ReLU(), nn.Dropout(), pool=nn.MaxPool2d(2)), 2),
        (transition(pool=nn.MaxPool2d(3, 2, 1)), 2),
        (transition(pool=nn.MaxPool2d(2), kernel_size=3), 1),
        (transition(nn.Conv2d(8, 8, 3, padding=1), pool=nn.MaxPool2d(2)), 1),
        (transition(pool=nn.MaxPool2d(3, 1, 1)), 1),  # does not make the grid smaller
        (transition(pool=nn.Identity()), 1),
        (nn.MaxPool2d(2), 1),
        (nn.Sequential(transition(pool=nn.MaxPool2d(2)), transition(pool=nn.MaxPool2d(2))), 3),
    ],
)
def test_transitions(first, found):
    model = nn.Sequential(conv_block(3, 8), first, nn.LazyConv2d(8, 3), transition(pool=nn.MaxPool2d(2)))
    model.extend([nn.Conv2d(8, 10, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten()])  # a global mean is no transition
    model(torch.zeros(2, 3, 32, 32))
    table = audit(model, S8_RULES).set_index("rule")["found"]
    assert table["2 transitions (1×1, then pooling)"] == found
    assert ("2 transitions (1×1, then pooling)" in broken(audit(model, S8_RULES))) == (found != 2)


def test_receptive_field_is_where_the_gradient_is():
    model = S9Example().double().requires_grad_(False)
    grids = []
    handle = model.last.register_forward_hook(lambda module, inputs, output: grids.append(output))
    images = torch.randn(1, 3, 128, 128, dtype=torch.float64, requires_grad=True)
    model(images)
    handle.remove()
    (gradient,) = torch.autograd.grad(grids[0][0, :, 16, 16].sum(), images)
    reached = gradient.abs().sum((0, 1, 2)).nonzero()
    table = audit(S9Example(), S9_RULES).set_index("rule")["found"]
    assert table[FIELD] == reached.max() - reached.min() + 1


def test_what_was_measured():
    model = make_network("S9Net85k")
    rules = Rules(min_accuracy=0.85, max_epochs=50)
    assert audit(model, rules)["passes"].tolist() == ["not known", "not known"]
    assert audit(model, rules, test_accuracy=0.85, epochs=50)["passes"].tolist() == ["yes", "yes"]
    assert audit(model, rules, test_accuracy=0.8499, epochs=51)["passes"].tolist() == ["NO", "NO"]
    assert audit(model, Rules()).empty and {field.default for field in fields(Rules)} == {None, True, False}


def test_limits_of_the_assignments():
    rows = [
        audit(make_network(name), rules).iloc[0] for name, rules in (("S8Net46k", S8_RULES), ("S9Net85k", S9_RULES))
    ]
    assert [row["rule"] for row in rows] == ["fewer than 50,000 parameters", "fewer than 200,000 parameters"]


def test_accuracy_in_per_cent():
    assert audit(make_network("S9Net85k"), S9_RULES, test_accuracy=1)["found"].iloc[-1] == 100
    with pytest.raises(ValueError, match="test_accuracy is 85, expected a share from 0 to 1"):
        audit(make_network("S9Net85k"), S9_RULES, test_accuracy=85)


class Rolled(S9Example):
    def separate(self, x):
        return super().separate(x.roll(1, 3))


class Gated(S9Example):
    """Sees the whole image by a gate, and 79 pixels by its convolutions."""

    def separate(self, x):
        return super().separate(x * x.mean((2, 3), keepdim=True).sigmoid())


class InOneDirection(S9Example):
    def dilate(self, x):
        return F.conv2d(x, self.kernel[:, :, :1], padding=(0, 4), dilation=4)


def test_receptive_field_that_is_not_known():
    table = audit(Rolled(), S9_RULES).set_index("rule")
    assert table.loc[FIELD].tolist() == ["roll cannot be followed", "not known"]
    assert broken(audit(Rolled(), S9_RULES)) == []


def test_the_smaller_side_of_the_receptive_field_counts():
    found = {
        kind: audit(kind(), S9_RULES).set_index("rule").loc[FIELD, "found"] for kind in (S9Example, InOneDirection)
    }
    assert found[InOneDirection] == found[S9Example] - 2 * 4 * 2
    assert audit(Gated(), S9_RULES).set_index("rule").loc[FIELD, "found"] == found[S9Example]


@pytest.mark.filterwarnings("ignore:.*torch.jit:FutureWarning")
@pytest.mark.parametrize(
    "compiled", [lambda model: torch.jit.trace(model, torch.zeros(2, 3, 32, 32)), torch.jit.script]
)
def test_networks_of_torchscript_are_refused(compiled):
    with pytest.raises(TypeError, match=r"compiled by torch\.jit, expected the nn.Module that it was made from"):
        audit(nn.Sequential(compiled(small())), S8_RULES)


def small() -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(3, 10, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten()).eval()


def test_audit_leaves_the_network_as_it_was():
    model = make_network("S8Net46k").train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    audit(model, S8_RULES)
    torch.testing.assert_close(dict(model.state_dict()), before, rtol=0, atol=0)
    assert model.training and all(p.grad is None and p.requires_grad for p in model.parameters())


@pytest.mark.parametrize("output", [lambda x: (x, x), lambda x: torch.zeros(2, 10)], ids=["tuple", "constant"])
def test_output_that_is_not_computed_from_the_images(output):
    class Odd(nn.Module):
        def forward(self, images):
            return output(images)

    with pytest.raises(
        ValueError, match=r"the network returned (tuple|Tensor), expected logits computed from the images"
    ):
        audit(Odd(), S8_RULES)
