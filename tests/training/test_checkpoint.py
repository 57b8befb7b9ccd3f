"""Checkpoints: a run that was interrupted, killed or out of disk space ends as if nothing had happened, bit for bit."""

import errno
import hashlib
import io
import itertools
import math
import os
import pickle
import random
import signal
import subprocess
import sys
import time
from dataclasses import fields, replace
from functools import partial

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, RandomSampler, TensorDataset

from course_utils.data import BatchLoader, ImageSet
from course_utils.data.augment import random_crop
from course_utils.data.loader import channel_statistics
from course_utils.data.shapes import SHAPE_CLASSES, make_shapes
from course_utils.device import seed_everything
from course_utils.files import write_whole
from course_utils.training import Recipe, fit
from course_utils.training import loop as training
from course_utils.training.checkpoint import Checkpoint
from course_utils.training.optimizer import prepare

recipe_of = partial(Recipe, epochs=3, precision="fp32")
LOADER = dict(batch_size=8, shuffle=True, augment=random_crop)
FORWARDS = 6  # in an epoch: three batches to train on and three to validate on


def small_set() -> ImageSet:
    images, labels = make_shapes(19)
    images = images[..., 12:20, 12:20].contiguous(memory_format=torch.channels_last)
    return ImageSet(images, labels, SHAPE_CLASSES, "shapes", *channel_statistics(images))


def small_net(dropout: float = 0.3, width: int = 6, second: nn.Module | None = None) -> nn.Sequential:
    layers = [nn.Conv2d(3, width, 3), nn.BatchNorm2d(width), second or nn.ReLU(), nn.Dropout(dropout)]
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(36 * width, 10))


def stop_at(forward: int, model: nn.Module) -> None:
    """Let somebody press Ctrl-C in the given forward pass, counted from 1."""
    calls = itertools.count(1)

    def hook(*_):
        if next(calls) == forward:
            raise KeyboardInterrupt

    model.register_forward_pre_hook(hook)


def run(
    checkpoint=None, recipe=None, *, images=None, net=small_net, kind="BatchLoader", stop=0, verbose=False, **options
):
    """Build everything anew from the seed and train; returns the history, the weights and the generators' states."""
    generator = seed_everything(0)
    model, images = net(), images or small_set()
    stop_at(stop, model)
    val = BatchLoader(images, 8)
    train = BatchLoader(images, **LOADER | dict(generator=generator) | options)
    whole = TensorDataset(*next(iter(BatchLoader(images, len(images)))))
    if kind == "DataLoader":
        train = DataLoader(whole, batch_size=8, shuffle=True, generator=generator)
    elif kind == "sampler":
        train = DataLoader(whole, batch_size=8, sampler=RandomSampler(whole, generator=generator))
    history = fit(model, train, val, recipe or recipe_of(), checkpoint=checkpoint, verbose=verbose)
    return history, model.state_dict(), [torch.get_rng_state(), generator.get_state()]


def assert_same(found, expected) -> None:
    assert found[0] == expected[0]
    torch.testing.assert_close(found[1:], expected[1:], rtol=0, atol=0)


@pytest.fixture
def path(tmp_path):
    """Where a checkpoint is to be written, in folders that are not there yet."""
    return tmp_path / "today" / "run" / "last.ckpt"


@pytest.fixture
def stored(path):
    """The checkpoint of a run that was stopped in its second epoch."""
    run(path, stop=FORWARDS + 1)
    return path


fault = pytest.mark.fault
ONCE_EACH = [  # kinds of batches and schedules know nothing of one another
    ("BatchLoader", "one-cycle", {}),
    ("DataLoader", "step", dict(step_size=1, gamma=0.5)),
    ("sampler", "constant", dict(momentum=0.5)),
]


@pytest.mark.parametrize("kind, schedule, options", ONCE_EACH)
def test_interrupted_run_goes_on_as_if_it_had_not_been(path, kind, schedule, options):
    assert_resumes(path, partial(run, recipe=recipe_of(schedule=schedule, **options), kind=kind))


def test_resumed_run_knows_which_epochs_are_small(path):
    net = partial(small_net, second=nn.AdaptiveAvgPool2d(6))
    assert_resumes(path, partial(run, recipe=recipe_of(small_epochs=2, small_size=6), net=net))


def assert_resumes(path, call) -> None:
    """`call` gives the same wherever it is interrupted and called again."""
    expected = call()
    assert_same(call(path), expected)  # writing it changes nothing
    for stop in range(1, 3 * FORWARDS + 1):
        path.unlink(missing_ok=True)
        history, *_ = call(path, stop=stop)
        assert history.metrics == expected[0].metrics[: (stop - 1) // FORWARDS]
        assert path.exists() is bool(history.metrics)
        assert_same(call(path), expected)


def test_interrupted_again_and_again(path):
    for epoch in (1, 2):  # each time one more epoch, and a part of the next
        assert len(run(path, stop=FORWARDS + epoch)[0].metrics) == epoch
    assert_same(run(path), run())


def slow_crop(images, generator):
    time.sleep(0.01)
    return random_crop(images, generator)


long = partial(run, recipe=recipe_of(epochs=60))  # with slow_crop, 1.8 s on any machine and more on most


def train_to_be_killed(path, moment, started) -> None:
    torch.set_num_threads(1)
    calls, original = itertools.count(1), getattr(os, moment, None)

    def die(*args):
        if next(calls) == 5:
            os.kill(os.getpid(), signal.SIGKILL)
        return original(*args)

    if original:
        setattr(os, moment, die)
    started.send("imported")
    long(path, augment=slow_crop)


@fault(
    "killed 22 times while training", "SIGKILL at 20 random moments, in fsync, in rename", "the result is bitwise equal"
)
@pytest.mark.skipif(sys.platform == "win32", reason="needs SIGKILL and a server that forks, which Windows has not")
def test_killed_run_goes_on_as_if_it_had_not_been(path, capsys, forked):
    draw = random.Random(0)
    for moment in ["any"] * 20 + ["fsync", "replace"]:
        ours, theirs = forked.Pipe()
        process = forked.Process(target=train_to_be_killed, args=(path, moment, theirs))
        process.start()
        theirs.close()
        assert ours.recv() == "imported"
        if moment == "any":
            time.sleep(draw.uniform(0.02, 0.12))
            process.kill()
        process.join()
        assert process.exitcode == -signal.SIGKILL
    expected = long()
    for left in path.parent.glob("*.part"):
        os.utime(left, (0, 0))  # for all we know, another process might still be writing a younger one
    capsys.readouterr()
    assert_same(long(path, augment=slow_crop, verbose=True), expected)
    first, *rest = capsys.readouterr().out.splitlines()
    assert first.startswith("resuming after epoch") and 0 < len(rest) < 55
    assert list(path.parent.iterdir()) == [path]  # also the one that was killed while it wrote has left nothing


def test_gradient_scaler_goes_on(path):
    batches = [(factor * x, y) for factor, (x, y) in zip((10, 0.01, 10), BatchLoader(small_set(), 8), strict=True)]

    def call(checkpoint=None, stop=0):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Flatten(), nn.Linear(192, 10))
        stop_at(stop, model)
        recipe = recipe_of(precision="fp16", lr=1e-3, epochs=4)
        return fit(model, batches, None, recipe, checkpoint=checkpoint, verbose=False), model.state_dict()

    expected = call()
    call(path, stop=7)
    scale = torch.load(io.BytesIO(path.read_bytes()[65:]), weights_only=True)["scaler"]["scale"]
    assert scale < 2**16  # steps were left out, as a new scaler would again
    assert_same(call(path), expected)


def test_finished_run_is_not_trained_again(path):
    expected, before = run(path), path.read_bytes()
    generator = seed_everything(0)
    model = small_net()
    stop_at(1, model)  # which would cut the history short
    loader = BatchLoader(small_set(), **LOADER, generator=generator)
    history = fit(model, loader, BatchLoader(small_set(), 8), recipe_of(), checkpoint=str(path), verbose=False)
    assert len(history.metrics) == 3 and history.environment == expected[0].environment
    assert [m.seconds for m in history.metrics] == [m.seconds for m in expected[0].metrics]  # read, not measured
    assert_same((history, model.state_dict(), [torch.get_rng_state(), generator.get_state()]), expected)
    assert path.read_bytes() == before


def opened(path, recipe=None):
    """A call that opens the checkpoint for the usual run, or that of another recipe."""
    generator = seed_everything(0)
    model, loader = small_net(), BatchLoader(small_set(), **LOADER, generator=generator)
    checkpoint = Checkpoint.of(path, model, recipe or recipe_of(), loader, BatchLoader(small_set(), 8), generator)
    return partial(checkpoint.load, model, prepare(model, recipe_of(), 3), generator)


OTHER = dict(epochs=4, lr=0.1, momentum=0.8, nesterov=False, weight_decay=0.0, schedule="step", warmup=0.2)
OTHER |= dict(step_size=5, gamma=0.2, label_smoothing=0.1, precision="bf16", optimizer="muon", muon_lr=0.1)
OTHER |= dict(muon_weight_decay=0.1, small_epochs=1, small_size=6)


@pytest.mark.parametrize("name", [field.name for field in fields(Recipe)])
def test_other_recipe(stored, name):
    with pytest.raises(ValueError) as error:
        opened(stored, replace(recipe_of(), **{name: OTHER[name]}))()
    expected = f"is of another run: recipe.{name} was {getattr(recipe_of(), name)}, is now {OTHER[name]}."
    assert str(stored) in str(error.value) and expected in str(error.value)


def test_layout_of_a_network_whose_checkpoint_is_refused(stored):
    model, loader = small_net(), BatchLoader(small_set(), **LOADER, generator=seed_everything(0))
    with pytest.raises(ValueError, match="is of another run"):
        fit(model, loader, None, recipe_of(), checkpoint=stored, verbose=False)
    assert all(parameter.is_contiguous() for parameter in model.parameters())


def changed(labels: bool = False, index=(3, 1, 4, 5), **other) -> ImageSet:
    """The small set with one bit of one image, or one label, turned over."""
    images = replace(small_set(), **other)
    (images.labels[:1] if labels else images.images[index[:1]][index[1:]]).bitwise_xor_(1)
    return images


DRAWN = "shuffled, in batches of 8, augmented"
DATA = rf"data was (19 images of shapes \(CRC )(.{{8}})\), {DRAWN}, is now \1(?!\2).{{8}}\), {DRAWN}\."
LOAD = rf"data was (19 images of shapes \(CRC .{{8}}\)), {DRAWN}, is now \1, "
REFUSED = {
    "lr": (dict(recipe=recipe_of(lr=0.1)), r"recipe\.lr was 0\.05, is now 0\.1\."),
    "dropout": (dict(net=partial(small_net, 0.1)), r"network was .*Dropout\(p=0\.3.*, is now .*Dropout\(p=0\.1"),
    "no dropout": (dict(net=partial(small_net, 0.0)), r"network was .*Dropout\(p=0\.3.*, is now .*Dropout\(p=0\.0"),
    "activation": (dict(net=partial(small_net, second=nn.GELU())), r"network was .*ReLU\(\), is now .*GELU\("),
    "width": (dict(net=partial(small_net, width=7)), r"network was .*Conv2d\(3, 6, .*, is now .*Conv2d\(3, 7, "),
    "pixel": (dict(images=changed()), DATA),
    "label": (dict(images=changed(labels=True)), DATA),
    "batch size": (dict(batch_size=7), LOAD + DRAWN.replace("8", "7")),
    "order": (dict(shuffle=False), LOAD + DRAWN.replace("shuffled", "in order")),
    "augmentation": (dict(augment=None), LOAD + DRAWN.replace("augmented", "not augmented")),
    "loader": (dict(kind="DataLoader"), r"data was 19 images.*, is now DataLoader of 3 batches\."),
}


@fault("checkpoint of another network, recipe or data", "file of another run", "refused; what differs is named")
@pytest.mark.parametrize("what", REFUSED)
def test_checkpoint_of_another_run_is_refused(stored, what):
    options, message = REFUSED[what]
    before, call = stored.read_bytes(), partial(run, **options)
    with pytest.raises(ValueError, match=f"last.ckpt is of another run: {message}"):
        call(stored)
    assert stored.read_bytes() == before
    call(stored.with_name("another.ckpt"), recipe=options.get("recipe", recipe_of()))  # on its own it is fine


@fault("truncated checkpoint", "file cut at 7 places", "refused as damaged")
@pytest.mark.parametrize("size", [0, 1, 64, 65, 66, 0.5, -1])
def test_truncated_file(stored, size):
    content = stored.read_bytes()
    stored.write_bytes(content[: int(size * len(content)) if size == 0.5 else size])
    with pytest.raises(ValueError, match=r"last\.ckpt is damaged"):
        run(stored)


@fault("bit-flipped checkpoint", "54 files with one flipped bit", "all 54 refused as damaged")
def test_flipped_bit(stored):
    content, draw, load = stored.read_bytes(), random.Random(0), opened(stored)
    for position in [0, 63, 64, 65, *(draw.randrange(len(content)) for _ in range(50))]:
        damaged = bytearray(content)
        damaged[position] ^= 1 << draw.randrange(8)
        stored.write_bytes(damaged)
        with pytest.raises(ValueError, match=r"last\.ckpt is damaged"):
            load()
    stored.write_bytes(content)
    assert len(load().metrics) == 1


class Program:
    """What makes a folder when it is unpickled."""

    def __init__(self, folder):
        self.folder = str(folder)

    def __reduce__(self):
        return os.mkdir, (self.folder,)


@fault("pickle that would run code", "checkpoint with a right checksum", "refused; the code did not run")
@pytest.mark.parametrize("form", ["alone", "in the history", "bare pickle"])
def test_nothing_in_the_file_is_run(stored, tmp_path, form):
    program, buffer = Program(tmp_path / "made"), io.BytesIO()
    if form == "bare pickle":
        pickle.dump(program, buffer, protocol=2)
    else:
        content = torch.load(io.BytesIO(stored.read_bytes()[65:]), weights_only=True)
        torch.save(program if form == "alone" else content | {"history": program}, buffer)
    body = buffer.getvalue()
    stored.write_bytes(hashlib.sha256(body).hexdigest().encode() + b"\n" + body)
    with pytest.raises(ValueError, match=r"last\.ckpt was not opened: it is no checkpoint, or holds more than tensors"):
        run(stored)
    assert not (tmp_path / "made").exists()
    if form == "alone":
        torch.load(io.BytesIO(body), weights_only=False)
        assert (tmp_path / "made").exists()  # it would have run


@pytest.mark.parametrize("content", [17, "a text", None, {"model": {}}, []], ids=str)
def test_right_checksum_of_something_else(stored, content):
    buffer = io.BytesIO()
    if content is not None:
        torch.save(content, buffer)
    stored.write_bytes(hashlib.sha256(buffer.getvalue()).hexdigest().encode() + b"\n" + buffer.getvalue())
    with pytest.raises(ValueError, match=r"last\.ckpt was not opened: it is no checkpoint"):
        run(stored)


def disk_full(*_):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@fault("disk full while saving", "ENOSPC from fsync and rename", "a clear error; the old checkpoint is whole")
@pytest.mark.parametrize("function", ["fsync", "replace"])
def test_full_disk_leaves_the_old_checkpoint(path, monkeypatch, function):
    with monkeypatch.context() as patch:
        patch.setattr(os, function, disk_full)
        with pytest.raises(OSError, match=r"checkpoint could not be written .*No space left.*there is none yet"):
            run(path)
    assert list(path.parent.iterdir()) == []
    run(path, stop=FORWARDS + 1)
    before = path.read_bytes()
    with monkeypatch.context() as patch:
        patch.setattr(os, function, disk_full)
        with pytest.raises(OSError, match=r"could not be written .*No space left.*last\.ckpt still holds the epoch be"):
            run(path)
    assert list(path.parent.iterdir()) == [path] and path.read_bytes() == before
    assert_same(run(path), run())


@fault("disk full while saving, for real", "file system of 256 KiB", "a clear error; the old checkpoint is whole")
@pytest.mark.skipif(sys.platform != "linux", reason="needs tmpfs")
def test_small_file_system(tmp_path):
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", tmp_path], capture_output=True)
    if mounted.returncode:
        pytest.skip(f"needs the right to mount a small file system: {mounted.stderr.decode().strip()}")
    try:
        path, rest = tmp_path / "last.ckpt", tmp_path / "rest"
        run(path, stop=FORWARDS + 1)
        before = path.read_bytes()
        rest.write_bytes(bytes(248 * 1024 - len(before)))
        with pytest.raises(OSError, match=r"could not be written .*No space left.*last\.ckpt still holds the epoch be"):
            run(path)
        assert sorted(tmp_path.iterdir()) == [path, rest] and path.read_bytes() == before
        rest.unlink()
        assert_same(run(path), run())
    finally:
        subprocess.run(["umount", tmp_path], check=True)


def interrupt(*_) -> None:
    signal.raise_signal(signal.SIGINT)


def interrupted(function):
    def and_then(*args, **kwargs):
        interrupt()
        return function(*args, **kwargs)

    return and_then


def patched(place, name: str):
    return lambda patch, model: patch.setattr(place, name, interrupted(getattr(place, name)))


PHASES = {  # where Ctrl-C comes
    "drawing a batch": patched(BatchLoader, "__iter__"),
    "forward": lambda patch, model: model[0].register_forward_hook(interrupt),
    "backward": lambda patch, model: model[0].weight.register_hook(interrupt),
    "step of the optimizer": patched(torch.optim.SGD, "step"),
    "evaluation": patched(training, "evaluate"),
    "writing the checkpoint": patched(os, "fsync"),
    "placing the checkpoint": patched(os, "replace"),
}


@fault("interrupted in every phase", "SIGINT in 7 places, from drawing to saving", "usable; the next call goes on")
@pytest.mark.parametrize("phase", PHASES)
def test_sigint(path, monkeypatch, phase):
    expected = run(path.with_name("other.ckpt"))
    run(path, stop=FORWARDS + 1)  # one epoch is finished
    generator = seed_everything(0)
    model, loader = small_net(), BatchLoader(small_set(), **LOADER, generator=generator)
    with monkeypatch.context() as patch:
        PHASES[phase](patch, model)
        history = fit(model, loader, BatchLoader(small_set(), 8), recipe_of(), checkpoint=path, verbose=False)
    finished = 2 if "checkpoint" in phase else 1  # its figures are there, only its file is not
    assert history.metrics == expected[0].metrics[:finished]
    assert all(tensor.isfinite().all() for tensor in model.state_dict().values())
    assert_same(run(path), expected)


def test_write_whole_replaces_a_file_by_one_that_is_on_the_disk(path, monkeypatch):
    write_whole(path, b"old")  # makes the folder too
    seen, synced, fsync, os_replace = [], set(), os.fsync, os.replace

    def spy_fsync(number):
        fsync(number)
        synced.add(os.fstat(number).st_ino)
        seen.append(("fsync", os.fstat(number).st_size, path.read_bytes()))

    def spy_replace(source, target):
        seen.append(("replace", os.stat(source).st_ino in synced, path.read_bytes()))
        os_replace(source, target)

    monkeypatch.setattr(os, "fsync", spy_fsync)
    monkeypatch.setattr(os, "replace", spy_replace)
    write_whole(path, b"newer")
    assert seen == [("fsync", 5, b"old"), ("replace", True, b"old")]
    assert path.read_bytes() == b"newer" and list(path.parent.iterdir()) == [path]


class Bad(list):
    """Batches with a NaN from the given pass on."""

    def __init__(self, batches, first: int):
        super().__init__(batches)
        self.passes = itertools.count(1)
        self.first = first

    def __iter__(self):
        factor = math.nan if next(self.passes) >= self.first else 1
        return ((images * factor, labels) for images, labels in list.__iter__(self))


@fault("NaN in the input", "batches with a NaN from the third epoch on", "stops; the last good checkpoint is kept")
@pytest.mark.parametrize("part", ["train", "val"])
def test_loss_that_is_not_finite_leaves_the_last_good_epoch(path, part):
    batches = list(BatchLoader(small_set(), 8))

    def call(checkpoint, bad_from):
        torch.manual_seed(0)
        model, first = small_net(), dict(train=9, val=9) | {part: bad_from}
        train, val = Bad(batches, first["train"]), Bad(batches, first["val"])
        return fit(model, train, val, recipe_of(), checkpoint=checkpoint, verbose=False), model.state_dict()

    with pytest.raises(FloatingPointError, match="not finite" if part == "train" else "validation loss is nan"):
        call(path, 3)
    content = torch.load(io.BytesIO(path.read_bytes()[65:]), weights_only=True)
    assert all(tensor.isfinite().all() for tensor in content["model"].values())
    assert [metrics["epoch"] for metrics in content["history"]["metrics"]] == [1, 2]
    assert_same(call(path, 9), call(None, 9))


def identity(images=None, **options) -> str:
    return BatchLoader(images or small_set(), **LOADER | dict(generator=torch.Generator()) | options).fingerprint


DIFFERENT = {
    "pixel": dict(images=changed()),
    "label": dict(images=changed(labels=True)),
    "name": dict(images=replace(small_set(), name="other")),
    "fewer": dict(images=small_set()[:18]),
    "other order": dict(images=small_set()[torch.arange(18, -1, -1)]),
    "other mean": dict(images=replace(small_set(), mean=small_set().mean + 0.01)),
    "other deviation": dict(images=replace(small_set(), std=small_set().std + 0.01)),
    "every second": dict(images=small_set()[::2]),
    "batch size": dict(batch_size=9),
    "in order": dict(shuffle=False),
    "not augmented": dict(augment=None),
}


@pytest.mark.parametrize("what", DIFFERENT)
def test_identity_differs(what):
    assert identity(**DIFFERENT[what]) != identity()


def test_identity_is_that_of_the_values():
    images = small_set()
    plain = replace(images, images=images.images.contiguous(), labels=images.labels.clone())
    assert plain.images.stride() != images.images.stride()  # the layout in memory is none of them, nor the generator
    assert identity(plain) == identity(images, generator=torch.Generator().manual_seed(1)) == identity()


@pytest.mark.parametrize("verbose", [True, False])
def test_says_that_it_goes_on(path, capsys, verbose):
    message = f"resuming after epoch 1 of 3, from {path}\n"
    run(path, stop=FORWARDS + 1, verbose=verbose)
    assert "resuming" not in capsys.readouterr().out
    run(path, verbose=verbose)
    out = capsys.readouterr().out
    assert out.startswith(message + "epoch   2 ") if verbose else out == ""
