"""Checks of the networks and images that a lesson is given: what cannot work is refused before anything is trained."""

from collections.abc import Collection, Iterable
from contextlib import suppress
from pathlib import Path

import torch
from torch import Tensor

from course_utils.arguments import number, one_of
from course_utils.networks import NETWORKS, make_network


def check_networks(session: str, names: Iterable[str], groups: int = 1) -> None:
    """Raise `ValueError` for what is no network of the course, and for one whose channels `groups` do not divide."""
    fitting = [name for name in NETWORKS if _takes_groups(name, groups)]
    for name in names:
        if one_of(name, "network", tuple(NETWORKS)) not in fitting:
            reason = f"{session} normalizes in {groups} groups, which do not divide its channels"
            raise ValueError(f"network is {name!r}, expected one of {', '.join(fitting)}: {reason}")


def _takes_groups(name: str, count: int) -> bool:
    try:
        with torch.device("meta"):
            make_network(name, norm="group", num_groups=count)
    except ValueError:
        return False
    return True


def check_recorded(session: str, names: Iterable[str], recorded: Collection[str]) -> None:
    """Raise `ValueError` for networks of which the session has no recorded run."""
    if unknown := sorted(set(names) - set(recorded)):
        missing = f"there is no recorded run of {', '.join(unknown)} in {session}"
        raise ValueError(f"{missing}, expected {' or '.join(sorted(recorded))}; with run = 'train' it is trained")


def check_images(names: Iterable[str], images: Tensor, batch_size: int = 1) -> None:
    """Raise `ValueError` for fewer `images` than `batch_size`, and for such as are too small or large for a network."""
    number(batch_size, "batch_size", 1, len(images) + 1, whole=True, note=", the number of images to train on")
    for name in dict.fromkeys(names):
        with torch.device("meta"):
            model, outputs = make_network(name).eval(), torch.empty(1, *images.shape[1:])
        grids = [images.shape[2:]]
        with suppress(RuntimeError):  # a window is larger than its input
            for layers in model.children():  # features, classifier
                outputs = layers(outputs)
                grids.append(outputs.shape[2:])
        if len(grids) < 3 or grids[2] != (1, 1):
            part, grid = ("features", grids[0]) if len(grids) == 1 else ("classifier", grids[1])
            size = "{}×{}".format(*images.shape[2:])
            reason = "its {} cannot make one position of {}×{}".format(part, *grid)
            raise ValueError(f"images of {size} pixels do not fit {name}: {reason}; images of 32×32 pixels fit")


def check_data(dataset: str | Path, name: str, recorded: str) -> None:
    """Another copy of the recorded images may stand in for them, which is printed; `ValueError` for other images."""
    if name.partition(" (")[0] != recorded.partition(" (")[0]:
        only = f"there are recorded runs on {recorded} alone"
        remedy = "name a folder with these images, or set run = 'train'"
        raise ValueError(f"dataset = {str(dataset)!r} is {name}, and {only}: {remedy}")
    if name != recorded:
        print(f"the recorded runs and their accuracies are on {recorded}; the images shown are {name}")
