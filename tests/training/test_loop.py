"""The training loop against loops in plain PyTorch, and what it says when something is wrong."""

import copy
import math
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.optim.lr_scheduler import OneCycleLR
from torch.optim.optimizer import register_optimizer_step_pre_hook
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.data import DataLoader, TensorDataset
from torchvision.transforms import functional as TF

from course_utils.analysis.predictions import predict
from course_utils.data import BatchLoader, ImageSet
from course_utils.data.augment import (
    crop_at,
    hflip_at,
    random_affine,
    random_crop,
    random_cutout,
    random_grayscale,
    random_hflip,
    random_vflip,
)
from course_utils.data.loader import channel_statistics
from course_utils.device import seed_everything
from course_utils.networks import S8Net46k
from course_utils.training import Recipe, fit
from course_utils.training import loop as training
from course_utils.training.optimizer import prepare

# Exact comparisons need one number format on every machine.
constant = partial(Recipe, epochs=2, schedule="constant", precision="fp32")
evaluate = partial(training.evaluate, precision="fp32")
equal = partial(torch.testing.assert_close, rtol=0, atol=0)


def small_net(dropout: float = 0.0, num_classes: int = 10) -> nn.Sequential:
    torch.manual_seed(0)
    layers = [nn.Conv2d(3, 6, 3), nn.ReLU(), nn.BatchNorm2d(6), nn.Dropout(dropout)]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(24, num_classes))


def linear_net(flatten_from: int = 1, in_features: int = 3 * 8 * 8) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(flatten_from), nn.Linear(in_features, 10))


@pytest.fixture
def data(generator):
    return torch.randn(19, 3, 8, 8, generator=generator), torch.randint(0, 10, (19,), generator=generator)


@pytest.fixture
def batches(data):
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
    parameters, results = list(model.train().parameters()), []
    velocities = [torch.zeros_like(p) for p in parameters]
    for _ in range(recipe.epochs):
        losses, hits = [], []
        for images, labels in batches:
            logits = model(images)
            each = F.cross_entropy(logits, labels, reduction="none", label_smoothing=recipe.label_smoothing)
            gradients = torch.autograd.grad(each.mean(), parameters)
            with torch.no_grad():
                for p, velocity, gradient in zip(parameters, velocities, gradients, strict=True):
                    gradient = gradient + recipe.weight_decay * p
                    velocity.mul_(recipe.momentum).add_(gradient)
                    p -= recipe.lr * (gradient + recipe.momentum * velocity if recipe.nesterov else velocity)
            losses += each.tolist()
            hits += (logits.argmax(1) == labels).tolist()
        results.append((math.fsum(losses) / len(losses), sum(hits) / len(hits)))
    return results


OPTIONS = [
    {},
    *(dict([o]) for o in dict(momentum=0.5, nesterov=False, weight_decay=0.2, lr=0.2, label_smoothing=0.3).items()),
]


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_fit_is_gradient_descent(batches, options):
    recipe, model, expected_model = constant(**options), small_net(), small_net()
    history = fit(model, batches, batches[:2], recipe)
    expected = train_by_hand(expected_model, batches, recipe)
    assert [(m.train_loss, m.train_accuracy) for m in history.metrics] == [pytest.approx(e, rel=1e-6) for e in expected]
    assert (history.metrics[-1].val_loss, history.metrics[-1].val_accuracy) == evaluate(model, batches[:2])
    torch.testing.assert_close(model.state_dict(), expected_model.state_dict(), rtol=0, atol=1e-6)


@pytest.mark.parametrize("train", [True, False])
def test_mean_is_over_images_not_batches(data, batches, train):
    model = linear_net()
    logits, labels = model(data[0]), data[1]
    expected = pytest.approx(F.cross_entropy(logits, labels).item()), (logits.argmax(1) == labels).sum().item() / 19
    (metrics,) = fit(model, batches, batches, constant(epochs=1, lr=1e-12)).metrics
    assert ((metrics.train_loss, metrics.train_accuracy) if train else evaluate(model, batches)) == expected


@pytest.mark.parametrize(
    ("norm", "layout"),
    [(nn.BatchNorm2d(6), torch.channels_last), (nn.GroupNorm(2, 6), torch.contiguous_format)],
    ids=["batch norm", "group norm"],
)
@pytest.mark.parametrize(
    "run",
    [
        lambda model, batches: fit(model, batches, None, constant(), verbose=False),
        evaluate,
        partial(predict, precision="fp32"),
    ],
    ids=["fit", "evaluate", "predict"],
)
def test_images_come_in_the_layout_that_suits_the_network(batches, norm, layout, run):
    model, seen = small_net(), []
    model[2] = norm
    model.register_forward_pre_hook(lambda _, args: seen.append(args[0].is_contiguous(memory_format=layout)))
    run(model, batches)
    assert seen and all(seen)


@pytest.mark.parametrize("run", [evaluate, partial(predict, precision="fp32")], ids=["evaluate", "predict"])
def test_augmented_images_are_not_evaluated(image_set, generator, run):
    loader = BatchLoader(image_set, 8, augment=random_hflip, generator=generator)
    with pytest.raises(ValueError, match="augmented, expected the images as they are"):
        run(small_net(), loader)


def test_minutes_to_train_are_measured_and_change_nothing(monkeypatch):
    model, seen = small_net(num_classes=10), []
    before, stream = copy.deepcopy(model.state_dict()), torch.get_rng_state()
    monkeypatch.setattr(training.time, "perf_counter", lambda: seen.append(3.0) or sum(seen))  # 3 s an epoch
    assert training.minutes_to_train(model, 3200, batch_size=8) == 3 / 32 * 3200 / 60
    equal(model.state_dict(), before)
    assert torch.equal(torch.get_rng_state(), stream)


@pytest.mark.parametrize("mode", [True, False])
def test_evaluate_in_evaluation_mode(data, batches, mode):
    model = small_net(dropout=0.5).train(mode)
    before = copy.deepcopy(model.state_dict())
    expected = F.cross_entropy(copy.deepcopy(model).eval()(data[0]), data[1]).item()
    assert evaluate(model, batches)[0] == pytest.approx(expected, rel=1e-5)
    equal(model.state_dict(), before)
    with pytest.raises(ValueError):  # what is wrong does not change the mode either
        evaluate(model, Known(batches, 4))
    assert all(module.training is mode for module in model.modules())


def test_train_in_training_mode(batches):
    models = [small_net(dropout).eval() for dropout in (0.0, 0.9)]
    losses = [fit(model, batches, batches, constant()).metrics[1].train_loss for model in models]
    assert abs(losses[0] - losses[1]) > 0.01
    assert [model[2].num_batches_tracked.item() for model in models] == [6, 6]


RATES = [  # over 12 steps, 3 per epoch; for one-cycle, the step at the peak
    ("constant", {}, [0.1] * 12),
    ("step", dict(step_size=1, gamma=0.5), [0.1] * 3 + [0.05] * 3 + [0.025] * 3 + [0.0125] * 3),
    ("step", dict(step_size=3, gamma=0.1), [0.1] * 9 + [0.01] * 3),
    ("one-cycle", dict(warmup=0.25), 2),
    ("one-cycle", dict(warmup=0.5), 5),
]


@pytest.mark.parametrize("schedule, options, expected", RATES)
def test_learning_rate_of_every_step(batches, steps, schedule, options, expected):
    history = fit(small_net(), batches, None, Recipe(epochs=4, lr=0.1, schedule=schedule, **options))
    rates = [step["lr"] for step in steps]
    if schedule == "one-cycle":
        assert rates[expected] == max(rates) == pytest.approx(0.1) and rates[-1] < 1e-5
        optimizer = torch.optim.SGD([torch.zeros(1)], lr=1.0)
        oracle = OneCycleLR(optimizer, max_lr=0.1, total_steps=12, pct_start=options["warmup"])
        expected = []
        for _ in range(12):
            expected.append(oracle.get_last_lr()[0])
            optimizer.step()
            oracle.step()
    assert rates == pytest.approx(expected, rel=1e-9)
    assert [m.lr for m in history.metrics] == rates[::3]


@pytest.mark.parametrize("schedule", ["one-cycle", "step", "constant"])
@pytest.mark.parametrize("momentum", [0.0, 0.6])
def test_optimizer_keeps_to_the_recipe(batches, steps, schedule, momentum):
    fit(small_net(), batches, None, Recipe(epochs=1, schedule=schedule, momentum=momentum, weight_decay=0.01))
    options = [(step["momentum"], step["nesterov"], step["weight_decay"]) for step in steps]
    assert options == [(momentum, momentum > 0, 0.01)] * 3


def test_same_seed_same_run(image_set):
    def run(seed: int):
        generator = seed_everything(seed)
        model = nn.Sequential(nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), nn.Dropout(), nn.Flatten(), nn.Linear(216, 10))
        train = BatchLoader(image_set, 8, shuffle=True, augment=random_crop, generator=generator)
        return fit(model, train, BatchLoader(image_set, 8), Recipe(epochs=2)), model.state_dict()

    (first, weights), (again, weights_again), (other, _) = run(0), run(0), run(1)
    assert first == again != other
    equal(weights, weights_again)


class Sizes(nn.Sequential):
    """A small network that notes the images which it is trained and evaluated on."""

    def __init__(self):
        super().__init__(*small_net())
        self.seen = {True: [], False: []}

    def forward(self, images):
        self.seen[self.training].append(images)
        return super().forward(images)


def test_small_epochs_come_first_and_are_of_resized_images(data, batches):
    model = Sizes()
    fit(model, batches, batches, constant(epochs=3, small_epochs=2, small_size=6), verbose=False)
    assert [images.shape[-2:] for images in model.seen[True]] == [(6, 6)] * 6 + [(8, 8)] * 3
    assert all(images.shape[-2:] == (8, 8) for images in model.seen[False])
    expected = TF.resize(data[0], [6, 6], antialias=True)
    torch.testing.assert_close(torch.cat(model.seen[True][:3]), expected)


def test_size_that_is_too_small_for_the_network(batches):
    with pytest.raises(ValueError, match=r"the images are too small for this network, .*small_size of the recipe"):
        fit(small_net(), batches, None, constant(small_epochs=1, small_size=2), verbose=False)


@pytest.mark.parametrize("kind", ["DataLoader", "list"])
def test_any_loader_will_do(image_set, kind):
    own, models = BatchLoader(image_set, 8), [small_net(), small_net()]
    whole = TensorDataset(*next(iter(BatchLoader(image_set, 19))))
    other = DataLoader(whole, batch_size=8) if kind == "DataLoader" else list(own)
    assert fit(models[0], own, own, constant()) == fit(models[1], other, other, constant())
    equal(models[0].state_dict(), models[1].state_dict())


def test_history_without_validation(batches):
    history = fit(small_net(), batches, None, constant())
    assert [(m.epoch, m.val_loss, m.val_accuracy) for m in history.metrics] == [(1, None, None), (2, None, None)]
    assert history.recipe == constant() and history.environment["precision"] == "fp32"


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
    try:
        history = fit(small_net(), Interrupted(batches), batches, constant(epochs=5))
    except KeyboardInterrupt:
        pytest.fail("the interrupt came through")  # as it is, it would end the whole session
    assert history.metrics == fit(small_net(), batches, batches, constant(epochs=1)).metrics
    assert "interrupted in epoch 2; the history holds the 1 " in capsys.readouterr().out


class Known(list):
    """Batches that know how many classes there are, as a `BatchLoader` does."""

    def __init__(self, batches, num_classes=10):
        super().__init__(batches)
        self.num_classes = num_classes


JUDGES = evaluate, predict
BAD_NETS = {
    r"\(8, 12\), expected 8×10": partial(small_net, num_classes=12),
    r"\(8, 8\), expected 8×10": partial(small_net, num_classes=8),
    r"\(8, 10, 6, 6\), expected 8×10": partial(nn.Conv2d, 3, 10, 3),
    r"\(10,\), expected 8×10": partial(linear_net, 0, 8 * 192),
}


@pytest.mark.parametrize("message", BAD_NETS)
def test_output_of_the_wrong_shape(batches, message):
    known = Known(batches)
    for run in (partial(fit, train=known, val=None, recipe=constant()), *(partial(f, batches=known) for f in JUDGES)):
        with pytest.raises(ValueError, match=message):
            run(BAD_NETS[message]())


def test_output_of_any_width_where_the_classes_are_not_known(batches):
    assert len(fit(small_net(num_classes=12), batches, batches, constant())) == 2
    with pytest.raises(ValueError, match=r"\(8, 10, 6, 6\), expected 8×classes logits for 8 images"):
        evaluate(nn.Conv2d(3, 10, 3), batches)


@pytest.mark.fault(
    "learning rate 1e6, NaN in the input", "recipe, image", "the step, the rate and what to try are named"
)
@pytest.mark.parametrize("cause, where", [("NaN", "step 2 of 3 .*lr=0.05"), ("lr", r"step \d of 3 .*lr=1000000.0")])
def test_loss_that_is_not_finite(batches, cause, where):
    batches[1][0][0, 0, 0, 0] = math.nan if cause == "NaN" else 0
    advice = r"in fp32: try a tenth of the learning rate or precision='fp32'.*NaN"
    with pytest.raises(FloatingPointError, match=f"not finite at {where} {advice}"):
        fit(linear_net(), batches, None, constant(epochs=30, lr=1e6 if cause == "lr" else 0.05))


@pytest.mark.parametrize("train", [(batch for batch in ()), []], ids=["generator", "empty"])
def test_nothing_to_train_or_evaluate_on(train):
    with pytest.raises(ValueError, match=rf"train is {type(train).__name__} without batches"):
        fit(small_net(), train, None, constant())
    with pytest.raises(ValueError, match="no batches"):
        evaluate(small_net(), train)


@pytest.mark.parametrize("name, dtype", [("fp32", torch.float32), ("bf16", torch.bfloat16), ("fp16", torch.float16)])
def test_precision(batches, monkeypatch, name, dtype):
    scalers, scaled, dtypes, cross_entropy = [], [], set(), F.cross_entropy

    class Scaler(torch.amp.GradScaler):
        def __init__(self, *args, enabled=True):
            super().__init__(*args, enabled=enabled)
            scalers.append(enabled)

        def scale(self, loss):
            scaled.append(loss)
            return super().scale(loss)

    def spy(logits, *args, **options):
        dtypes.add(("logits", logits.dtype))
        return cross_entropy(logits, *args, **options)

    (exact,) = fit(small_net(), batches, batches, constant(epochs=1)).metrics
    monkeypatch.setattr(torch.amp, "GradScaler", Scaler)
    monkeypatch.setattr(F, "cross_entropy", spy)
    model = small_net()
    model[-1].register_forward_hook(lambda module, inputs, output: dtypes.add(("layer", output.dtype)))
    (metrics,) = fit(model, batches, batches, constant(epochs=1, precision=name)).metrics
    assert dtypes == {("layer", dtype), ("logits", torch.float32)}
    assert scalers == [name == "fp16"] and len(scaled) == 3
    assert (metrics.train_loss, metrics.val_loss) == pytest.approx((exact.train_loss, exact.val_loss), abs=0.02)
    assert metrics.val_accuracy == pytest.approx(exact.val_accuracy, abs=0.11)  # two of the 19 images


def test_fp16_leaves_out_a_step_whose_gradient_overflows(batches):
    model = linear_net()
    before = copy.deepcopy(model.state_dict())
    # Times the first scale of the loss, 65,536, the gradient of such images is no fp16 number; and no warning comes.
    fit(model, [(batches[0][0] * 1000, batches[0][1])], None, constant(precision="fp16", epochs=1))
    equal(model.state_dict(), before)


def test_fp16_after_a_first_step_that_was_left_out(batches):
    torch.use_deterministic_algorithms(True)  # memory that nobody has filled is NaN then
    try:
        model = linear_net()
        fit(model, [(batches[0][0] * 1000, batches[0][1]), batches[1]], None, constant(precision="fp16", epochs=1))
    finally:
        torch.use_deterministic_algorithms(False)
    expected = linear_net()
    fit(expected, batches[1:2], None, constant(precision="fp16", epochs=1))
    torch.testing.assert_close(model.state_dict(), expected.state_dict(), rtol=1e-3, atol=1e-5)


# A rounded last digit switches a few ReLUs of a million, each a thousandth of the gradient: sums over a million signs
# nearly cancel. PyTorch's batch norm of channels_last images on a CPU rounds its sums a hundred times more coarsely.
@pytest.mark.parametrize("norm, tolerance", [("none", 1e-2), ("group", 1e-2), ("layer", 1e-2), ("batch", 0.1)])
def test_fast_and_plain_path_give_the_same_gradients(shapes, norm, tolerance):
    part = shapes[0][:48]
    tops, lefts = torch.randint(0, 9, (2, 48), generator=torch.Generator().manual_seed(0))
    flips = torch.arange(48) % 2 == 0

    def augment(images, generator):
        return hflip_at(crop_at(F.pad(images, (4,) * 4), tops, lefts, 32), flips)

    torch.manual_seed(0)
    fast, plain = S8Net46k(norm=norm), S8Net46k(norm=norm)
    plain.load_state_dict(fast.state_dict())
    recipe = constant(lr=1e-9)
    loader = BatchLoader(part, 48, augment=augment, generator=torch.Generator())
    loss, _ = training.train_epoch(fast, loader, prepare(fast, recipe, 1))
    # The plain path: one image after the other with torchvision's functions, NCHW.
    normalize = partial(TF.normalize, mean=part.mean.tolist(), std=part.std.tolist())
    images = []
    for image, top, left, flip in zip(part.images, tops.tolist(), lefts.tolist(), flips, strict=True):
        image = TF.crop(TF.pad(image.contiguous(), 4), top, left, 32, 32)
        images.append(normalize((TF.hflip(image) if flip else image) / 255))
    expected = F.cross_entropy(plain(torch.stack(images)), part.labels)
    expected.backward()
    assert loss == pytest.approx(expected.item(), rel=1e-5)
    for (name, parameter), other in zip(fast.named_parameters(), plain.parameters(), strict=True):
        assert (parameter.grad - other.grad).norm() < tolerance * other.grad.norm(), name


class Waits(TorchDispatchMode):
    """Counts what would make a GPU wait for the host, or the host for the GPU."""

    OPS = ("_local_scalar_dense", "nonzero", "masked_select", "unique", "bincount", "lift_fresh")

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.name().removeprefix("aten::").split(".")[0]
        by_mask = name == "index" and any(i is not None and i.dtype is torch.bool for i in args[1])
        if name in self.OPS or by_mask:
            self.seen.append(name)
        return func(*args, **(kwargs or {}))

    def __enter__(self):
        self.seen = []
        return super().__enter__()


def test_no_step_waits_for_the_device(image_set, generator):
    def augment(images, generator):
        for transform in (random_crop, random_hflip, random_vflip, random_grayscale, random_affine):
            images = transform(images, generator)
        return random_cutout(images, generator, fill=255 * image_set.mean)

    def waits(size: int) -> list[str]:
        model, loader = small_net(), BatchLoader(image_set, size, shuffle=True, augment=augment, generator=generator)
        state = prepare(model, constant(), len(loader))
        with Waits() as found:
            training.train_epoch(model, loader, state)
        return found.seen

    assert waits(2) == waits(7) == ["_local_scalar_dense"] * 5  # the figures, when the epoch is over
    with Waits() as found:
        _ = image_set.images[image_set.labels == 3].sum().item(), torch.tensor([1.0])
    assert found.seen == ["index", "_local_scalar_dense", "lift_fresh"]  # it does notice


@pytest.mark.parametrize("epochs, warmup", [(1, 0.0), (1, 1 / 3), (2, 1 / 6), (1, 0.9)])
def test_one_cycle_of_a_few_steps(batches, epochs, warmup):
    recipe = constant(schedule="one-cycle", epochs=epochs, warmup=warmup)
    assert len(fit(small_net(), batches, None, recipe).metrics) == epochs


def test_training_of_a_single_step(batches):
    history = fit(small_net(), batches[:1], None, constant(schedule="one-cycle", epochs=1))
    assert history.metrics[0].lr == constant().lr


def test_evaluation_keeps_a_frozen_layer_frozen(batches):
    model = small_net().train()
    model[2].eval()  # a batch norm that is to keep its statistics
    evaluate(model, batches)
    assert [module.training for module in model] == [True, True, False, True, True, True, True]


def test_validation_loss_that_is_not_finite(batches):
    bad = [(torch.full_like(images, math.inf), labels) for images, labels in batches]
    with pytest.raises(FloatingPointError, match="validation loss is nan after epoch 1"):
        fit(linear_net(), batches, bad, constant())
