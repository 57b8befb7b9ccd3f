"""How fast the course trains, against the usual way and against the limit: `make bench`.

    python tools/bench.py [--networks S8Net46k S9Net180k] [--rounds 7] [--device auto]

Three ways to train the same network on the same images with crop and flip, taking turns:

- the usual way: a `DataLoader` that augments image by image, float32, NCHW, a loss read after every step; several
  variants, and the best of them counts. It runs in a process of its own, because allocator settings hold for a process
  and course code has none (`--same-allocator` gives it ours); that process waits while the other measures;
- ours: what the notebooks do, `BatchLoader` and `train_epoch`;
- the limit: the steps of `train_epoch` alone, over and over on one batch that lies ready, in the same precision.

Figures are medians over rounds of ratios within a round: absolute speeds here drift by several times, ratios hardly.

The time to the published accuracy is epochs times seconds an epoch. The usual way is here the fastest `DataLoader` with
torchvision's transforms, for the epochs of `USUAL_EPOCHS`; ours is the shortest recipe of data/reference/shortest of
which all recorded seeds reach the figure, with its epochs of small images counted as what they take.
Writes `build/bench.json` and `build/bench.png`.
"""

import argparse
import importlib.util
import json
import os
import platform
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from statistics import median
from typing import IO, Any, cast

import numpy as np
import torch
import torch.nn.functional as F
from matplotlib import pyplot as plt
from PIL import Image
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms
from torchvision.transforms import v2

from course_utils.data import BatchLoader, ImageSet, load_images
from course_utils.data.augment import random_crop, random_hflip
from course_utils.device import pick_device, pick_precision, seed_everything
from course_utils.networks import NETWORKS, make_network
from course_utils.runs.reference import shortest_recipe
from course_utils.training import Recipe, train_epoch
from course_utils.training.optimizer import prepare

BUILD = Path(__file__).resolve().parents[1] / "build"
BATCH = 128
CROP: dict[str, Any] = dict(padding=2, padding_mode="reflect")
LEAST_ROUNDS = 7
USUAL_EPOCHS = {"S8Net46k": 20, "S9Net180k": 50}  # S9Net180k: as published; S8Net46k: its reference runs
TRAINING_IMAGES = 50_000


class UsualDataset(Dataset):
    """Image by image through PIL, as `torchvision.datasets.CIFAR10` does it."""

    def __init__(self, image_set: ImageSet, transform: Callable):
        self.images = image_set.images.permute(0, 2, 3, 1).contiguous().numpy()
        self.labels, self.transform = image_set.labels.tolist(), transform

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int):
        return self.transform(Image.fromarray(self.images[index])), self.labels[index]


def usual_transforms(mean: list[float], std: list[float]) -> dict[str, Callable]:
    """Crop, flip and normalize for one PIL image, in the libraries that courses use."""
    v1_steps = [transforms.RandomCrop(32, **CROP), transforms.RandomHorizontalFlip()]
    v1_steps += [transforms.ToTensor(), transforms.Normalize(mean, std)]
    v2_steps = [v2.ToImage(), v2.RandomCrop(32, **CROP), v2.RandomHorizontalFlip()]
    v2_steps += [v2.ToDtype(torch.float32, scale=True), v2.Normalize(mean, std)]
    found = {"torchvision v1": transforms.Compose(v1_steps), "torchvision v2": v2.Compose(v2_steps)}
    if importlib.util.find_spec("albumentations"):
        import albumentations as A
        from albumentations.pytorch import ToTensorV2

        pad = A.PadIfNeeded(36, 36, border_mode=4)  # cv2.BORDER_REFLECT_101
        steps = [pad, A.RandomCrop(32, 32), A.HorizontalFlip(), A.Normalize(mean, std), ToTensorV2()]
        compose = A.Compose(steps)
        found["albumentations"] = lambda image: compose(image=np.asarray(image))["image"]
    return found


def augment(images, generator):
    """Crop and flip, as in the notebooks."""
    return random_hflip(random_crop(images, generator, **CROP), generator)


def train_usual(model, optimizer, batches, device) -> None:
    """The loop of most course notebooks: float32, NCHW, a running loss read after every step."""
    model.train()
    running = 0.0
    for images, labels in batches:
        images, labels = images.to(device), labels.to(device)
        optimizer.zero_grad()
        loss = F.cross_entropy(model(images), labels)
        loss.backward()
        optimizer.step()
        running += loss.item()


def timed(call: Callable[[], object], device: torch.device) -> float:
    """Seconds for `call`, the work it left on the GPU included."""
    start = time.perf_counter()
    call()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - start


def our_epoch(
    name: str,
    image_set: ImageSet,
    device: torch.device,
    fixed_batch: bool = False,
    optimizer: str = "sgd",
    image_size: int | None = None,
) -> Callable[[], object]:
    """One epoch as the notebooks train, also on resized images, or as many steps on one batch that lies ready."""
    generator = seed_everything(0, device)
    model = make_network(name, norm="batch").to(device)
    batches = BatchLoader(image_set.to(device), BATCH, shuffle=True, augment=augment, generator=generator)
    if fixed_batch:
        batches = [next(iter(batches))] * len(batches)
    recipe = Recipe(epochs=10_000, schedule="constant", lr=0.01, optimizer=optimizer)
    state = prepare(model, recipe, len(batches))
    return lambda: train_epoch(model, batches, state, image_size=image_size)


class UsualWays:
    """The usual ways to train `name`, in a process of their own; `epoch(way)` runs one epoch there."""

    def __init__(self, name: str, images: int, device: torch.device, same_allocator: bool):
        command = [sys.executable, __file__, "--serve", name, "--images", str(images), "--device", device.type]
        keep = {key: value for key, value in os.environ.items() if same_allocator or not key.startswith("MALLOC_")}
        self.process = subprocess.Popen(command, env=keep, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.words, self.answers = cast(IO[str], self.process.stdin), cast(IO[str], self.process.stdout)
        self.names = json.loads(self.answers.readline())

    def epoch(self, way: str) -> None:
        print(way, file=self.words, flush=True)
        if self.answers.readline().strip() != way:
            raise RuntimeError(f"the process that trains the usual way has ended: {way}")

    def __enter__(self) -> "UsualWays":
        return self

    def __exit__(self, *error) -> None:
        self.process.communicate()  # closes its input, upon which it ends


def serve(name: str, image_set: ImageSet, device: torch.device) -> None:
    """The other end of `UsualWays`: print the names of the ways, then run one epoch for each name that is read."""
    ways = {}
    for label, transform in usual_transforms(image_set.mean.tolist(), image_set.std.tolist()).items():
        for workers in (0, 2):
            ways[f"{label}, {workers} workers"] = usual_epoch(name, image_set, device, transform, workers)
    print(json.dumps(list(ways)), flush=True)
    for line in sys.stdin:
        timed(ways[line.strip()], device)
        print(line.strip(), flush=True)


def usual_epoch(name: str, image_set: ImageSet, device: torch.device, transform: Callable, workers: int):
    """One epoch the usual way; worker processes stay alive between epochs."""
    seed_everything(0)
    model = make_network(name, norm="batch").to(device)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
    options: dict[str, Any] = dict(
        num_workers=workers, persistent_workers=workers > 0, pin_memory=device.type == "cuda"
    )
    batches = DataLoader(UsualDataset(image_set, transform), BATCH, shuffle=True, **options)
    return lambda: train_usual(model, optimizer, batches, device)


def seconds_to_train(recipe: Recipe, speed: float, small_speed: float) -> float:
    """Seconds for `recipe` on all training images, at so many images per second of full and of small size."""
    return TRAINING_IMAGES * ((recipe.epochs - recipe.small_epochs) / speed + recipe.small_epochs / small_speed)


def take_turns(ways: dict[str, Callable], images: int, rounds: int, device: torch.device) -> dict[str, list[float]]:
    """Images per second of every way in every round, after one round that does not count.

    Each round begins with another way: what runs after a heavy one finds cold caches and a warm processor.
    """
    names, speeds = list(ways), {name: [] for name in ways}
    for turn in range(rounds + 1):
        for name in names[turn % len(names) :] + names[: turn % len(names)]:
            seconds = timed(ways[name], device)
            if turn:
                speeds[name].append(images / seconds)
    return speeds


def measure_network(name: str, image_set: ImageSet, options: argparse.Namespace, device: torch.device) -> dict:
    """The record of one network: images per second of every way, and the medians over rounds of the ratios."""
    rounds = options.rounds
    ways = {"ours": our_epoch(name, image_set, device), "limit": our_epoch(name, image_set, device, fixed_batch=True)}
    ways["ours, muon"] = our_epoch(name, image_set, device, optimizer="muon")
    recipe = shortest_recipe(name) if name in USUAL_EPOCHS else None
    if recipe:
        small = f"ours, muon, {recipe.small_size} pixels"
        ways[small] = our_epoch(name, image_set, device, optimizer="muon", image_size=recipe.small_size)
    with UsualWays(name, len(image_set), device, options.same_allocator) as usual_ways:
        ways |= {way: partial(usual_ways.epoch, way) for way in usual_ways.names}
        speeds = take_turns(ways, len(image_set), rounds, device)
    usual = [max(speeds[way][turn] for way in usual_ways.names) for turn in range(rounds)]
    sizes = {factor: image_set[: len(image_set) * factor // 4] for factor in (1, 2, 4)}
    epochs = {str(factor): our_epoch(name, part, device) for factor, part in sizes.items()}
    lengths = take_turns(epochs, 1, rounds, device)  # epochs per second
    to_accuracy = {}
    if recipe:
        torchvision = [way for way in usual_ways.names if way.startswith("torchvision")]
        rows = zip(*(speeds[way] for way in ("ours, muon", small, *torchvision)), strict=True)
        pairs = [
            (USUAL_EPOCHS[name] * TRAINING_IMAGES / max(theirs), seconds_to_train(recipe, full, small_speed))
            for full, small_speed, *theirs in rows
        ]
        ratios = [theirs / ours for theirs, ours in pairs]
        seconds = {"usual": median(theirs for theirs, _ in pairs), "ours": median(ours for _, ours in pairs)}
        to_accuracy = {
            "epochs": {"usual": USUAL_EPOCHS[name], "ours": recipe.epochs, "of small images": recipe.small_epochs},
            "seconds": {way: round(each) for way, each in seconds.items()},
            "ratio": round(median(ratios), 2),
            "lowest and highest ratio": [round(min(ratios), 2), round(max(ratios), 2)],
        }
    return {
        "to_the_published_accuracy": to_accuracy,
        "images_per_second": {way: round(median(values)) for way, values in speeds.items()},
        "ratio_to_usual": round(median(a / b for a, b in zip(speeds["ours"], usual, strict=True)), 3),
        "ratio_to_limit": round(median(a / b for a, b in zip(speeds["ours"], speeds["limit"], strict=True)), 3),
        "time_ratio_2x_data": round(median(a / b for a, b in zip(lengths["1"], lengths["2"], strict=True)), 3),
        "time_ratio_4x_data": round(median(a / b for a, b in zip(lengths["1"], lengths["4"], strict=True)), 3),
    }


def pass_through(batches: Iterable) -> None:
    """Draw all batches and drop them."""
    for _ in batches:
        pass


def measure_loaders(image_set: ImageSet, rounds: int, device: torch.device) -> dict[str, int]:
    """Images per second of the loaders alone, with crop and flip."""
    ours = BatchLoader(image_set.to(device), BATCH, shuffle=True, augment=augment, generator=seed_everything(0, device))
    ways: dict[str, Callable] = {"ours": partial(pass_through, ours)}
    for label, transform in usual_transforms(image_set.mean.tolist(), image_set.std.tolist()).items():
        loader = DataLoader(UsualDataset(image_set, transform), BATCH, shuffle=True)
        ways[label] = partial(pass_through, loader)
    speeds = take_turns(ways, len(image_set), rounds, device)
    return {way: round(median(values)) for way, values in speeds.items()}


def peak_mebibytes(name: str, images: int, device: torch.device) -> float:
    """Memory above the data set and the model that an epoch on `images` images takes at its peak."""
    train, _ = load_images("shapes")
    part = train[torch.arange(images) % len(train)].to(device)
    warm, measured = our_epoch(name, part[: 2 * BATCH], device), our_epoch(name, part, device)
    warm()  # what the libraries keep for themselves from the first step on
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        measured()
        return (torch.cuda.max_memory_allocated(device) - before) / 2**20
    before = resident_mebibytes()
    measured()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024 - before


def resident_mebibytes() -> float:
    """What this process holds in memory now (Linux)."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 2**20


def peak_of_child(name: str, images: int, device: torch.device) -> float:
    """`peak_mebibytes` in a process of its own: a process never gives its peak back."""
    command = [sys.executable, __file__, "--peak-of", name, "--images", str(images), "--device", device.type]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def draw(record: dict, path: Path) -> None:
    """Bars of images per second, a panel per network, the way's own ratio to ours beside each bar."""
    networks = record["networks"]
    figure, axes = plt.subplots(1, len(networks), figsize=(6 * len(networks), 3.6), layout="constrained", squeeze=False)
    for ax, (name, figures) in zip(axes[0], networks.items(), strict=True):
        speeds = dict(sorted(figures["images_per_second"].items(), key=lambda item: item[1]))
        hatches = ["" if way == "ours" else ".." if way == "limit" else "//" for way in speeds]
        bars = ax.barh(list(speeds), list(speeds.values()), color="#0072B2", edgecolor="white", hatch=hatches)
        ax.bar_label(bars, [f"{value / speeds['ours']:.2f}× ours" for value in speeds.values()], padding=3, fontsize=8)
        ax.set(xlabel="images per second", title=name, xlim=(0, max(speeds.values()) * 1.25))
    figure.suptitle(f"training throughput on {record['device']}, medians of {record['rounds']} rounds")
    figure.savefig(path, dpi=100)
    plt.close(figure)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--networks", nargs="+", choices=NETWORKS, default=["S8Net46k", "S9Net180k"])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--images", type=int, help="images per epoch; default: 2,048 on a CPU, all 10,000 on a GPU")
    parser.add_argument("--peak-of", choices=NETWORKS, help="print the peak memory of one epoch and stop")
    parser.add_argument("--same-allocator", action="store_true", help="the usual way with our allocator settings")
    parser.add_argument("--serve", choices=NETWORKS, help="train the usual way at the word of another process")
    options = parser.parse_args()
    device = pick_device(options.device)
    images = options.images or (2_048 if device.type == "cpu" else 10_000)
    if options.peak_of:
        print(peak_mebibytes(options.peak_of, images, device))
        return
    if options.serve:
        serve(options.serve, load_images("shapes")[0][:images], device)
        return
    if options.rounds < LEAST_ROUNDS:
        parser.error(
            f"--rounds is {options.rounds}, expected at least {LEAST_ROUNDS}: medians of fewer say little here"
        )
    train, _ = load_images("shapes")
    precision = pick_precision("auto", device)
    record = {
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else platform.processor() or "CPU",
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "precision": precision.name,
        "rounds": options.rounds,
        "images": images,
        "batch_size": BATCH,
        "same_allocator": options.same_allocator,
        "loader_images_per_second": measure_loaders(train, options.rounds, device),
        "networks": {},
    }
    for name in options.networks:
        print(f"measuring {name} …", flush=True)
        figures = measure_network(name, train[:images], options, device)
        peaks = {str(factor): round(peak_of_child(name, images * factor, device), 1) for factor in (1, 2, 4)}
        loader = record["loader_images_per_second"]["ours"]
        record["networks"][name] = figures | {"loader_images_per_second": loader, "peak_mebibytes_by_data": peaks}
    BUILD.mkdir(exist_ok=True)
    (BUILD / "bench.json").write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    draw(record, BUILD / "bench.png")
    report(record)


def report(record: dict) -> None:
    """Print the tables."""
    loaders = record["loader_images_per_second"]
    print(f"\n{record['device']}, {record['threads']} threads, {record['precision']}, {record['rounds']} rounds")
    print("loader alone, images/s: " + ", ".join(f"{way} {speed:,}" for way, speed in loaders.items()))
    for name, figures in record["networks"].items():
        print(f"\n{name}")
        for way, speed in sorted(figures["images_per_second"].items(), key=lambda item: -item[1]):
            print(f"  {way:28s} {speed:9,} images/s")
        print(f"  ours over the best usual way {figures['ratio_to_usual']:.2f}")
        print(f"  ours over the limit          {figures['ratio_to_limit']:.2f}")
        print(
            f"  time for 2×, 4× the data     {figures['time_ratio_2x_data']:.2f}, {figures['time_ratio_4x_data']:.2f}"
        )
        print(f"  peak memory, MiB, by data    {figures['peak_mebibytes_by_data']}")
        if goal := figures["to_the_published_accuracy"]:
            times = [f"{goal['seconds'][way]:,} s ({goal['epochs'][way]} epochs)" for way in ("usual", "ours")]
            low, high = goal["lowest and highest ratio"]
            print(f"  to the published accuracy    {' and '.join(times)}: {goal['ratio']} times ({low} to {high})")
    print("\nwritten: build/bench.json, build/bench.png")


if __name__ == "__main__":
    main()
