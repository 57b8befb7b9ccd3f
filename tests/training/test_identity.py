"""Only the same call resumes a checkpoint: whatever changes a result is refused by name, and the file is kept."""

import os
import random
import time
import uuid
from functools import partial

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from course_utils.data import BatchLoader
from course_utils.data.augment import random_crop, random_hflip
from course_utils.training import Recipe, fit
from course_utils.training.checkpoint import ABANDONED, Checkpoint

RECIPE = Recipe(epochs=3, precision="fp32")


class Net(nn.Module):
    def __init__(self, activation=F.relu):
        super().__init__()
        self.conv, self.fc, self.activation = nn.Conv2d(3, 4, 3), nn.Linear(4, 10), activation

    def forward(self, images):
        return self.fc(self.activation(self.conv(images)).mean((2, 3)))


class Doubled(Net):
    def forward(self, images):
        return 2 * super().forward(images)


Doubled.__name__ = Doubled.__qualname__ = "Net"  # as where the cell of a class is changed and run again


def whole(images, generator):
    return images


def noisy(images, generator):
    """Draws from the streams that torch's seed does not set."""
    if random.random() < 0.5:
        images = images.flip(3)
    return images.roll(int(np.random.randint(0, 4)), 2)  # noqa: NPY002


def train(
    path, shapes, *, make=Net, seed=0, draw=0, augment=random_crop, val=16, kind="BatchLoader", stop=False, **frozen
):
    torch.manual_seed(seed)
    model = make()
    for name in frozen:
        model.get_submodule(name).requires_grad_(False)
    generator = torch.Generator().manual_seed(draw)
    part = shapes[0][:24]
    batches = BatchLoader(part, 8, shuffle=True, augment=augment, generator=generator)
    tensors = next(iter(BatchLoader(part, 24)))
    if kind == "list":
        batches = list(zip(*(tensor.split(8) for tensor in tensors), strict=True))
    elif kind == "other list":
        batches = list(zip(*(tensor.flip(0).split(8) for tensor in tensors), strict=True))
    elif kind in ("DataLoader", "other DataLoader"):
        tensors = tensors if kind == "DataLoader" else [tensor.flip(0) for tensor in tensors]
        batches = DataLoader(TensorDataset(*tensors), 8, shuffle=True, generator=generator)
    if stop:
        calls = iter(range(99))
        model.register_forward_pre_hook(lambda *_: interrupt() if next(calls) == stop else None)
    history = fit(model, batches, BatchLoader(shapes[1][:val], 8), RECIPE, verbose=False, checkpoint=path)
    return history, model


def interrupt():
    raise KeyboardInterrupt


SECOND_EPOCH = 6  # forwards: three of training and two of validation are over


CHANGES = {
    "code": (dict(make=Doubled), {}, "the network's code was"),
    "activation": (dict(make=partial(Net, F.gelu)), {}, "the network's code was"),
    "frozen": (dict(conv=True), {}, r"frozen was nothing, is now conv\.weight, conv\.bias\."),
    "weights": (dict(seed=1), {}, "seed was 0, is now 1 and 0"),
    "generator": (dict(draw=1), {}, "seed was 0, is now 0 and 1"),
    "augmentation": (
        dict(augment=random_hflip),
        {},
        r"batches was augmented by random_crop .*, is now .* random_hflip",
    ),
    "options": (
        dict(augment=partial(random_crop, padding=2)),
        {},
        "batches was augmented by random_crop .* by partial",
    ),
    "validation": (dict(val=12), {}, "validation was 16 images of shapes .*, is now 12 images"),
    "list": (dict(kind="other list"), dict(kind="list"), "batches was .*, is now"),
    "DataLoader": (dict(kind="other DataLoader"), dict(kind="DataLoader"), "batches was .*, is now"),
}


@pytest.mark.parametrize("what", CHANGES)
def test_whatever_changes_the_result_is_refused(shapes, tmp_path, what):
    changed, usual, message = CHANGES[what]
    path = tmp_path / "run.checkpoint"
    assert len(train(path, shapes, stop=SECOND_EPOCH, **usual)[0]) == 1
    before = path.read_bytes()
    with pytest.raises(ValueError, match=f"run.checkpoint is of another run: {message}.*move that one away"):
        train(path, shapes, **usual | changed)
    assert path.read_bytes() == before
    assert train(path, shapes, **usual)[0] == train(None, shapes, **usual)[0]


def test_pretrained_weights_are_other_weights(shapes, tmp_path):
    path = tmp_path / "run.checkpoint"
    train(path, shapes, stop=SECOND_EPOCH)

    def pretrained():
        model = Net()
        nn.init.zeros_(model.fc.bias)
        return model

    with pytest.raises(ValueError, match="initial weights was"):
        train(path, shapes, make=pretrained)


def test_same_network_object_once_more(shapes, tmp_path):
    """As where the cell that trains is stopped and run again, and the one that makes the network is not."""
    path, batches = tmp_path / "run.checkpoint", list(BatchLoader(shapes[0][:24], 8))
    torch.manual_seed(0)
    model, calls = Net(), iter(range(99))
    handle = model.register_forward_pre_hook(lambda *_: interrupt() if next(calls) == 4 else None)
    assert len(fit(model, batches, None, RECIPE, verbose=False, checkpoint=path)) == 1
    handle.remove()
    found = fit(model, batches, None, RECIPE, verbose=False, checkpoint=path)
    torch.manual_seed(0)
    other = Net()
    expected = fit(other, batches, None, RECIPE, verbose=False)
    assert found == expected
    torch.testing.assert_close(model.state_dict(), other.state_dict(), rtol=0, atol=0)
    assert fit(model, batches, None, RECIPE, verbose=False, checkpoint=path) == expected  # finished
    nn.init.zeros_(model.fc.weight)
    with pytest.raises(ValueError, match="initial weights was"):
        fit(model, batches, None, RECIPE, verbose=False, checkpoint=path)


def test_file_of_an_earlier_version_is_resumed(shapes, tmp_path, monkeypatch):
    path, of = tmp_path / "run.checkpoint", Checkpoint.of
    old = ("network", "data", *(f"recipe.{name}" for name in vars(RECIPE)))

    def without_the_rest(*args):
        made = of(*args)
        return Checkpoint(made.path, {name: made.identity[name] for name in old})

    with monkeypatch.context() as patch:
        patch.setattr(Checkpoint, "of", without_the_rest)
        patch.setattr(Checkpoint, "leave", lambda *args: None)
        train(path, shapes, stop=SECOND_EPOCH)
    assert train(path, shapes)[0] == train(None, shapes)[0]


def test_streams_of_numpy_and_python_go_on(shapes, tmp_path):
    def seeded(path, **options):
        random.seed(0)
        np.random.seed(0)  # noqa: NPY002
        return train(path, shapes, augment=noisy, **options)

    expected, weights = seeded(None)
    path = tmp_path / "run.checkpoint"
    seeded(path, stop=SECOND_EPOCH)
    history, model = seeded(path)
    assert history == expected
    torch.testing.assert_close(model.state_dict(), weights.state_dict(), rtol=0, atol=0)
    assert expected != train(None, shapes, augment=whole)[0]


# The file


def test_home_folder(shapes, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("USERPROFILE", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    train("~/run.checkpoint", shapes)
    assert (tmp_path / "home" / "run.checkpoint").is_file() and not (tmp_path / "~").exists()


@pytest.mark.parametrize("name", [".", "", "folder"])
def test_folder_in_place_of_a_file(shapes, tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder").mkdir()
    with pytest.raises(ValueError, match=r"checkpoint is the folder .*, expected a file, such as .*run\.checkpoint"):
        train(name, shapes)


def test_weights_of_somebody(shapes, tmp_path):
    path = tmp_path / "weights.pt"
    torch.save(Net().state_dict(), path)
    before = path.read_bytes()
    with pytest.raises(ValueError, match=r"no checkpoint of `fit`.*left as it is.*name another file") as error:
        train(path, shapes)
    assert "elete" not in str(error.value) and path.read_bytes() == before


def test_only_what_a_killed_process_left_is_removed(shapes, tmp_path):
    path = tmp_path / "run[1].checkpoint"
    ours = tmp_path / f"{path.name}.{uuid.UUID(int=1).hex}.part"
    kept = [tmp_path / f"{path.name}.{name}.part" for name in (uuid.UUID(int=2).hex, "movie", "")]
    old = time.time() - 2 * ABANDONED
    for file in (ours, *kept):
        file.write_text("half")
    for file in (ours, *kept[1:]):
        os.utime(file, (old, old))
    train(path, shapes)
    assert sorted(tmp_path.iterdir()) == sorted([path, *kept])  # a young one may be another process's
