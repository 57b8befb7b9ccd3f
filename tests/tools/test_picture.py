"""The picture of the README shows the layers and runs of today."""

import json

import picture
import torch
from PIL import Image
from torch import nn


def test_the_file_shows_the_recorded_runs():
    with Image.open(picture.FILE) as image:
        shown = json.loads(image.text["accuracies"])
    assert shown == picture.accuracies().to_numpy().tolist() and len(shown) >= 9, "run tools/picture.py"


def test_it_is_written_as_it_stands(tmp_path, monkeypatch):
    monkeypatch.setattr(picture, "FILE", tmp_path / "new" / "course.png")
    picture.main()
    with Image.open(picture.FILE) as image:
        assert image.width > 2 * image.height > 800


def test_what_shares_a_mean():
    one = {norm: picture.shared_by(norm) for norm in ("batch", "layer", "group")}
    assert one["batch"][:, -1].all() and one["batch"].sum() == 4 * 5
    assert one["layer"][0].all() and one["layer"].sum() == 8 * 5
    assert one["group"][0, 4:].all() and one["group"].sum() == 4 * 5


def test_what_is_read():
    reads = picture.reads(nn.Conv2d(3, 3, 3, stride=2, padding=1))
    line = torch.tensor([0, 1, 1, 3, 2, 2, 0, 0, 0])
    expected = torch.zeros(9, 9, dtype=torch.int64)
    expected[3:6] = line
    assert torch.equal(reads, expected.expand(3, 9, 9))
