"""Muon against a step written out with a singular value decomposition."""

import math

import pytest
import torch
from torch import nn
from torch.nn.utils.parametrizations import weight_norm

from course_utils.data.loader import BatchLoader
from course_utils.networks import make_network
from course_utils.training import Recipe, fit
from course_utils.training.optimizer import Muon, orthogonalized, prepare


@pytest.mark.parametrize("shape", [(8, 27), (27, 8), (1, 9), (3, 5, 7), (6, 6)])
def test_orthogonalized_keeps_singular_vectors_and_evens_out_values(shape, generator):
    matrices = torch.randn(shape, generator=generator)
    u, _, v = torch.linalg.svd(matrices, full_matrices=False)
    found = orthogonalized(matrices)
    rotated = u.mT @ found @ v.mT  # diagonal where the singular vectors are the same
    values = rotated.diagonal(dim1=-2, dim2=-1)
    torch.testing.assert_close(rotated, torch.diag_embed(values), rtol=0, atol=1e-3)
    assert values.min() > 0.6 and values.max() < 1.3
    torch.testing.assert_close(orthogonalized(1000 * matrices), found, rtol=1e-3, atol=1e-4)  # only directions count
    assert torch.equal(orthogonalized(torch.zeros(shape)), torch.zeros(shape))


def step_by_hand(weight, groups, gradients, lr, weight_decay, momentum):
    """The steps of a kernel, one matrix per group after the other."""
    buffer = torch.zeros_like(weight)
    for gradient in gradients:
        buffer = momentum * buffer + (1 - momentum) * gradient
        update = (1 - momentum) * gradient + momentum * buffer
        parts = [part.reshape(len(part), -1) for part in update.chunk(groups)]
        scales = [math.sqrt(max(1, part.shape[0] / part.shape[1])) for part in parts]
        step = torch.cat([scale * orthogonalized(part) for scale, part in zip(scales, parts, strict=True)])
        weight = weight - lr * (step.view_as(weight) + weight_decay * weight)
    return weight


@pytest.mark.parametrize("groups, channels", [(1, (3, 16)), (1, (64, 8)), (4, (4, 8)), (8, (8, 8))])
def test_muon_steps_are_those_written_out(groups, channels, generator):
    layer = nn.Conv2d(*channels, 3, groups=groups).to(memory_format=torch.channels_last)
    before = layer.weight.detach().clone()
    gradients = [torch.randn(layer.weight.shape, generator=generator) for _ in range(3)]
    options = dict(muon_lr=0.1, muon_weight_decay=0.5, momentum=0.8, lr=0.3, nesterov=True, weight_decay=0.0)
    optimizer = Muon(layer, **options)
    for gradient in gradients:
        layer.weight.grad = gradient.clone().to(memory_format=torch.channels_last)
        optimizer.step()
    expected = step_by_hand(before, groups, gradients, 0.1, 0.5, 0.8)
    torch.testing.assert_close(layer.weight.detach(), expected, rtol=1e-4, atol=1e-5)


def test_kernels_of_other_shapes_do_not_change_a_step(generator):
    """Kernels are orthogonalized together, padded; each must move as it would alone."""
    shapes = [dict(in_channels=3, out_channels=16), dict(in_channels=64, out_channels=8)]
    shapes += [dict(in_channels=2, out_channels=64)]
    shapes += [dict(in_channels=8, out_channels=8, groups=8), dict(in_channels=4, out_channels=8, groups=4)]
    model = nn.ModuleList([nn.Conv2d(**shape, kernel_size=3) for shape in shapes])
    before = [layer.weight.detach().clone() for layer in model]
    gradients = [torch.randn(weight.shape, generator=generator) for weight in before]
    optimizer = Muon(model, muon_lr=0.1, muon_weight_decay=0.5, momentum=0.8, lr=0.3)
    for layer, gradient in zip(model, gradients, strict=True):
        layer.weight.grad = gradient.clone()
    model[0].weight.grad = None  # a frozen one among them
    optimizer.step()
    assert torch.equal(model[0].weight, before[0])
    for layer, weight, gradient in list(zip(model, before, gradients, strict=True))[1:]:
        expected = step_by_hand(weight, layer.groups, [gradient], 0.1, 0.5, 0.8)
        torch.testing.assert_close(layer.weight.detach(), expected, rtol=1e-4, atol=1e-5)


def test_a_kernel_that_is_computed_from_others_moves_as_they_do():
    model = nn.Sequential(weight_norm(nn.Conv2d(3, 4, 3)), nn.Conv2d(4, 2, 1))
    optimizer = Muon(model, muon_lr=0.1, muon_weight_decay=0.0, momentum=0.0, lr=0.5)
    before = [parameter.detach().clone() for parameter in model[0].parameters()]
    model(torch.ones(2, 3, 8, 8)).square().sum().backward()
    optimizer.step()
    for parameter, value in zip(model[0].parameters(), before, strict=True):
        torch.testing.assert_close(parameter.detach(), value - 0.5 * parameter.grad)


def test_other_parameters_take_the_steps_of_sgd(generator):
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(16, 5))
    twin = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(16, 5))
    twin.load_state_dict(model.state_dict())
    options = dict(lr=0.1, momentum=0.9, nesterov=True, weight_decay=0.01)
    optimizers = (
        Muon(model, muon_lr=0.05, muon_weight_decay=0.1, **options),
        torch.optim.SGD(twin.parameters(), **options),
    )
    for _ in range(3):
        for mine, other in zip(model.parameters(), twin.parameters(), strict=True):
            mine.grad = torch.randn(mine.shape, generator=generator)
            other.grad = mine.grad.clone()
        for optimizer in optimizers:
            optimizer.step()
    equal = {name for name, value in model.state_dict().items() if torch.equal(value, twin.state_dict()[name])}
    assert set(model.state_dict()) - equal == {"0.weight"}


def test_both_learning_rates_follow_the_schedule():
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(4, 2))
    state = prepare(model, Recipe(epochs=2, optimizer="muon", lr=0.1, muon_lr=0.04, warmup=0.5), 10)
    rates = []
    for _ in range(20):
        rates.append([group["lr"] for group in state.optimizer.param_groups])
        state.optimizer.step()
        state.scheduler.step()
    kernels, others = zip(*rates, strict=True)
    assert max(kernels) == pytest.approx(0.04) and max(others) == pytest.approx(0.1)
    assert kernels == pytest.approx([0.4 * rate for rate in others])


def small_net() -> nn.Sequential:
    """Many a processor computes in float16 so slowly that a network of the course takes half a minute."""
    layers = [nn.Conv2d(3, 8, 3, stride=2), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 8, 3, stride=4, groups=4)]
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(128, 10))


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_muon_learns_and_resumes_bit_for_bit(shapes, tmp_path, precision, generator):
    def train(checkpoint=None, stop=None):
        torch.manual_seed(0)
        model = make_network("S9Net85k") if precision == "fp32" else small_net()
        draw = torch.Generator().manual_seed(1)
        train = BatchLoader(shapes[0][:40], 8, shuffle=True, generator=draw)
        recipe = Recipe(epochs=3, optimizer="muon", lr=0.1, warmup=0.1, precision=precision)
        calls = iter(range(100))
        model.register_forward_pre_hook(lambda *_: interrupt() if next(calls) == stop else None)
        return fit(model, train, None, recipe, verbose=False, checkpoint=checkpoint), model.state_dict()

    def interrupt():
        raise KeyboardInterrupt

    history, weights = train()
    assert history.metrics[-1].train_loss < history.metrics[0].train_loss
    file = tmp_path / "run.checkpoint"
    assert len(train(file, stop=7)[0]) == 1
    again, resumed = train(file)
    assert again == history
    torch.testing.assert_close(resumed, weights, rtol=0, atol=0)
