"""The variants change what they say, and nothing else."""

import torch
from torch import nn

from course_utils.analysis.networks import budget, receptive_field
from course_utils.networks import VARIANTS, S8Net46k, S9Net180k, make_network


def grids(model: nn.Module) -> list[int]:
    images, sizes = torch.randn(2, 3, 32, 32), []
    for block in model.eval().features:
        images = block(images)
        sizes.append(images.shape[-1])
    return sizes


def kinds(model: nn.Module) -> list[str]:
    return [type(module).__name__ for module in model.modules() if not list(module.children())]


def test_every_variant_answers_and_says_how_large_it_is():
    for name, network in VARIANTS.items():
        model = make_network(name, num_classes=7)
        assert type(model) is network and model(torch.randn(2, 3, 32, 32)).shape == (2, 7)
    skeleton = make_network("S8Skeleton")
    assert skeleton.features(torch.zeros(1, 3, 32, 32)).shape == (1, 128, 8, 8)
    assert budget(skeleton).parameters == 224_522
    assert f"{224_522:,} parameters" in VARIANTS["S8Skeleton"].__doc__


def test_he_initialization_keeps_the_signal_alive(generator):
    images = torch.randn(64, 3, 32, 32, generator=generator)
    spreads = {}
    for model in (S8Net46k("none"), make_network("S8Net46kHe")):
        assert kinds(model) == kinds(S8Net46k("none"))
        spreads[type(model).__name__] = model.features(images).std(0).mean().item()
    assert spreads["S8Net46kHe"] > 0.05 > 0.01 > spreads["S8Net46k"]
    for module in make_network("S8Net46kHe").modules():
        if isinstance(module, nn.Conv2d):
            assert not module.bias.any()
            if module.weight.numel() > 4000:
                fan_in = module.weight[0].numel()
                assert 0.9 < module.weight.var() * fan_in / 2 < 1.1


def test_pooling_keeps_parameters_and_grids_and_costs_half_as_much_again():
    own, pooled = S9Net180k(), make_network("S9Net180kPooled")
    assert [p.shape for p in own.parameters()] == [p.shape for p in pooled.parameters()]
    assert grids(own) == grids(pooled) == [16, 7, 3, 3]
    assert 1.45 < budget(pooled).macs / budget(own).macs < 1.55
    assert sum(isinstance(module, nn.MaxPool2d) for module in pooled.modules()) == 3
    assert not any(getattr(module, "stride", (1, 1)) == (2, 2) for module in pooled.modules())


def test_activated_differs_by_a_relu_and_a_norm_after_each_stride():
    own, activated = kinds(S9Net180k()), kinds(make_network("S9Net180kActivated"))
    assert len(activated) == len(own) + 6 and activated.count("ReLU") == own.count("ReLU") + 3
    assert grids(make_network("S9Net180kActivated", norm="group")) == [16, 7, 3, 3]
    assert kinds(make_network("S9Net180kActivated", norm="group")).count("GroupNorm") == 11


def test_undilated_reads_each_position_and_sees_less():
    own, undilated = S9Net180k(), make_network("S9Net180kUndilated")
    assert kinds(own) == kinds(undilated) and grids(undilated) == [16, 8, 4, 4]
    assert all(module.dilation == (1, 1) for module in undilated.modules() if isinstance(module, nn.Conv2d))
    fields = [receptive_field(model)["receptive_field"].max() for model in (own, undilated)]
    assert fields[1] < fields[0]
