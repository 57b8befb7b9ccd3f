"""A stand-in for a graphics card: what was left on the CPU, or read without need, fails on any machine."""

import sys
from contextlib import nullcontext
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

from course_utils import device as device_module
from course_utils.analysis.predictions import predict
from course_utils.data import BatchLoader
from course_utils.data import augment as transforms
from course_utils.training import Recipe, fit
from course_utils.training import loop as training

CARD = torch.device("meta")  # the one device besides the CPU that every build of PyTorch knows
CROSSING = ("_to_copy", "copy_")


class OnCard(Tensor):
    """Says that it is on the card, and keeps its values on the CPU."""

    @staticmethod
    def __new__(cls, values: Tensor):
        options = dict(strides=values.stride(), dtype=values.dtype, device=CARD)
        made = Tensor._make_wrapper_subclass(cls, values.shape, **options)
        made.values = values
        return made

    __torch_function__ = torch._C._disabled_torch_function_impl

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        return dispatched(func, args, kwargs or {})


def dispatched(func, args, kwargs):
    """Compute `func` on the CPU; tensors of both devices may meet only to be copied, and numbers always."""
    name, leaves = func.name().removeprefix("aten::").partition(".")[0], tree_leaves((args, kwargs))
    ours = [leaf for leaf in leaves if isinstance(leaf, OnCard)]
    theirs = [leaf for leaf in leaves if isinstance(leaf, Tensor) and not isinstance(leaf, OnCard) and leaf.ndim]
    if ours and theirs and name not in CROSSING:
        raise RuntimeError(f"{name}: tensors on the card and on the CPU")
    target = kwargs.get("device")
    on_card = bool(ours) if target is None else torch.device(target) == CARD
    if target is not None:
        kwargs = kwargs | {"device": torch.device("cpu")}
    for leaf in ours:
        if leaf.values.stride() != leaf.stride():  # after `parameter.data = ...`, which moves what PyTorch knows alone
            leaf.values = torch.empty_strided(leaf.shape, leaf.stride(), dtype=leaf.dtype).copy_(leaf.values)
    wrappers = {id(leaf.values): leaf for leaf in ours}
    args, kwargs = tree_map(lambda leaf: leaf.values if isinstance(leaf, OnCard) else leaf, (args, kwargs))
    found = func(*args, **kwargs)
    if name == "copy_":
        on_card = bool(wrappers) and id(found) in wrappers

    def wrapped(leaf):
        if not isinstance(leaf, Tensor) or not on_card:
            return leaf
        return wrappers.get(id(leaf)) if id(leaf) in wrappers else OnCard(leaf)

    return tree_map(wrapped, found)


class Card(TorchDispatchMode):
    """Makes what is asked for on the card, also where no tensor is given."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        return dispatched(func, args, kwargs or {})


@pytest.fixture
def card(monkeypatch):
    """The device; the tensors of this test may be on it."""
    state = SimpleNamespace(get_rng_state=lambda device: torch.get_rng_state(), set_rng_state=lambda *_: None)
    monkeypatch.setattr(torch, "get_device_module", lambda device: state)
    monkeypatch.setattr(device_module.Precision, "autocast", lambda *_: nullcontext())
    load, save = torch.load, torch.save

    def saved(content, file):
        save(tree_map(lambda leaf: leaf.values if isinstance(leaf, OnCard) else leaf, content), file)

    monkeypatch.setattr(torch, "save", saved)
    monkeypatch.setattr(torch, "load", lambda file, map_location, **options: load(file, **options))
    optimizers = sys.modules["torch.optim.optimizer"]  # which torch.optim does not show
    monkeypatch.setattr(optimizers, "_get_fused_kernels_supported_devices", lambda: ["cpu", "meta"])
    # In inference mode, PyTorch computes before the stand-in is asked.
    monkeypatch.setattr(training, "evaluate", torch.no_grad()(training.evaluate.__wrapped__))
    with Card():
        yield CARD


def net() -> nn.Sequential:
    torch.manual_seed(0)
    layers = [nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), nn.ReLU(), nn.AdaptiveAvgPool2d(2)]
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(24, 10))


def all_of_them(images, generator):
    for name in ("crop", "hflip", "vflip", "cutout", "grayscale", "affine"):
        images = getattr(transforms, f"random_{name}")(images, generator)
    return images


def trained(shapes, device, path=None, optimizer="sgd"):
    model, (train, test) = net().to(device), (part[:24].to(device) for part in shapes)
    generator = torch.Generator().manual_seed(0)
    batches = BatchLoader(train, 8, shuffle=True, augment=all_of_them, generator=generator)
    judges = BatchLoader(test, 8)
    recipe = Recipe(epochs=2, precision="fp32", optimizer=optimizer)
    history = fit(model, batches, judges, recipe, verbose=False, checkpoint=path)
    return history, training.evaluate(model, judges), predict(model, judges)


def test_stand_in_notices(card):
    ours = torch.zeros(3, device=card)
    assert ours.device == card and ours.cpu().device.type == "cpu"
    with pytest.raises(RuntimeError, match="on the card and on the CPU"):
        ours + torch.zeros(3)


@pytest.mark.filterwarnings("ignore:.*copying from a non-meta parameter")  # as nothing is copied to a real one
@pytest.mark.parametrize("optimizer", ["sgd", "muon"])
def test_everything_is_on_the_card(shapes, tmp_path, card, optimizer):
    path = tmp_path / "run.checkpoint"
    history, figures, predictions = trained(shapes, card, path, optimizer)
    expected = trained(shapes, "cpu", None, optimizer)
    assert history.metrics[-1].train_loss == pytest.approx(expected[0].metrics[-1].train_loss, rel=1e-4)
    assert figures == pytest.approx(expected[1], rel=1e-4)
    assert predictions.labels.device.type == predictions.probabilities.device.type == "cpu"
    torch.testing.assert_close(predictions.probabilities, expected[2].probabilities, rtol=1e-3, atol=1e-4)
    assert trained(shapes, card, path, optimizer)[0] == history  # from the checkpoint


def test_batches_from_the_cpu(shapes, card):
    model, batches = net().to(card), list(BatchLoader(shapes[0][:24], 8))
    assert len(fit(model, batches, batches, Recipe(epochs=1, precision="fp32"), verbose=False)) == 1
    assert len(predict(model, batches).labels) == 24
