"""Receptive fields against gradients, costs against arithmetic."""

import copy
import csv
from contextlib import nullcontext
from functools import partial
from itertools import accumulate
from pathlib import Path

import pandas as pd
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from course_utils.analysis.networks import Budget, budget, input_gradient, receptive_field
from course_utils.analysis.predictions import predict
from course_utils.networks import NETWORKS, S8Net46k, make_network


def small_net(training: bool = True) -> nn.Sequential:
    """Convolution, batch norm with statistics of its own, dropout, classifier: for 3×8×8 images."""
    torch.manual_seed(0)
    layers = [nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout(0.5), nn.Flatten(), nn.Linear(144, 10)]
    model = nn.Sequential(*layers)
    model(torch.randn(8, 3, 8, 8) * 3 + 1)
    return model.train(training)


FIELDS = [  # what the last layer before the global average sees
    ("S8Net46k", "features.4.2", 44),
    ("S8Net38k", "features.4.2.0", 44),
    ("S8Net31k", "features.4.2.0", 44),
    ("S9Net180k", "features.3.2", 103),
    ("S9Net85k", "classifier.0", 79),
]


@pytest.mark.parametrize("name, layer, field", FIELDS)
def test_receptive_field_of_the_course_networks(name, layer, field):
    table = receptive_field(make_network(name)).set_index("layer")
    assert table.loc[layer, "receptive_field"] == field


def test_receptive_field_rows():
    table = receptive_field(make_network("S9Net180k")).set_index("layer")
    columns = ["type", "kernel", "stride", "padding", "dilation", "size_in", "size_out", "channels"]
    assert list(table.columns) == [*columns, "jump_in", "field_in", "jump", "receptive_field"]
    assert table.loc["features.0.0.0"].tolist() == ["Conv2d", 3, 1, 1, 1, 32, 32, 32, 1, 1, 1, 3]
    assert table.loc["features.1.2"].tolist() == ["Conv2d", 3, 2, 1, 2, 16, 7, 32, 2, 15, 4, 23]
    assert table.loc["features.2.1.0"].tolist() == ["Conv2d depthwise", 3, 1, 1, 1, 7, 7, 32, 4, 31, 4, 39]
    assert table.loc["classifier.0"].tolist() == ["AdaptiveAvgPool2d", 3, 3, 0, 1, 3, 1, 64, 8, 103, 24, 119]


def test_receptive_field_of_rare_layers():
    pool, grouped = nn.MaxPool2d(3, stride=2, dilation=3), nn.Conv2d(4, 6, 5, groups=2)
    table = receptive_field(nn.Sequential(nn.Conv2d(3, 4, 1), pool, grouped, nn.AdaptiveMaxPool2d(1)))
    assert list(table["type"]) == ["Conv2d", "MaxPool2d", "Conv2d grouped", "AdaptiveMaxPool2d"]
    assert list(table["receptive_field"]) == [1, 7, 7 + 4 * 2, 7 + 4 * 2 + 8 * 2]  # 32×32 → 13×13 → 9×9


CASES = {
    **{name: (partial(make_network, name), 192) for name in NETWORKS},
    "adaptive, apart": (lambda: nn.Sequential(nn.Conv2d(3, 4, 3, stride=2, padding=1), nn.AdaptiveAvgPool2d(8)), 64),
}


def offsets(table: pd.DataFrame) -> list[int]:
    """The first input pixel that output 0 of every layer sees: each padding lies one jump of its input further out."""
    jumps = [1, *table["jump"]][:-1]
    return [-reach for reach in accumulate(p * jump for p, jump in zip(table["padding"], jumps, strict=True))]


def without_cancellation(model: nn.Module) -> nn.Module:
    """A copy in which every input pixel that an output sees moves it: positive weights, averages for maxima."""
    model = copy.deepcopy(model).eval()
    for name, module in list(model.named_modules()):
        if isinstance(module, nn.MaxPool2d):
            model.set_submodule(name, nn.AvgPool2d(module.kernel_size, module.stride, module.padding))
    for parameter in model.parameters():
        parameter.requires_grad_(False).abs_().add_(0.01)
    return model


@pytest.mark.parametrize("case", CASES)
def test_receptive_field_is_where_the_gradient_is(case):
    make, size = CASES[case]
    model = make()
    table, positive, outputs = receptive_field(model, (3, size, size)), without_cancellation(model), {}
    for layer in table["layer"]:
        save = partial(lambda layer, module, inputs, output: outputs.setdefault(layer, output), layer)
        positive.get_submodule(layer).register_forward_hook(save)
    images = torch.ones(1, 3, size, size, requires_grad=True)
    positive(images)

    def extent(layer: str, place: int) -> list[tuple[int, int]]:
        """The first and the last row, and column, of the input that the output at (place, place) depends on."""
        output = outputs[layer][0, :, place, place].sum()
        (gradient,) = torch.autograd.grad(output, images, retain_graph=True)
        seen = gradient[0].sum(0) > 0
        return [(found.min().item(), found.max().item()) for found in (seen.any(1).nonzero(), seen.any(0).nonzero())]

    checked = 0
    for row, offset in zip(table.itertuples(), offsets(table), strict=True):
        if row.size_out == 1:  # global
            break
        for place in (row.size_out // 2, row.size_out // 2 - 1):
            first = offset + place * row.jump
            last = first + row.receptive_field - 1
            assert first >= 0 and last < size, "the input is too small for this test"
            assert extent(row.layer, place) == [(first, last)] * 2
        checked += 1
    assert checked >= len(table) - 2


def test_shared_layer_counts_at_every_call():
    layer = nn.Conv2d(3, 3, 3)
    table = receptive_field(nn.Sequential(layer, nn.ReLU(), layer))
    assert list(table["receptive_field"]) == [3, 5]
    assert list(table["layer"]) == ["0", "0"]


USES = {
    "predict": lambda model, size: predict(model, [(torch.ones(2, *size), torch.tensor([0, 1]))]),
    "receptive_field": receptive_field,
    "input_gradient": lambda model, size: input_gradient(model, "0", torch.Generator(), size, n=2),
    "budget": budget,
}


@pytest.mark.parametrize("use", USES)
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("size", [(3, 8, 8), (3, 9, 9)], ids=["fits", "does not fit"])
def test_model_is_left_as_it_was(use, training, size):
    model = small_net(training)
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(RuntimeError) if size == (3, 9, 9) else nullcontext():
        USES[use](model, size)
    assert all(module.training is training and not module._forward_hooks for module in model.modules())
    assert all(parameter.grad is None for parameter in model.parameters())
    torch.testing.assert_close(model.state_dict(), before, rtol=0, atol=0)


def test_input_gradient_is_the_mean_of_absolute_gradients(generator):
    model = small_net()
    found = input_gradient(model, "2", generator, (3, 8, 8), n=5)
    images = torch.randn(5, 3, 8, 8, generator=torch.Generator().manual_seed(0)).requires_grad_()
    expected = torch.zeros(8, 8)
    for image in images:
        (gradient,) = torch.autograd.grad(model.eval()[:3](image[None])[0, :, 3, 3].sum(), image)
        expected += gradient.abs().sum(0) / 5
    torch.testing.assert_close(found, expected)
    assert found.count_nonzero() == 9 and found[3:6, 3:6].count_nonzero() == 9


@pytest.mark.parametrize("name, layer", [("S8Net38k", "features.2.2.0"), ("S9Net85k", "features.2.1.0")])
def test_input_gradient_stays_in_the_field(generator, name, layer):
    torch.manual_seed(0)
    model = make_network(name)
    table = receptive_field(model, (3, 64, 64))
    index = list(table["layer"]).index(layer)
    first = offsets(table)[index] + table["size_out"][index] // 2 * table["jump"][index]
    field = slice(first, first + table["receptive_field"][index])
    gradient = input_gradient(model, layer, generator, n=8)
    assert gradient.shape == (64, 64) and gradient[field, field].all()
    gradient[field, field] = 0
    assert not gradient.any()


def test_input_gradient_before_an_operation_in_place(generator):
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(inplace=True), nn.Conv2d(4, 2, 1))
    expected = input_gradient(nn.Sequential(model[0]), "0", torch.Generator().manual_seed(0), (3, 8, 8))
    torch.testing.assert_close(input_gradient(model, "0", generator, (3, 8, 8)), expected)


def test_input_gradient_of_a_layer_that_is_called_twice_is_that_of_the_last_call(generator):
    twice, relu = nn.Conv2d(3, 3, 3), nn.ReLU()
    found = input_gradient(nn.Sequential(twice, twice), "0", generator, (3, 9, 9))
    assert found.count_nonzero() == found[2:7, 2:7].count_nonzero() == 5 * 5
    with pytest.raises(ValueError, match=r"'0' has an output of shape \(32, 192\), expected one whose output is N×"):
        input_gradient(nn.Sequential(relu, nn.Flatten(), relu), "0", generator, (3, 8, 8))


def test_input_gradient_repeats_by_generator():
    generators = [torch.Generator().manual_seed(seed) for seed in (1, 1, 2)]
    first, again, other = (input_gradient(small_net(), "2", g, (3, 8, 8)) for g in generators)
    assert torch.equal(first, again) and not torch.equal(first, other)
    with pytest.raises(ValueError, match="unknown layer 'conv', expected one of 0, 1, 2, 3, 4, 5"):
        input_gradient(small_net(), "conv", generators[0])


def test_budget_by_hand():
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3, stride=2, padding=1),  # 8×8 → 4×4
        nn.Conv2d(8, 8, 3, padding=1, groups=8, bias=False),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(8 * 4 * 4, 10),
    )
    macs = 16 * 8 * 3 * 9 + 16 * 8 * 9 + 128 * 10
    parameters = (8 * 3 * 9 + 8) + 8 * 9 + (128 * 10 + 10)
    assert budget(model, (3, 8, 8)) == Budget(parameters, macs, activation_bytes=4 * (3 * 128 + 10))
    model[0].requires_grad_(False)
    assert budget(model, (3, 8, 8)) == Budget(parameters - 224, macs, activation_bytes=4 * (3 * 128 + 10))


class Written(nn.Module):
    """The network of `test_budget_of_functions`, with functions in place of modules."""

    def __init__(self, modules: nn.Sequential):
        super().__init__()
        self.convolution, self.linear = modules[0], modules[4]

    def forward(self, x):
        return self.linear(F.max_pool2d(F.relu(self.convolution(x)), 2).flatten(1))


def test_budget_of_functions():
    layers = [nn.Conv2d(3, 6, 5), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(6 * 14 * 14, 10)]
    model = nn.Sequential(*layers)
    values = 2 * 6 * 28 * 28 + 6 * 14 * 14 + 10
    assert budget(Written(model)) == budget(model) == Budget(12_226, 28 * 28 * 450 + 11_760, 4 * values)
    model[1] = nn.ReLU(inplace=True)
    assert budget(model).activation_bytes == 4 * (values - 6 * 28 * 28)


USES_OF_A_CLASS = [receptive_field, budget, lambda model: input_gradient(model, "features", torch.Generator())]


@pytest.mark.parametrize("use", USES_OF_A_CLASS)
def test_a_class_is_no_network(use):
    with pytest.raises(TypeError, match=r"model is the class S8Net46k, expected a network, like S8Net46k\(\)"):
        use(S8Net46k)


@pytest.mark.parametrize("layer, what", [("4", r"has an output of shape \(2, 10\)"), ("3.unused", "is not used")])
def test_layers_without_a_central_output(layer, what, generator):
    model = nn.Sequential(nn.Conv2d(3, 6, 5), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(6 * 14 * 14, 10))
    model[3].unused = nn.Conv2d(3, 3, 1)
    with pytest.raises(ValueError, match=f"the layer '{layer}' {what}"):
        input_gradient(model, layer, generator, (3, 32, 32), n=2)


@pytest.mark.parametrize("name", NETWORKS)
def test_macs_of_the_course_networks(name):
    """Every weight of a convolution is used once per output position; the tables know how many there are."""
    path = Path(__file__).parents[1] / "tables" / f"{name.lower().replace('net', '_')}.csv"
    rows = list(csv.DictReader(path.read_text(encoding="utf-8").splitlines()))
    positions = [int(row["height"]) * int(row["width"]) for row in rows if row["layer"] == "Conv2d"]
    model = make_network(name)
    weights = [module.weight.numel() for module in model.modules() if isinstance(module, nn.Conv2d)]
    assert budget(model).macs == sum(w * p for w, p in zip(weights, positions, strict=True))
    assert budget(model).parameters == sum(int(row["parameters"]) for row in rows)
