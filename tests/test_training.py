"""The training loop against loops in plain PyTorch, and what it says when something is wrong."""

import builtins
import copy
import io
import math
import sys
from functools import partial
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim.lr_scheduler import OneCycleLR
from torch.optim.optimizer import register_optimizer_step_pre_hook
from torch.utils.data import DataLoader, TensorDataset

from course_utils import training
from course_utils.augment import random_crop
from course_utils.data import BatchLoader, ImageSet, channel_statistics
from course_utils.history import Recipe
from course_utils.runtime import pick_precision, seed_everything
from course_utils.training import evaluate, fit, somebody_watches, train_epoch

# Exact comparisons need one number format on every machine.
constant = partial(Recipe, epochs=2, schedule="constant", precision="fp32")
evaluate = partial(evaluate, precision="fp32")


def small_net(dropout: float = 0.0, num_classes: int = 10) -> nn.Sequential:
    torch.manual_seed(0)
    layers = [nn.Conv2d(3, 6, 3), nn.ReLU(), nn.BatchNorm2d(6), nn.Dropout(dropout)]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(24, num_classes))


def linear_net() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(3 * 8 * 8, 10))


@pytest.fixture
def data(generator) -> tuple[Tensor, Tensor]:
    return torch.randn(19, 3, 8, 8, generator=generator), torch.randint(0, 10, (19,), generator=generator)


@pytest.fixture
def batches(data) -> list[tuple[Tensor, Tensor]]:
    """Three batches, the last one smaller: 8, 8 and 3 images."""
    return list(zip(*(tensor.split(8) for tensor in data), strict=True))


@pytest.fixture
def image_set(generator) -> ImageSet:
    images = torch.randint(0, 256, (19, 3, 8, 8), dtype=torch.uint8, generator=generator)
    return ImageSet(images, torch.arange(19) % 10, tuple("abcdefghij"), "noise", *channel_statistics(images))


@pytest.fixture
def steps():
    """The options of the optimizer at each of its steps, as they are taken."""
    seen = []
    handle = register_optimizer_step_pre_hook(lambda optimizer, *_: seen.append(dict(optimizer.param_groups[0])))
    yield seen
    handle.remove()


def train_by_hand(model: nn.Module, batches, recipe: Recipe) -> list[tuple[float, float]]:
    """Stochastic gradient descent written out, at a constant rate: mean loss and accuracy per epoch, over images."""
    velocities = [torch.zeros_like(p) for p in model.parameters()]
    results = []
    for _ in range(recipe.epochs):
        losses, hits = [], []
        for images, labels in batches:
            logits = model.train()(images)
            each = F.cross_entropy(logits, labels, reduction="none", label_smoothing=recipe.label_smoothing)
            gradients = torch.autograd.grad(each.mean(), list(model.parameters()))
            with torch.no_grad():
                for p, velocity, gradient in zip(model.parameters(), velocities, gradients, strict=True):
                    gradient = gradient + recipe.weight_decay * p
                    velocity.mul_(recipe.momentum).add_(gradient)
                    p -= recipe.lr * (gradient + recipe.momentum * velocity if recipe.nesterov else velocity)
            losses += each.tolist()
            hits += (logits.argmax(1) == labels).tolist()
        results.append((math.fsum(losses) / len(losses), sum(hits) / len(hits)))
    return results


OPTIONS = [
    dict(),
    dict(momentum=0.0),
    dict(nesterov=False),
    dict(momentum=0.5),
    dict(weight_decay=0.2),
    dict(lr=0.2),
    dict(label_smoothing=0.3),
]


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_fit_is_gradient_descent(batches, options):
    recipe, model = constant(**options), small_net()
    expected_model = copy.deepcopy(model)
    history = fit(model, batches, batches, recipe)
    expected = train_by_hand(expected_model, batches, recipe)
    assert [(m.train_loss, m.train_accuracy) for m in history.epochs] == [pytest.approx(e, rel=1e-6) for e in expected]
    torch.testing.assert_close(model.state_dict(), expected_model.state_dict(), rtol=0, atol=1e-6)


def one_epoch(model: nn.Module, batches, **options) -> tuple[float, float]:
    recipe = constant(**options)
    optimizer = torch.optim.SGD(model.parameters(), lr=recipe.lr)
    scheduler = torch.optim.lr_scheduler.ConstantLR(optimizer, factor=1.0)
    scaler = torch.amp.GradScaler("cpu", enabled=False)
    return train_epoch(model, batches, optimizer, scheduler, recipe, pick_precision("fp32"), scaler)


@pytest.mark.parametrize("run", [partial(one_epoch, lr=1e-12), evaluate])
def test_mean_is_over_images_not_batches(data, batches, run):
    model, (images, labels) = linear_net(), data
    logits = model(images)
    loss, hits = F.cross_entropy(logits, labels).item(), (logits.argmax(1) == labels).sum().item()
    assert hits > 0
    assert run(model, batches) == (pytest.approx(loss, rel=1e-6), hits / 19)


def test_evaluate_in_evaluation_mode(data, batches):
    model, (images, labels) = small_net(dropout=0.5), data
    before = copy.deepcopy(model.state_dict())
    expected = F.cross_entropy(copy.deepcopy(model).eval()(images), labels).item()
    assert evaluate(model, batches)[0] == pytest.approx(expected, rel=1e-5)
    torch.testing.assert_close(model.state_dict(), before, rtol=0, atol=0)


@pytest.mark.parametrize("training_mode", [True, False])
@pytest.mark.parametrize("num_classes", [10, 4], ids=["passes", "fails"])
def test_evaluate_restores_the_mode(batches, training_mode, num_classes):
    model = small_net().train(training_mode)
    try:
        evaluate(model, batches, num_classes=num_classes)
    except ValueError:
        assert num_classes == 4
    assert all(module.training is training_mode for module in model.modules())


def test_train_epoch_in_training_mode(batches):
    losses = []
    for dropout in (0.0, 0.9):
        model = small_net(dropout).eval()
        losses.append(one_epoch(model, batches)[0])
        assert model[2].num_batches_tracked == 3
    assert abs(losses[0] - losses[1]) > 0.01


def one_cycle(lr: float, steps: int, warmup: float) -> list[float]:
    scheduler = OneCycleLR(torch.optim.SGD([torch.zeros(1)], lr=1.0), lr, total_steps=steps, pct_start=warmup)
    rates = []
    for _ in range(steps):
        rates.append(scheduler.get_last_lr()[0])
        scheduler.optimizer.step()
        scheduler.step()
    return rates


RATES = {  # three steps per epoch
    "one-cycle": (dict(epochs=4, warmup=0.25), partial(one_cycle, 0.1, 12, 0.25)),
    "one-cycle, late": (dict(epochs=4, warmup=0.5), partial(one_cycle, 0.1, 12, 0.5)),
    "step": (dict(epochs=5, step_size=2, gamma=0.5), lambda: [0.1] * 6 + [0.05] * 6 + [0.025] * 3),
    "constant": (dict(epochs=3), lambda: [0.1] * 9),
}


@pytest.mark.parametrize("case", RATES)
def test_learning_rate_of_every_step(batches, steps, case):
    options, expected = RATES[case]
    recipe = Recipe(lr=0.1, schedule=case.split(",")[0], **options)
    history = fit(small_net(), batches, None, recipe)
    rates = [step["lr"] for step in steps]
    assert rates == pytest.approx(expected(), rel=1e-9)
    assert [m.lr for m in history.epochs] == rates[::3]
    if recipe.schedule == "one-cycle":
        assert rates.index(max(rates)) == recipe.warmup * 12 - 1
        assert max(rates) == pytest.approx(0.1) and rates[-1] < 1e-5


@pytest.mark.parametrize("schedule", ["one-cycle", "step", "constant"])
@pytest.mark.parametrize("momentum", [0.0, 0.6])
def test_optimizer_keeps_to_the_recipe(batches, steps, schedule, momentum):
    recipe = Recipe(epochs=2, schedule=schedule, momentum=momentum, weight_decay=0.01)
    fit(small_net(), batches, None, recipe)
    assert [step["momentum"] for step in steps] == [momentum] * 6
    assert {(step["weight_decay"], step["nesterov"]) for step in steps} == {(0.01, momentum > 0)}


def seeded_run(image_set: ImageSet, seed: int):
    generator = seed_everything(seed)
    model = small_net(dropout=0.2)
    torch.manual_seed(seed)
    train = BatchLoader(image_set, 8, shuffle=True, augment=random_crop, generator=generator)
    history = fit(model, train, BatchLoader(image_set, 8), Recipe(epochs=2))
    return history, torch.cat([p.flatten() for p in model.parameters()])


def test_same_seed_same_run(image_set):
    (first, weights), (again, weights_again), (other, _) = (seeded_run(image_set, seed) for seed in (0, 0, 1))
    assert first == again and torch.equal(weights, weights_again)
    assert first != other


@pytest.mark.parametrize("kind", ["DataLoader", "list"])
def test_any_loader_will_do(image_set, kind):
    own = BatchLoader(image_set, 8)
    pixels = image_set.images / 255 - image_set.mean[:, None, None]
    dataset = TensorDataset(pixels / image_set.std[:, None, None], image_set.labels)
    loader = {"DataLoader": DataLoader(dataset, batch_size=8), "list": list(own)}[kind]
    models = [small_net(), small_net()]
    histories = [fit(model, it, it, constant()) for model, it in zip(models, (own, loader), strict=True)]
    results = [[vars(m) | {"seconds": 0} for m in history.epochs] for history in histories]
    assert results[0] == [pytest.approx(metrics, rel=1e-5) for metrics in results[1]]
    torch.testing.assert_close(models[0].state_dict(), models[1].state_dict(), rtol=0, atol=1e-5)
    if kind == "list":  # the very same numbers
        assert histories[0] == histories[1]


def test_history_without_validation(batches):
    history = fit(small_net(), batches, None, constant())
    assert [(m.epoch, m.val_loss, m.val_accuracy) for m in history.epochs] == [(1, None, None), (2, None, None)]
    assert history.recipe == constant() and history.environment["precision"] == "fp32"


def test_validation_figures_are_those_of_evaluate(data, batches):
    model = small_net()
    (metrics,) = fit(model, batches, batches[:2], constant(epochs=1)).epochs
    assert (metrics.val_loss, metrics.val_accuracy) == evaluate(model, batches[:2])


@pytest.mark.parametrize("watched", [True, False])
@pytest.mark.parametrize("verbose", [True, False])
def test_what_is_printed(batches, capsys, monkeypatch, watched, verbose):
    monkeypatch.setattr(training, "somebody_watches", lambda: watched)
    history = fit(small_net(), batches, batches, constant(), verbose=verbose)
    out, err = capsys.readouterr()
    assert out.splitlines() == [str(metrics) for metrics in history.epochs if verbose]
    assert ("epoch 1:" in err and "/3 [" in err) if watched and verbose else err == ""


WATCHED = {
    "notebook of a person": (SimpleNamespace(kernel=SimpleNamespace(_allow_stdin=True)), False, True),
    "notebook run headless": (SimpleNamespace(kernel=SimpleNamespace(_allow_stdin=False)), True, False),
    "another kernel": (SimpleNamespace(kernel=SimpleNamespace()), True, False),
    "IPython in a terminal": (SimpleNamespace(), True, True),
    "IPython in a pipe": (SimpleNamespace(), False, False),
    "Python in a terminal": (None, True, True),
    "Python in a pipe": (None, False, False),
}


@pytest.mark.parametrize("where", WATCHED)
def test_somebody_watches(monkeypatch, where):
    shell, tty, expected = WATCHED[where]
    if shell is not None:
        monkeypatch.setattr(builtins, "get_ipython", lambda: shell, raising=False)
    stderr = io.StringIO()
    stderr.isatty = lambda: tty
    monkeypatch.setattr(sys, "stderr", stderr)
    assert somebody_watches() is expected


class Interrupted(list):
    """Batches that a person stops in the second pass."""

    passes = 0

    def __iter__(self):
        self.passes += 1
        yield self[0]
        if self.passes == 2:
            raise KeyboardInterrupt
        yield from self[1:]


def test_interrupted_run_returns_what_is_finished(batches, capsys):
    history = fit(small_net(), Interrupted(batches), batches, constant(epochs=5))
    assert history.epochs == fit(small_net(), batches, batches, constant(epochs=1)).epochs
    assert "interrupted in epoch 2; the history holds the 1 " in capsys.readouterr().out


BAD_NETS = {
    "12": (partial(small_net, num_classes=12), r"\(8, 12\), expected 8×10"),
    "8": (partial(small_net, num_classes=8), r"\(8, 8\), expected 8×10"),
    "no pooling": (partial(nn.Conv2d, 3, 10, 3), r"\(8, 10, 6, 6\), expected 8×10"),
    "one image": (lambda: nn.Sequential(nn.Flatten(0), nn.Linear(1536, 10)), r"\(10,\), expected 8×10"),
}


@pytest.mark.parametrize("name", BAD_NETS)
def test_output_of_the_wrong_shape(batches, name):
    make, message = BAD_NETS[name]
    for run in (partial(fit, train=batches, val=None, recipe=constant()), partial(evaluate, batches=batches)):
        with pytest.raises(ValueError, match=message):
            run(make())


def test_nan_in_the_images(batches):
    batches[1][0][0, 0, 0, 0] = math.nan
    message = r"step 2 of 3 .*lr=0.05 in fp32: try .*learning rate .*precision='fp32'.*NaN"
    with pytest.raises(FloatingPointError, match=message):
        fit(linear_net(), batches, None, constant())


def test_diverging_run(batches):
    with pytest.raises(FloatingPointError, match=r"step \d+ of 30 .*lr=1000000.0 "):
        fit(small_net(), batches * 10, None, constant(lr=1e6))


@pytest.mark.parametrize("train", [(batch for batch in ()), [], iter([])], ids=["generator", "empty", "iterator"])
def test_train_without_length(train):
    with pytest.raises(ValueError, match=rf"train is {type(train).__name__} without batches"):
        fit(small_net(), train, None, constant())


def test_evaluate_on_nothing():
    with pytest.raises(ValueError, match="no batches"):
        evaluate(small_net(), [])


@pytest.mark.parametrize("name, dtype", [("fp32", torch.float32), ("bf16", torch.bfloat16), ("fp16", torch.float16)])
def test_precision(batches, monkeypatch, name, dtype):
    scalers, losses, outputs, loss = [], [], set(), F.cross_entropy

    class Scaler(torch.amp.GradScaler):
        def __init__(self, *args, enabled=True):
            super().__init__(*args, enabled=enabled)
            scalers.append(self)

        def scale(self, value):
            losses.append(value)
            return super().scale(value)

    def cross_entropy(logits, *args, **options):
        outputs.add(("logits", logits.dtype))
        return loss(logits, *args, **options)

    monkeypatch.setattr(torch.amp, "GradScaler", Scaler)
    monkeypatch.setattr(F, "cross_entropy", cross_entropy)
    expected_model, model = small_net(), small_net()
    (expected,) = fit(expected_model, batches, batches, constant(epochs=1)).epochs
    model[-1].register_forward_hook(lambda module, inputs, output: outputs.add(("layer", output.dtype)))
    history = fit(model, batches, batches, constant(epochs=1, precision=name))
    assert outputs == {("layer", dtype), ("logits", torch.float32)}
    assert [scaler.is_enabled() for scaler in scalers] == [False, name == "fp16"]
    assert len(losses) == 6
    (metrics,) = history.epochs
    assert (metrics.train_loss, metrics.val_loss) == pytest.approx((expected.train_loss, expected.val_loss), abs=0.02)
    assert evaluate(model, batches, precision=name)[1] == metrics.val_accuracy
    torch.testing.assert_close(model.state_dict(), expected_model.state_dict(), rtol=0, atol=0.02)


@pytest.mark.parametrize("schedule", ["one-cycle", "constant"])
def test_fp16_skips_a_step_whose_gradient_overflows(batches, schedule):
    model = linear_net()
    before = copy.deepcopy(model.state_dict())
    loud = [(images * 1000, labels) for images, labels in batches[:1]]  # × the first scale, 65,536: no fp16 number
    fit(model, loud, None, Recipe(epochs=1, precision="fp16", schedule=schedule))
    torch.testing.assert_close(model.state_dict(), before, rtol=0, atol=0)
