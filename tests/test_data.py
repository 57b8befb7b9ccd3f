"""Where images are found, how bad ones are refused, and what batches look like."""

import hashlib
import os
import pickle
import shutil
import struct
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision.transforms.functional as TF
from PIL import Image
from torch import Generator, Tensor
from torch.testing import assert_close
from torchvision.datasets import CIFAR10

from course_utils import augment, data, folders
from course_utils.data import CIFAR10_CLASSES, BatchLoader, ImageSet, channel_statistics, load_images, split

WHITE = np.full((32, 32, 3), 255, dtype=np.uint8)


@pytest.fixture(autouse=True)
def root(monkeypatch, tmp_path) -> Path:
    """The data folder during one test; without a network."""

    def refuse(root):
        raise AssertionError("tried to download")

    monkeypatch.setenv("COURSE_DATA", str(tmp_path / "data"))
    monkeypatch.setattr(data, "fetch_cifar10", refuse)
    return tmp_path / "data"


def noise(n: int = 1) -> np.ndarray:
    return np.random.default_rng(n).integers(0, 256, (n, 32, 32, 3), dtype=np.uint8)


def write_folder(folder: Path, level: int | None = None, classes=("cat", "ant"), suffix: str = "png") -> Path:
    """Two images per split and class, all of one `level`, or noise."""
    pixels = iter(noise(4 * len(classes)) if level is None else [WHITE // 255 * level] * 4 * len(classes))
    for part in ("train", "test"):
        for name in classes:
            (folder / part / name).mkdir(parents=True)
            for stem in ("b", "a"):
                Image.fromarray(next(pixels)).save(folder / part / name / f"{stem}.{suffix}")
    return folder


def write_batches(root: Path, monkeypatch, level: int | None = None) -> tuple[np.ndarray, list[int]]:
    """`cifar-10-batches-py/` of 25 images with matching checksums; returns pixels, 25×32×32×3, and labels."""
    pixels = noise(25) if level is None else np.full((25, 32, 32, 3), level, dtype=np.uint8)
    labels = [7 * i % 10 for i in range(25)]
    rows = pixels.transpose(0, 3, 1, 2).reshape(25, -1)
    folder = root / "cifar-10-batches-py"
    folder.mkdir(parents=True)
    files = {"batches.meta": {"label_names": list(CIFAR10_CLASSES)}}
    for i, name in enumerate(["data_batch_1", "data_batch_2", "data_batch_3", "data_batch_4", "test_batch"]):
        files[name] = {"data": rows[5 * i : 5 * i + 5], "labels": labels[5 * i : 5 * i + 5]}
    sums = {}
    for name, content in files.items():
        (folder / name).write_bytes(pickle.dumps(content))
        sums[name] = hashlib.md5((folder / name).read_bytes()).hexdigest()
    monkeypatch.setattr(CIFAR10, "train_list", [[name, sums[name]] for name in sums if name.startswith("data")])
    monkeypatch.setattr(CIFAR10, "test_list", [["test_batch", sums["test_batch"]]])
    monkeypatch.setattr(CIFAR10, "meta", CIFAR10.meta | {"md5": sums["batches.meta"]})
    return pixels, labels


def as_images(pixels) -> Tensor:
    return torch.from_numpy(np.stack(pixels)).permute(0, 3, 1, 2)


# Finding and reading


def test_shapes(shapes):
    train, test = shapes
    assert (len(train), len(test), train.name, len(train.classes)) == (10_000, 2_000, "shapes", 10)
    mean, std = channel_statistics(train.images)
    assert all(torch.equal(part.mean, mean) and torch.equal(part.std, std) for part in shapes)


@pytest.mark.parametrize("inside", [False, True])
def test_original_batches(inside, tmp_path, monkeypatch):
    pixels, labels = write_batches(tmp_path, monkeypatch)
    train, test = load_images(tmp_path / "cifar-10-batches-py" if inside else tmp_path)
    assert torch.equal(torch.cat([train.images, test.images]), as_images(pixels)) and len(test) == 5
    assert torch.cat([train.labels, test.labels]).tolist() == labels
    assert (train.name, train.classes) == (test.name, test.classes) == ("CIFAR-10", CIFAR10_CLASSES)
    assert torch.equal(test.mean, channel_statistics(train.images)[0])


class Bomb:
    """Leaves a file behind when it is unpickled."""

    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


@pytest.mark.parametrize("name", ["data_batch_1", "data_batch_4", "test_batch", "batches.meta"])
def test_damaged_batches_are_refused_before_they_are_unpickled(name, tmp_path, monkeypatch):
    write_batches(tmp_path, monkeypatch)
    (tmp_path / "cifar-10-batches-py" / name).write_bytes(pickle.dumps(Bomb(tmp_path / "exploded")))
    with pytest.raises(ValueError, match=r"cifar-10-batches-py: a file is missing or damaged"):
        load_images(tmp_path)
    assert not (tmp_path / "exploded").exists()


@pytest.mark.parametrize("suffix", ["png", "PNG", "jpg", "jpeg"])
def test_image_folder(suffix, tmp_path):
    folder = write_folder(tmp_path / "pets", suffix=suffix)
    (folder / "train" / "ant" / "notes.txt").touch()
    for image_set, part in zip(load_images(str(folder)), ("train", "test"), strict=True):
        files = [folder / part / name / f"{stem}.{suffix}" for name in ("ant", "cat") for stem in ("a", "b")]
        assert torch.equal(image_set.images, as_images([np.asarray(Image.open(file)) for file in files]))
        assert image_set.images.is_contiguous(memory_format=torch.channels_last)
        assert image_set.labels.dtype == torch.int64 and image_set.labels.tolist() == [0, 0, 1, 1]
        assert (image_set.classes, image_set.name) == (("ant", "cat"), "pets")
    assert not torch.equal(*(channel_statistics(image_set.images)[0] for image_set in load_images(folder)))
    assert torch.equal(*(image_set.mean for image_set in load_images(folder)))
    assert torch.equal(*(image_set.std for image_set in load_images(folder)))


@pytest.mark.parametrize(("suffix", "name"), [("png", "CIFAR-10 (PNG)"), ("jpg", "CIFAR-10 (JPEG)")])
def test_a_copy_of_cifar10_is_called_one(suffix, name, tmp_path):
    assert load_images(write_folder(tmp_path / "copy", 0, CIFAR10_CLASSES, suffix))[0].name == name


def test_real_images(real_images, monkeypatch):
    monkeypatch.setattr(folders, "_write_cache", lambda file, images: None)  # 184 MB, read once
    train, test = load_images(real_images)
    assert (len(train), len(test), train.name) == (50_000, 10_000, "CIFAR-10 (JPEG)")
    assert train.classes == test.classes == CIFAR10_CLASSES
    assert test.labels.bincount().tolist() == [1000] * 10
    assert_close(train.mean, torch.tensor([0.4913, 0.4821, 0.4465]), rtol=0, atol=5e-5)
    assert_close(train.std, torch.tensor([0.2452, 0.2428, 0.2606]), rtol=0, atol=5e-5)


@pytest.mark.parametrize(
    ("places", "expected"),
    [
        (["", "cifar10"], 1),
        (["cifar10-b", "cifar10-a"], 2),
        (["other", "pets/cifar10", "cifar10"], 3),
        (["cifar10-b", "cifar10-a/cifar-10-batches-py"], 2),
        (["", "cifar-10-batches-py"], 2),
        (["cifar10", "cifar-10-batches-py"], 2),
    ],
)
def test_where_cifar10_is_searched(places, expected, root, monkeypatch):
    for level, place in enumerate(places, start=1):
        if place.endswith("-py"):
            write_batches((root / place).parent, monkeypatch, level)
        else:
            write_folder(root / place, level)
    (root / "cifar10-0.tar.xz").touch()
    assert load_images("cifar10")[0].images.unique().tolist() == [expected]


def test_cifar10_is_downloaded_if_it_is_nowhere(root, monkeypatch):
    write_folder(root / "other")

    def fetch(to: Path) -> Path:
        write_batches(to, monkeypatch, 9)
        return to

    monkeypatch.setattr(data, "fetch_cifar10", fetch)
    assert load_images("cifar10")[0].images.unique().tolist() == [9]
    assert (root / "cifar-10-batches-py").is_dir()


def test_unknown_data_set():
    with pytest.raises(
        ValueError, match="unknown data set 'cifar11', expected 'cifar10', 'shapes' or an existing folder"
    ):
        load_images("cifar11")


# The cache


def forbid_decoding(monkeypatch):
    def decode(paths):
        raise AssertionError("decoded again")

    monkeypatch.setattr(folders, "_decode", decode)


@pytest.mark.parametrize("keep", ["", "half", "nothing"])
def test_images_are_decoded_once(keep, tmp_path, root, monkeypatch):
    folder = write_folder(tmp_path / "pets")
    first = load_images(folder)[0]
    (cache,) = (root / "cache").iterdir()
    if keep:  # cut short: made anew
        cache.write_bytes(cache.read_bytes()[: cache.stat().st_size // 2 if keep == "half" else 0])
        assert torch.equal(load_images(folder)[0].images, first.images)
    forbid_decoding(monkeypatch)
    assert torch.equal(load_images(folder)[0].images, first.images)
    assert len(list((root / "cache").iterdir())) == 1


@pytest.mark.parametrize("change", ["time", "size", "name"])
def test_a_changed_file_is_noticed(change, tmp_path):
    folder = write_folder(tmp_path / "pets")
    file = folder / "test" / "ant" / "a.png"
    Image.fromarray(noise(2)[1]).save(file, compress_level=0)  # without compression every image has the same size
    before = file.stat()
    load_images(folder)
    Image.fromarray(WHITE).save(file, compress_level=9 if change == "size" else 0)
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns + (change == "time")))
    if change == "name":
        file = file.rename(file.with_stem("aa"))
    assert (file.stat().st_size == before.st_size) == (change != "size")
    assert load_images(folder)[1].images[0].min() == 255


@pytest.mark.parametrize("obstacle", ["disk full", "file for a folder", "folder for a file"])
def test_a_cache_that_cannot_be_written_only_warns(obstacle, tmp_path, root, monkeypatch):
    folder = write_folder(tmp_path / "pets")

    def save_half(tensors, file):
        file.write_bytes(b"half")
        raise OSError("No space left on device")

    if obstacle == "disk full":
        monkeypatch.setattr(folders, "save_file", save_half)
    elif obstacle == "file for a folder":  # DEFECT: NotADirectoryError
        root.mkdir()
        (root / "cache").touch()
    else:  # DEFECT: OSError
        load_images(folder)
        (cache,) = (root / "cache").iterdir()
        cache.unlink()
        cache.mkdir()
    with pytest.warns(UserWarning, match="cache cannot keep the decoded images"):
        train, _ = load_images(folder)
    assert torch.equal(train.images[0], as_images([np.asarray(Image.open(folder / "train/ant/a.png"))])[0])
    assert not list(root.glob("cache/*.partial"))


# Bad folders


def save(**options):
    """Put another image in a file's place."""
    size, mode = options.get("size", (32, 32)), options.get("mode", "RGB")
    return lambda file: Image.new(mode, size).save(file)


def cut_jpeg(file: Path) -> None:
    Image.fromarray(noise()[0]).save(file, "JPEG")
    file.write_bytes(file.read_bytes()[:-500])


def patch_png(offset: int, number: int):
    """Overwrite four bytes of a PNG file's header (16: width; 33: length of the pixel data)."""

    def change(file: Path) -> None:
        content = bytearray(file.read_bytes())
        content[offset : offset + 4] = struct.pack(">I", number)
        file.write_bytes(content)

    return change


@pytest.mark.parametrize(
    ("damage", "found"),
    [
        (lambda file: file.write_text("no image"), "cannot be read as an image"),
        (lambda file: file.write_bytes(b""), "cannot be read as an image"),
        (cut_jpeg, "cannot be read as an image"),
        (patch_png(8, 12), "cannot be read as an image"),  # DEFECT: ValueError that does not name the file
        (patch_png(33, 99), "cannot be read as an image"),  # DEFECT: SyntaxError
        (save(size=(64, 32)), "has 64×32 pixels in mode RGB, expected 32×32 in mode RGB"),
        (save(size=(31, 31)), "has 31×31 pixels in mode RGB, expected 32×32 in mode RGB"),
        (save(mode="I;16"), "in mode I;16, expected 32×32 in mode RGB"),
        (save(mode="L"), "in mode L, expected 32×32 in mode RGB"),
        (save(mode="RGBA"), "in mode RGBA, expected 32×32 in mode RGB"),
        (save(mode="P"), "in mode P, expected 32×32 in mode RGB"),
    ],
)
def test_bad_images_are_named(damage, found, tmp_path):
    folder = write_folder(tmp_path / "pets")
    damage(folder / "test" / "ant" / "b.png")
    with pytest.raises(ValueError) as error:
        load_images(folder)
    assert str(folder / "test" / "ant" / "b.png") in str(error.value) and found in str(error.value)


@pytest.mark.parametrize(
    ("remove", "error", "named", "expected"),
    [
        (["train", "test"], FileNotFoundError, "", "neither cifar-10-batches-py/ nor train/ and test/ with images"),
        (["test"], FileNotFoundError, "test", "expected train/ and test/ with one folder of .png, .jpg, .jpeg files"),
        (["train"], FileNotFoundError, "train", "expected train/ and test/ with one folder of"),
        (["train/ant", "train/cat"], FileNotFoundError, "train", "expected train/ and test/ with one folder of"),
        (["test/ant"], ValueError, "test", "no folder for ant, the other split has one"),
        (["train/cat"], ValueError, "train", "no folder for cat, the other split has one"),
        (["test/cat/a.png", "test/cat/b.png"], FileNotFoundError, "test", "cat"),
    ],
)
def test_incomplete_folders_are_named(remove, error, named, expected, tmp_path):
    folder = write_folder(tmp_path / "pets")
    for name in remove:
        shutil.rmtree(folder / name) if (folder / name).is_dir() else (folder / name).unlink()
    with pytest.raises(error) as raised:
        load_images(folder)
    assert str(folder / named) in str(raised.value) and expected in str(raised.value)


# Sets and batches


@pytest.fixture
def ten() -> ImageSet:
    """Ten images, labelled with their index."""
    images = as_images(noise(10))
    return ImageSet(images, torch.arange(10), tuple("abcdefghij"), "ten", *channel_statistics(images))


def test_channel_statistics_match_torch():
    images = as_images(noise(50))
    images[:, 1] //= 4
    values = images.double() / 255
    mean, std = channel_statistics(images)
    assert_close(mean, values.mean((0, 2, 3)).float(), rtol=1e-6, atol=0)
    assert_close(std, values.std((0, 2, 3), correction=0).float(), rtol=1e-6, atol=0)


@pytest.mark.parametrize("indices", [slice(2, 5), torch.tensor([2, 3, 4]), torch.arange(10).sub(3).abs() < 2])
def test_part_of_a_set(indices, ten):
    part = ten[indices]
    assert len(part) == 3 and part.labels.tolist() == [2, 3, 4]
    assert torch.equal(part.images, ten.images[2:5])
    assert (part.mean is ten.mean, part.std is ten.std, part.classes, part.name) == (True, True, ten.classes, "ten")


def test_to_moves_every_tensor(ten):
    moved = ten.to("meta")
    assert {t.device.type for t in (moved.images, moved.labels, moved.mean, moved.std)} == {"meta"}
    assert moved.classes == ten.classes and ten.images.device.type == "cpu"


def test_split(ten):
    rest, held_out = split(ten, 3, Generator().manual_seed(0))
    assert (len(rest), len(held_out)) == (7, 3)
    assert sorted([*rest.labels.tolist(), *held_out.labels.tolist()]) == list(range(10))
    assert torch.equal(held_out.images, ten.images[held_out.labels])
    drawn = [split(ten, 3, Generator().manual_seed(seed))[1].labels.tolist() for seed in (0, 1, 2)]
    assert drawn[0] == held_out.labels.tolist() and drawn[1] != drawn[0] != drawn[2]


@pytest.mark.parametrize("held_out", [-1, 0, 10, 11])
def test_split_leaves_something_in_both_parts(held_out, ten, generator):
    with pytest.raises(ValueError, match=f"held_out is {held_out}, expected 1 to 9, for 10 images"):
        split(ten, held_out, generator)


@pytest.mark.parametrize("shuffle", [False, True])
@pytest.mark.parametrize(("batch_size", "sizes"), [(4, [4, 4, 2]), (5, [5, 5]), (10, [10]), (1, [1] * 10)])
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_batches_hold_every_image_once_and_normalized(memory_format, batch_size, sizes, shuffle, ten, generator):
    ten = data.replace(ten, images=ten.images.contiguous(memory_format=memory_format))
    loader = BatchLoader(ten, batch_size, shuffle=shuffle, generator=generator)
    for _ in range(2):
        batches = list(loader)
        assert len(loader) == len(sizes) and [len(images) for images, _ in batches] == sizes
        labels = torch.cat([labels for _, labels in batches])
        assert labels.dtype == torch.int64
        assert (labels.tolist() == list(range(10))) != shuffle and sorted(labels.tolist()) == list(range(10))
        for images, part in batches:
            assert images.dtype == torch.float32 and images.is_contiguous(memory_format=torch.channels_last)
            expected = TF.normalize(ten.images[part].float() / 255, ten.mean.tolist(), ten.std.tolist())
            assert_close(images, expected, rtol=0, atol=1e-6)


def test_order_follows_the_generator(ten):
    def epochs(seed: int) -> list[list[int]]:
        loader = BatchLoader(ten, 10, shuffle=True, generator=Generator().manual_seed(seed))
        return [labels.tolist() for _ in range(2) for _, labels in loader]

    assert epochs(0) == epochs(0)
    assert epochs(0)[0] != epochs(0)[1] and epochs(0) != epochs(1)


@pytest.mark.parametrize("shuffle", [False, True])
def test_augment_sees_bytes_and_the_generator(shuffle, ten, generator):
    seen = []

    def mirror(images: Tensor, with_generator: Generator) -> Tensor:
        seen.append((images.dtype, tuple(images.shape), with_generator))
        return images.flip(3)

    for images, labels in BatchLoader(ten, 4, shuffle=shuffle, augment=mirror, generator=generator):
        expected = TF.normalize(ten.images[labels].flip(3).float() / 255, ten.mean.tolist(), ten.std.tolist())
        assert_close(images, expected, rtol=0, atol=1e-6)
    assert seen == [(torch.uint8, (n, 3, 32, 32), generator) for n in (4, 4, 2)]


# DEFECT: random_affine's batches are not channels_last
@pytest.mark.parametrize("name", ["crop", "hflip", "vflip", "cutout", "grayscale", "affine"])
def test_augmented_batches_are_channels_last(name, ten, generator):
    loader = BatchLoader(ten, 4, augment=getattr(augment, f"random_{name}"), generator=generator)
    assert all(images.is_contiguous(memory_format=torch.channels_last) for images, _ in loader)


def test_a_constant_channel_becomes_zero(ten):
    images = ten.images.clone()
    images[:, 1] = 77
    (batch, _), *_ = BatchLoader(
        data.replace(ten, images=images, mean=channel_statistics(images)[0], std=channel_statistics(images)[1]), 4
    )
    assert_close(batch[:, 1], torch.zeros(4, 32, 32), rtol=0, atol=1e-3)


@pytest.mark.parametrize("batch_size", [-1, 0, 11])
def test_impossible_batch_sizes(batch_size, ten):
    with pytest.raises(ValueError, match=f"batch_size is {batch_size}, expected 1 to 10, the number of images"):
        BatchLoader(ten, batch_size)


@pytest.mark.parametrize("options", [dict(shuffle=True), dict(augment=augment.random_hflip)])
def test_randomness_needs_a_generator(options, ten):
    with pytest.raises(ValueError, match=r"expected a torch\.Generator as generator="):
        BatchLoader(ten, 4, **options)
