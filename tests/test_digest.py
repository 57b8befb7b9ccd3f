"""A digest tells apart what computes otherwise, and nothing else."""

import subprocess
import sys
from functools import partial

import numpy as np
import pytest
import torch
from torch import nn
from torchvision import transforms

from course_utils.data.augment import random_crop, random_hflip
from course_utils.digest import digest

HEAD = "import torch\nfrom torch import nn\nfrom course_utils.data.augment import random_crop, random_hflip\n"


def made(source: str):
    """What `source` calls `x`, as if it were a cell of a notebook."""
    space = {"__name__": "__main__"}
    exec(HEAD + source, space)
    return space["x"]


NET = """
class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc, self.scale = nn.Linear(4, 2), {scale}
    def forward(self, images):
        return self.fc(images.{method}(1)) * self.scale
x = Net()
"""
AUGMENT = "padding = {padding}\ndef x(images, generator):\n    return random_crop(images, generator, padding=padding)"
CAPTURED = "def make(p):\n    return lambda images, generator: random_hflip(images, generator, p)\nx = make({p})"
HELPER = "def helper(x):\n    return x {sign} 1\ndef x(images, generator):\n    return [helper(i) for i in images]"
PAIRS = {
    "another forward": (NET.format(scale=1, method="flatten"), NET.format(scale=1, method="squeeze")),
    "another attribute": (NET.format(scale=1, method="flatten"), NET.format(scale=2, method="flatten")),
    "a global": (AUGMENT.format(padding=2), AUGMENT.format(padding=4)),
    "a captured value": (CAPTURED.format(p=0.5), CAPTURED.format(p=0.1)),
    "a helper": (HELPER.format(sign="+"), HELPER.format(sign="-")),
    "a default": ("def x(images, p=1): return images", "def x(images, p=2): return images"),
    "a constant": ("x = lambda images: images + 1", "x = lambda images: images + 2"),
    "a text": ("x = lambda images: 'a b'", "x = lambda images: 'b a'"),
}


@pytest.mark.parametrize("what", PAIRS)
def test_other_code(what):
    first, other = PAIRS[what]
    assert digest(made(first)) == digest(made(first)) != digest(made(other))


def test_what_computes_the_same_is_the_same():
    plain = "def x(images, generator):\n    return images + 1"
    commented = 'def x(images, generator):\n    """Add one."""\n\n    # to each of them\n    return images  +  1'
    assert digest(made(plain)) == digest(made(commented))
    model = made(NET.format(scale=1, method="flatten"))
    before = digest(model)
    model.eval()(torch.rand(3, 4)).sum().backward()
    model.fc.weight.data.zero_()
    assert digest(model) == before != digest(model.state_dict())


@pytest.mark.parametrize(
    "first, other",
    [
        (partial(random_crop, padding=4), partial(random_crop, padding=2)),
        (random_crop, random_hflip),
        (partial(random_hflip, p=0.5), random_hflip),
        (torch.zeros(3), torch.zeros(4)),
        (torch.zeros(3), torch.zeros(3, dtype=torch.int32)),
        (torch.tensor(1.5, dtype=torch.bfloat16), torch.tensor(2.5, dtype=torch.bfloat16)),
        (np.arange(3), np.arange(3) + 1),
        (np.array(["a", None]), np.array(["b", None])),
        ([1, [2]], [[1], 2]),
        ({"a": 1}, {"a": 2}),
        (transforms.RandomCrop(32, padding=4), transforms.RandomCrop(32, padding=2)),
        (transforms.Compose([transforms.ToTensor()]), transforms.Compose([])),
        (nn.MultiheadAttention(8, 2), nn.MultiheadAttention(8, 4)),
        (torch.Tensor.view, torch.Tensor.reshape),
        (nn.ReLU, nn.GELU),
    ],
)
def test_other_values(first, other):
    assert digest(first) != digest(other)


def test_which_one_comes_again():
    assert digest([random_crop, random_hflip, random_crop]) != digest([random_crop, random_hflip, random_hflip])


def test_layout_does_not_count(generator):
    images = torch.rand(2, 3, 4, 4, generator=generator)
    assert digest(images) == digest(images.to(memory_format=torch.channels_last))


def test_same_in_another_process(capsys):
    """Also for sets, whose order differs from process to process."""
    source = f"""{HEAD}
from course_utils.digest import digest
from course_utils.networks import S9Net85k
from course_utils.runs.study import augmentation
names = {{'ant', 'bee', 'cat'}}
def x(images): return 'dog' in names or 'bee' in {{'ant', 'bee', 'cow'}}
print(digest(S9Net85k(), augmentation({{"random_crop": {{}}}}), x, nn.LSTM(3, 4)))"""
    there = subprocess.run([sys.executable, "-c", source], capture_output=True, text=True, check=True).stdout
    exec(source, {"__name__": "__main__"})
    assert capsys.readouterr().out == there


def test_things_that_hold_themselves():
    loop: list = [1]
    loop.append(loop)
    assert digest(loop) == digest(loop)
    assert digest(made("def x(n): return x(n - 1) if n else 0")) == digest(
        made("def x(n): return x(n - 1) if n else 0")
    )
