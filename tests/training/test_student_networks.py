"""Networks and batches as beginners write them: they train as in plain PyTorch, or one sentence says what to change."""

import copy
from functools import partial

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load, save
from torch import nn
from torchvision.models import MobileNetV2, ResNet
from torchvision.models.resnet import BasicBlock

from course_utils.analysis.predictions import predict
from course_utils.data import ImageSet
from course_utils.data.loader import channel_statistics
from course_utils.networks import S8Net31k
from course_utils.training import Recipe, evaluate, fit, minutes_to_train
from course_utils.training import loop as training
from course_utils.training.optimizer import prepare

RECIPE = Recipe(
    epochs=1, lr=0.01, momentum=0.0, nesterov=False, weight_decay=0.0, schedule="constant", precision="fp32"
)


def flat(x):
    return x.view(x.size(0), -1)


class ViewFlatten(nn.Module):
    def __init__(self, flatten=lambda x: x.view(-1, 6 * 14 * 14)):
        super().__init__()
        self.conv, self.pool, self.fc, self.flatten = nn.Conv2d(3, 6, 5), nn.MaxPool2d(2), nn.Linear(1176, 10), flatten

    def forward(self, x):
        return self.fc(self.flatten(self.pool(F.relu(self.conv(x)))))


class Hidden(nn.Module):
    def forward(self, x):
        return getattr(x, "view")(len(x), -1)  # noqa: B009


class Functional(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1, self.conv2, self.fc = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 3), nn.Linear(4, 10)

    def forward(self, x):
        x = F.max_pool2d(F.relu(self.conv2(F.relu(self.conv1(x)))), 2)
        return self.fc(F.adaptive_avg_pool2d(x, 1).reshape(len(x), -1))


class LeNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(3, 6, 5), nn.Conv2d(6, 16, 5)
        self.fc1, self.fc2, self.fc3 = nn.Linear(400, 30), nn.Linear(30, 20), nn.Linear(20, 10)

    def forward(self, x):
        x = F.avg_pool2d(torch.tanh(self.conv1(x)), 2)
        x = torch.flatten(F.avg_pool2d(torch.tanh(self.conv2(x)), 2), 1)
        return self.fc3(torch.tanh(self.fc2(torch.tanh(self.fc1(x)))))


class ConvNeXtBlock(nn.Module):
    def __init__(self, dim=8):
        super().__init__()
        self.stem, self.depthwise = nn.Conv2d(3, dim, 4, stride=4), nn.Conv2d(dim, dim, 7, padding=3, groups=dim)
        self.norm, self.up, self.down = nn.LayerNorm(dim), nn.Linear(dim, 4 * dim), nn.Linear(4 * dim, dim)
        self.head = nn.Linear(dim, 10)

    def forward(self, x):
        x = self.stem(x)
        inner = self.norm(self.depthwise(x).permute(0, 2, 3, 1))
        x = x + self.down(F.gelu(self.up(inner))).permute(0, 3, 1, 2)
        return self.head(x.mean((2, 3)))


class RowLSTM(nn.Module):
    def __init__(self):
        super().__init__()
        self.lstm, self.head = nn.LSTM(96, 12, batch_first=True), nn.Linear(12, 10)

    def forward(self, x):
        rows = x.permute(0, 2, 1, 3).flatten(2)
        return self.head(self.lstm(rows)[0][:, -1])


def batchnorm_head():
    head = [nn.Flatten(), nn.Linear(4 * 64, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, 10)]
    return nn.Sequential(nn.Conv2d(3, 4, 4, stride=4), nn.ReLU(), *head)


def resnet18():
    model = ResNet(BasicBlock, [2, 2, 2, 2], num_classes=10)
    model.conv1, model.maxpool = nn.Conv2d(3, 64, 3, padding=1, bias=False), nn.Identity()
    for module in model.modules():  # an eighth of the width
        for name in ("in_channels", "out_channels", "num_features", "in_features"):
            if hasattr(module, name) and getattr(module, name) not in (3, 10):
                setattr(module, name, getattr(module, name) // 8)
        if isinstance(module, nn.BatchNorm2d):
            module.__init__(module.num_features)
        if isinstance(module, nn.Conv2d):
            weight = module.weight.new_empty(module.out_channels, module.in_channels, *module.kernel_size)
            module.weight = nn.Parameter(weight.normal_(std=0.1))
    model.fc = nn.Linear(64, 10)
    return model


def vgg():
    layers, channels = [], 3
    for width in (4, 8, 8):
        layers += [nn.Conv2d(channels, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU(True), nn.MaxPool2d(2)]
        channels = width
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(128, 32), nn.ReLU(True), nn.Dropout(0.0), nn.Linear(32, 10))


def mobilenet():
    model = MobileNetV2(num_classes=10, width_mult=0.1, inverted_residual_setting=[[1, 8, 1, 1], [6, 8, 2, 2]])
    model.classifier[0].p = 0.0
    return model


NETWORKS = {
    "view": ViewFlatten,
    "view in a helper": partial(ViewFlatten, flat),
    "functional": Functional,
    "BatchNorm1d head": batchnorm_head,
    "LeNet": LeNet,
    "ResNet-18": resnet18,
    "VGG": vgg,
    "MobileNetV2": mobilenet,
    "ConvNeXt block": ConvNeXtBlock,
    "LSTM over rows": RowLSTM,
    "double precision": lambda: Functional().double(),
    "bfloat16": lambda: Functional().bfloat16(),
    "vectors": lambda: nn.Sequential(nn.Linear(3072, 8), nn.ReLU(), nn.Linear(8, 10)),
    "course": S8Net31k,
}


@pytest.fixture
def batches(generator):
    images = torch.randn(16, 3, 32, 32, generator=generator)
    return list(zip(images.split(8), torch.randint(0, 10, (16,), generator=generator).split(8), strict=True))


def by_hand(model, batches):
    optimizer = torch.optim.SGD(model.train().parameters(), lr=0.01)
    for images, labels in batches:
        optimizer.zero_grad()
        F.cross_entropy(model(images), labels).backward()
        optimizer.step()
    logits = torch.cat([model.eval()(images) for images, _ in batches])
    return F.cross_entropy(logits, torch.cat([labels for _, labels in batches])).item(), logits.softmax(1)


@pytest.mark.parametrize("name", NETWORKS)
def test_network_trains_as_in_plain_pytorch(batches, name):
    torch.manual_seed(0)
    model = NETWORKS[name]()
    plain, dtype = copy.deepcopy(model), next(model.parameters()).dtype
    if name == "vectors":
        batches = [(images.flatten(1), labels) for images, labels in batches]
    (metrics,) = fit(model, batches, batches, RECIPE, verbose=False).metrics
    expected, probabilities = by_hand(plain, [(images.to(dtype), labels) for images, labels in batches])
    tolerance = 0.05 if name == "bfloat16" else 1e-3
    assert metrics.val_loss == pytest.approx(expected, rel=tolerance)
    assert evaluate(model, batches, precision="fp32")[0] == metrics.val_loss
    found = predict(model, batches, precision="fp32").probabilities
    torch.testing.assert_close(found, probabilities.float(), rtol=0, atol=tolerance)
    torch.testing.assert_close(model.state_dict(), plain.state_dict(), rtol=tolerance, atol=tolerance)
    assert {tensor.dtype for tensor in model.parameters()} == {dtype}


@pytest.mark.parametrize("name", ["view", "course", "double precision"])
def test_weights_can_be_saved_after_training(batches, name):
    model = NETWORKS[name]()
    fit(model, batches, None, RECIPE, verbose=False)
    torch.testing.assert_close(load(save(model.state_dict())), dict(model.state_dict()), rtol=0, atol=0)


class Fixed(nn.Module):
    """Gives whatever it is told to."""

    def __init__(self, output):
        super().__init__()
        self.weight, self.output = nn.Parameter(torch.zeros(10)), output

    def forward(self, x):
        return self.output(x.mean((1, 2, 3))[:, None] + self.weight)


OUTPUTS = {
    "a tuple of 2, expected a tensor of 8×classes logits": lambda y: (y, y),
    "a dict of 1, expected": lambda y: {"logits": y},
    "a NoneType, expected": lambda y: None,
    r"shape \(8, 10, 1, 1\), expected 8×classes": lambda y: y[:, :, None, None],
    r"shape \(80,\), expected 8×classes": lambda y: y.flatten(),
}
CALLS = {
    "fit": lambda model, batches: fit(model, batches, None, RECIPE, verbose=False),
    "evaluate": evaluate,
    "predict": predict,
}
calls = pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)


@calls
@pytest.mark.parametrize("message", OUTPUTS)
def test_output_that_is_no_logits(batches, call, message):
    with pytest.raises(ValueError, match=f"the network's output (is|has) {message}"):
        call(Fixed(OUTPUTS[message]), batches)


def labelled(change):
    return lambda batches: [(images, change(labels)) for images, labels in batches]


def pictured(change):
    return lambda batches: [(change(images), labels) for images, labels in batches]


def an_image_set(batches):
    images = torch.zeros(8, 3, 32, 32, dtype=torch.uint8)
    return ImageSet(images, torch.arange(8), tuple("abcdefghij"), "black", *channel_statistics(images))


BATCHES = {
    r"labels are torch.float32 of shape \(8, 10\), expected int64 of shape \(8,\)": labelled(
        lambda labels: F.one_hot(labels, 10).float()
    ),
    r"labels are torch.float32 of shape \(8,\), expected int64": labelled(lambda labels: labels.float()),
    r"labels are torch.int64 of shape \(8, 10\)": labelled(lambda labels: F.one_hot(labels, 10)),
    r"labels are torch.int64 of shape \(7,\)": labelled(lambda labels: labels[1:]),
    "labels reach from 10 to 10, expected 0 to 9": labelled(lambda labels: torch.full_like(labels, 10)),
    "labels reach from -100 to": labelled(lambda labels: labels - 100),
    r"images are torch.uint8 of shape \(8, 3, 32, 32\)": pictured(lambda images: images.byte()),
    r"images are torch.float32 of shape \(0, 3, 32, 32\), expected at least one": pictured(lambda images: images[:0]),
    "a batch of this list is a dict, expected pairs": lambda batches: [dict(images=x, labels=y) for x, y in batches],
    r"is a tuple \(Tensor, Tensor, Tensor\), expected pairs": lambda batches: [(x, y, y) for x, y in batches],
    r"is a tuple \(ndarray, Tensor\), expected pairs": pictured(lambda images: images.numpy()),
    "ImageSet holds no batches, expected pairs": an_image_set,
}


@calls
@pytest.mark.parametrize("message", BATCHES)
def test_batches_that_are_no_images_and_labels(batches, call, message):
    with pytest.raises(ValueError, match=message):
        call(Functional(), BATCHES[message](batches))


@pytest.mark.parametrize(
    "change",
    [lambda y: y.int(), lambda y: y.to(torch.uint8), lambda y: y[:, None]],
    ids=["int32", "uint8", "a column"],
)
def test_labels_that_can_only_mean_one_thing(batches, change):
    torch.manual_seed(0)
    model, other = Functional(), labelled(change)(batches)
    twin = copy.deepcopy(model)
    assert fit(model, other, other, RECIPE, verbose=False) == fit(twin, batches, batches, RECIPE, verbose=False)
    assert evaluate(model, other) == evaluate(model, batches)
    found, expected = predict(model, other), predict(model, batches)
    assert torch.equal(found.labels, expected.labels) and found.accuracy == expected.accuracy


def test_images_in_another_precision_are_converted(batches):
    model = Functional()
    assert evaluate(model, pictured(lambda x: x.double())(batches)) == evaluate(model, batches)


def test_advice_where_pytorch_does_not_help(batches):
    single = [*batches, (batches[0][0][:1], batches[0][1][:1])]
    with pytest.raises(ValueError, match=r"Expected more than 1 value per channel.*last batch.*drop_last=True"):
        fit(batchnorm_head(), single, None, RECIPE, verbose=False)
    assert len(predict(batchnorm_head(), single).labels) == 17  # in evaluation mode one image is enough
    hidden = nn.Sequential(nn.Conv2d(3, 2, 3), Hidden(), nn.Linear(1800, 10))
    with pytest.raises(ValueError, match=r"view size is not compatible.*x\.flatten\(1\)"):
        evaluate(hidden, batches)


def test_networks_that_cannot_be_trained(batches):
    with pytest.raises(ValueError, match="the weights are float16, expected float32"):
        fit(Functional().half(), batches, None, RECIPE)
    with pytest.raises(ValueError, match="this Functional has no weights to train"):
        fit(Functional().requires_grad_(False), batches, None, RECIPE)
    for call in CALLS.values():
        with pytest.raises(TypeError, match=r"model is the class S8Net31k, expected a network, like S8Net46k\(\)"):
            call(S8Net31k, batches)


def test_precision_is_that_of_the_weights():
    for dtype, name in ((torch.float64, "fp64"), (torch.bfloat16, "bf16"), (torch.float32, "fp32")):
        precision = prepare(Functional().to(dtype), RECIPE, 1).placement.precision
        assert (precision.name, precision.weights) == (name, dtype)
    placement, images = prepare(Functional().double(), RECIPE, 1).placement, torch.rand(2, 3, 32, 32)
    assert placement.logits(Functional().double(), placement.images(images)).dtype is torch.float64


@pytest.mark.parametrize(
    "images, batch_size, message",
    [
        (0, 8, "images is 0, expected a number of at least 1"),
        (-5, 8, "images is -5"),
        (10, 0, "batch_size is 0, expected a whole number of at least 1"),
        (10, -4, "batch_size is -4"),
        (10, 2.5, "batch_size is 2.5, expected a whole number"),
        (10, "8", "batch_size is '8', expected a whole number"),
    ],
)
def test_minutes_for_nothing(images, batch_size, message):
    with pytest.raises(ValueError, match=message):
        minutes_to_train(Functional(), images, batch_size)


def test_minutes_for_other_classes_and_numpy_numbers(monkeypatch):
    ticks = iter(range(9))
    monkeypatch.setattr(training.time, "perf_counter", lambda: next(ticks))
    assert minutes_to_train(S8Net31k(num_classes=100), np.int64(640), np.int64(2)) == pytest.approx(640 / 8 / 60)
