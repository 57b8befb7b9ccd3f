"""Where images are found, how bad ones are refused, and what batches look like."""

import hashlib
import os
import pickle
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision.transforms.functional as TF
from PIL import Image
from torch import Generator, Tensor
from torch.testing import assert_close
from torchvision.datasets import CIFAR10

from course_utils.data import BatchLoader, ImageSet, augment, folders, load_images, split
from course_utils.data import loader as data
from course_utils.data.loader import CIFAR10_CLASSES, channel_statistics

BATCHES = "cifar-10-batches-py"


def noise(n: int = 1, side: int = 32) -> np.ndarray:
    return np.random.default_rng(n).integers(0, 256, (n, side, side, 3), dtype=np.uint8)


def plain(n: int, level: int) -> np.ndarray:
    return np.full((n, 32, 32, 3), level, dtype=np.uint8)


def write_folder(folder: Path, pixels=None, classes=("cat", "ant"), suffix: str = "png") -> Path:
    """Per class, three images for training and two for testing."""
    remaining = iter(noise(5 * len(classes)) if pixels is None else pixels)
    for part, stems in (("train", "cba"), ("test", "ba")):
        for name in classes:
            (folder / part / name).mkdir(parents=True)
            for stem in stems:
                Image.fromarray(next(remaining)).save(folder / part / name / f"{stem}.{suffix}")
    return folder


def write_batches(root: Path, pixels: np.ndarray, monkeypatch) -> Path:
    """The original's files with 5 of 25 images each, labelled 0 to 24; torchvision expects their checksums."""
    rows = pixels.transpose(0, 3, 1, 2).reshape(5, 5, -1)
    names = ["data_batch_1", "data_batch_2", "data_batch_3", "data_batch_4", "test_batch"]
    contents = {name: {"data": rows[i], "labels": list(range(5 * i, 5 * i + 5))} for i, name in enumerate(names)} | {
        "batches.meta": {"label_names": list(CIFAR10_CLASSES)}
    }
    (root / BATCHES).mkdir(parents=True)
    for name, content in contents.items():
        (root / BATCHES / name).write_bytes(pickle.dumps(content))
    sums = {name: hashlib.md5(pickle.dumps(content)).hexdigest() for name, content in contents.items()}
    monkeypatch.setattr(CIFAR10, "train_list", [[name, sums[name]] for name in names[:4]])
    monkeypatch.setattr(CIFAR10, "test_list", [[names[4], sums[names[4]]]])
    monkeypatch.setattr(CIFAR10, "meta", CIFAR10.meta | {"md5": sums["batches.meta"]})
    return root


def as_images(pixels) -> Tensor:
    return torch.from_numpy(np.stack(pixels)).permute(0, 3, 1, 2)


@pytest.fixture(autouse=True)
def root(monkeypatch, tmp_path) -> Path:
    """The data folder during one test; what is downloaded is faked: images of level 99."""
    monkeypatch.setenv("COURSE_DATA", str(tmp_path / "data"))
    monkeypatch.setattr(data, "fetch_cifar10", lambda root: write_batches(root, plain(25, 99), monkeypatch))
    return tmp_path / "data"


@pytest.fixture
def pets(tmp_path) -> Path:
    return write_folder(tmp_path / "pets")


@pytest.fixture
def ten() -> ImageSet:
    """Ten images, labelled with their index."""
    images = as_images(noise(10))
    return ImageSet(images, torch.arange(10), tuple("abcdefghij"), "ten", *channel_statistics(images))


def test_shapes(shapes):
    train, test = shapes
    assert (len(train), len(test), train.name, len(train.classes)) == (10_000, 2_000, "shapes", 10)
    mean, std = channel_statistics(train.images)
    for part in shapes:
        assert torch.equal(part.mean, mean) and torch.equal(part.std, std), "expected the training set's statistics"


@pytest.mark.parametrize("inside", ["", BATCHES])
def test_original_batches(inside, tmp_path, monkeypatch):
    train, test = load_images(write_batches(tmp_path, noise(25), monkeypatch) / inside)
    assert torch.equal(torch.cat([train.images, test.images]), as_images(noise(25))) and len(test) == 5
    assert torch.cat([train.labels, test.labels]).tolist() == list(range(25))
    assert (train.name, train.classes) == (test.name, test.classes) == ("CIFAR-10", CIFAR10_CLASSES)


class Bomb:
    """Leaves a folder behind when it is unpickled."""

    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("name", ["data_batch_1", "data_batch_4", "test_batch", "batches.meta"])
def test_damaged_batches_are_refused_before_they_are_unpickled(name, tmp_path, monkeypatch):
    write_batches(tmp_path, noise(25), monkeypatch)
    (tmp_path / BATCHES / name).write_bytes(pickle.dumps(Bomb(tmp_path / "exploded")))
    refused = pytest.raises(
        ValueError, match=rf"{BATCHES}: a file is missing or damaged; delete .*unpack .*cifar10'\) f"
    )
    with refused:
        load_images(tmp_path)
    assert not (tmp_path / "exploded").exists()
    (tmp_path / BATCHES / name).unlink()  # half unpacked
    with refused:
        load_images(tmp_path)


@pytest.mark.parametrize("suffix", ["png", "PNG", "jpg", "jpeg"])
def test_image_folder(suffix, tmp_path):
    folder = write_folder(tmp_path / "pets", suffix=suffix)
    (folder / "train" / "ant" / "notes.txt").touch()
    train, test = load_images(str(folder))
    for image_set, part, stems in ((train, "train", "abc"), (test, "test", "ab")):
        files = [folder / part / name / f"{stem}.{suffix}" for name in ("ant", "cat") for stem in stems]
        assert torch.equal(image_set.images, as_images([np.asarray(Image.open(file)) for file in files]))
        assert image_set.images.is_contiguous(memory_format=torch.channels_last)
        assert image_set.labels.dtype == torch.int64 and image_set.labels.tolist() == sorted([0, 1] * len(stems))
        assert (image_set.classes, image_set.name) == (("ant", "cat"), "pets")
        mean, std = channel_statistics(train.images)
        assert torch.equal(image_set.mean, mean) and torch.equal(image_set.std, std)


@pytest.mark.parametrize(("suffix", "name"), [("png", "CIFAR-10 (PNG)"), ("jpg", "CIFAR-10 (JPEG)")])
def test_a_copy_of_cifar10_is_called_one(suffix, name, tmp_path):
    assert load_images(write_folder(tmp_path, None, CIFAR10_CLASSES, suffix))[0].name == name


@pytest.mark.parametrize("name", ["CIFAR-10", "CIFAR-10 (JPEG)", "shapes"])
def test_other_images_never_bear_the_name_of_known_ones(name, tmp_path):
    assert load_images(write_folder(tmp_path / name))[0].name == f"folder {name}"
    larger = write_folder(tmp_path / "larger" / name, noise(50, 48), CIFAR10_CLASSES)
    assert load_images(larger)[0].name == f"folder {name}"


@pytest.mark.parametrize("count", [2, 3, 100])
def test_number_of_classes_is_the_folders(count, tmp_path):
    train, test = load_images(write_folder(tmp_path / "many", classes=[f"{i:02d}" for i in range(count)]))
    assert len(train.classes) == len(test.classes) == count
    assert train.labels.bincount().tolist() == [3] * count and test.labels.bincount().tolist() == [2] * count


@pytest.mark.parametrize("side", [28, 32, 48, 64])
def test_images_of_another_size_and_gray_ones(side, tmp_path):
    colours = load_images(write_folder(tmp_path / "colours", noise(10, side)))[0]
    assert colours.images.shape == (6, 3, side, side)
    for mode in ("L", "1"):
        gray = [Image.fromarray(pixels).convert(mode) for pixels in noise(10, side)]
        folder = write_folder(tmp_path / mode, map(np.asarray, gray))
        images = load_images(folder)[0].images
        expected = np.stack([255 * np.asarray(each) if mode == "1" else np.asarray(each) for each in gray])
        assert images.shape == (6, 3, side, side) and torch.equal(images, images[:, :1].expand_as(images))
        assert torch.equal(images[5, 0], torch.from_numpy(expected[0]))  # cat, c was written first


def test_real_images(photographs):
    train, test = photographs
    assert (len(train), len(test), train.name) == (50_000, 10_000, "CIFAR-10 (PNG)")
    assert train.classes == test.classes == CIFAR10_CLASSES
    assert_close(test.mean, torch.tensor([0.4914, 0.4822, 0.4465]), rtol=0, atol=5e-5)
    assert_close(test.std, torch.tensor([0.2470, 0.2435, 0.2616]), rtol=0, atol=5e-5)


OTHER = {  # folders that are not CIFAR-10: what writes them
    "other classes": lambda folder: write_folder(folder, plain(10, 1)),
    "CIFAR-100": lambda folder: write_folder(folder, classes=[*CIFAR10_CLASSES, "apple"]),
    "larger images": lambda folder: write_folder(folder, noise(50, 48), CIFAR10_CLASSES),
    "a lonely test folder": lambda folder: (folder / "test").mkdir(parents=True),
    "an empty folder": lambda folder: folder.mkdir(parents=True),
    "a file": lambda folder: (folder.parent.mkdir(parents=True, exist_ok=True), folder.touch()),
}


@pytest.mark.parametrize(
    ("places", "expected"),
    [
        (["", "cifar10"], 0),
        (["cifar10-b", "cifar10-a"], 1),
        (["other", "pets/cifar10", "cifar10"], 2),
        (["cifar10-b", f"cifar10-a/{BATCHES}"], 1),
        (["", BATCHES], 1),
        (["cifar10", BATCHES], 1),
        ([f"cifar-10-python/{BATCHES}"], 0),  # as Windows unpacks the archive
        ([f"{BATCHES}/{BATCHES}"], 0),  # unpacked into a folder of its name
        (["cifar-10-images"], 0),
        (["other", "pets/cifar10"], 99),
        ([], 99),
    ],
)
def test_where_cifar10_is_searched(places, expected, root, monkeypatch):
    for level, place in enumerate(places):
        if place.endswith(BATCHES):
            write_batches((root / place).parent, plain(25, level), monkeypatch)
        else:
            write_folder(root / place, plain(50, level), CIFAR10_CLASSES)
    root.mkdir(exist_ok=True)
    (root / "cifar10-0.tar.xz").touch()
    assert load_images("cifar10")[0].images.unique().tolist() == [expected]


@pytest.mark.parametrize("place", ["", "cifar10", "cifar10-a", "cifar100"])
@pytest.mark.parametrize("other", OTHER)
def test_cifar10_is_no_other_images(other, place, root):
    if not (place == "" and other == "a file"):
        OTHER[other](root / place)
    assert load_images("cifar10")[0].images.unique().tolist() == [99]  # downloaded
    shutil.rmtree(root / BATCHES)
    write_folder(root / "cifar10-jpeg", plain(50, 7), CIFAR10_CLASSES)
    assert load_images("cifar10")[0].images.unique().tolist() == [7]


@pytest.mark.parametrize("kept", [None, 0.5, 0])
def test_images_are_decoded_once(kept, pets, root, monkeypatch):
    images = load_images(pets)[0].images
    (cache,) = (root / "cache").iterdir()
    if kept is not None:  # cut short: made anew
        cache.write_bytes(cache.read_bytes()[: int(kept * cache.stat().st_size)])
        assert torch.equal(load_images(pets)[0].images, images)
    monkeypatch.delattr(folders, "_decode")
    assert torch.equal(load_images(pets)[0].images, images)


@pytest.mark.parametrize("change", ["time", "size", "name"])
def test_a_changed_file_is_noticed(change, pets):
    file = pets / "test" / "ant" / "a.png"
    Image.fromarray(noise()[0]).save(file, compress_level=0)  # without compression every image has the same size
    before = file.stat()
    load_images(pets)
    Image.fromarray(plain(1, 255)[0]).save(file, compress_level=9 if change == "size" else 0)
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns + (change == "time") * 10**9))
    if change == "name":
        file = file.rename(file.with_stem("aa"))
    assert (file.stat().st_size == before.st_size) == (change != "size")
    assert load_images(pets)[1].images[0].min() == 255


@pytest.mark.parametrize("obstacle", ["full disk", "file for a folder", "folder for a file"])
def test_a_useless_cache_only_warns(obstacle, pets, root, monkeypatch):
    def no_space(file):
        raise OSError("No space left on device")

    images = load_images(pets)[0].images
    (cache,) = (root / "cache").iterdir()
    cache.unlink()
    if obstacle == "full disk":
        monkeypatch.setattr(os, "fsync", no_space)
    elif obstacle == "file for a folder":
        cache.parent.rmdir()
        cache.parent.touch()
    else:
        cache.mkdir()
    with pytest.warns(UserWarning, match="cache cannot keep the decoded images"):
        assert torch.equal(load_images(pets)[0].images, images)
    assert not list(root.glob("cache/*.part"))


def remove(path: Path) -> None:
    shutil.rmtree(path) if path.is_dir() else path.unlink()


def save(size=(32, 32), mode: str = "RGB"):
    return lambda file: Image.new(mode, size).save(file)


def patch(offset: int, number: int):
    """Overwrite a number in a PNG file (8: length of the header; 33: length of the pixel data)."""

    def change(file: Path) -> None:
        content = file.read_bytes()
        file.write_bytes(content[:offset] + number.to_bytes(4, "big") + content[offset + 4 :])

    return change


def link_back(to: str):
    return lambda file: (file.parent / "loop").symlink_to(to, target_is_directory=True)


def link_to_itself(file: Path) -> None:
    file.unlink()
    file.symlink_to(file.name)


def cut_jpeg(file: Path) -> None:
    Image.fromarray(noise()[0]).save(file, "JPEG")
    file.write_bytes(file.read_bytes()[:-500])


SAME = "expected a square PNG or JPEG in mode RGB or L (gray) of 32×32 pixels, as the first image has"
EXPECTED = "expected train/ and test/ with one folder of .png, .jpg, .jpeg files per class in each"
FILE = "test/ant/b.png"
FAULTS = {  # what students' folders hold: how it comes there, the file that is named, what is said of it
    "a text file named .png": (lambda file: file.write_text("no image"), FILE, "cannot be read as an image"),
    "a truncated image": (cut_jpeg, FILE, "cannot be read as an image"),
    "a 16-bit image": (save(mode="I;16"), FILE, f"in mode I;16, {SAME}"),
    "a link to a folder above": (link_back(".."), "test/ant/loop", "is a link that leads back to"),
    "a link to a folder higher up": (link_back("../../../.."), "test/ant/loop", "is a link that leads back to"),
    "a link to the folder itself": (link_back("."), "test/ant/loop", "is a link that leads back to"),
    "a link to itself": (link_to_itself, FILE, "cannot be read"),
}


def fault(name: str):
    damage, named, message = FAULTS[name]
    mark = pytest.mark.fault(name, "image folder that holds it", "refused with the name of the file")
    return pytest.param(FILE, damage, ValueError, named, message, marks=mark)


@pytest.mark.parametrize(
    ("damaged", "damage", "error", "named", "message"),
    [
        ("*", remove, FileNotFoundError, "", f"neither {BATCHES}/ nor train/ and test/ with images in it"),
        ("test", remove, FileNotFoundError, "test", EXPECTED),
        ("train", remove, FileNotFoundError, "train", EXPECTED),
        ("train/*", remove, FileNotFoundError, "train", EXPECTED),
        ("test/ant", remove, ValueError, "test", "no folder for ant, the other split has one"),
        ("train/cat", remove, ValueError, "train", "no folder for cat, the other split has one"),
        ("test/cat/*", remove, FileNotFoundError, "test", "no images of cat;"),
        ("*/cat", remove, ValueError, "train", "one class, ant, expected at least 2"),
        ("test/cat/*", remove, FileNotFoundError, "test", EXPECTED),
        (FILE, patch(8, 12), ValueError, FILE, "cannot be read as an image"),
        (FILE, patch(33, 99), ValueError, FILE, "cannot be read as an image"),
        (FILE, save(size=(64, 32)), ValueError, FILE, f"has 64×32 pixels in mode RGB, {SAME}"),
        (FILE, save(size=(31, 31)), ValueError, FILE, f"has 31×31 pixels in mode RGB, {SAME}"),
        (
            "*/*/*",
            save(size=(64, 32)),
            ValueError,
            "train/ant/a.png",
            "64×32 pixels in mode RGB, expected a square PNG",
        ),
        *map(fault, FAULTS),
        *((FILE, save(mode=mode), ValueError, FILE, f"in mode {mode}, {SAME}") for mode in ("RGBA", "P", "LA")),
    ],
)
def test_bad_folders_are_named(damaged, damage, error, named, message, pets):
    for path in sorted(pets.glob(damaged)):
        damage(path)
    with pytest.raises(error) as raised:
        load_images(pets)
    assert str(pets / named) in str(raised.value) and message in str(raised.value)


def test_huge_images_are_named(pets, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 2000)  # Pillow refuses to open images of twice as many
    save(size=(64, 64))(pets / FILE)
    with pytest.raises(ValueError, match=r"b\.png cannot be read as an image"):
        load_images(pets)


def test_what_is_hidden_does_not_count(pets):
    before = load_images(pets)
    copies = [(pets / "train" / "ant" / name, pets / "train" / name) for name in (".ipynb_checkpoints", "__MACOSX")]
    for inside, beside in copies:
        shutil.copytree(pets / "test" / "ant", inside)
        shutil.copytree(pets / "test" / "ant", beside)
    (pets / "test" / ".ipynb_checkpoints").mkdir()
    (pets / "test" / "cat" / "._a.png").write_bytes(b"resource fork")
    (pets / "test" / "cat" / "Thumbs.db").touch()
    for part, expected in zip(load_images(pets), before, strict=True):
        assert part.classes == ("ant", "cat") and torch.equal(part.images, expected.images)


def test_linked_images_count_like_others(pets, tmp_path):
    before = load_images(pets)[1].images
    (tmp_path / "linked" / "test").mkdir(parents=True)
    (tmp_path / "linked" / "train").symlink_to(pets / "train", target_is_directory=True)
    (tmp_path / "linked" / "test" / "ant").symlink_to(pets / "test" / "ant", target_is_directory=True)
    (tmp_path / "linked" / "test" / "cat" / "deep").mkdir(parents=True)
    (tmp_path / "linked" / "test" / "cat" / "deep" / "a.png").symlink_to(pets / "test" / "cat" / "a.png")
    (tmp_path / "linked" / "test" / "cat" / "deep" / "b.png").hardlink_to(pets / "test" / "cat" / "b.png")
    (tmp_path / "linked" / "test" / "cat" / "deep" / "c.png").hardlink_to(pets / "test" / "cat" / "b.png")
    images = load_images(tmp_path / "linked")[1].images
    assert torch.equal(images[:4], before) and torch.equal(images[4], before[3])


@pytest.mark.parametrize("dataset", ["cifar11", "", None, 5, True, ["shapes"]])
def test_unknown_data_set(dataset):
    message = f"unknown data set {dataset!r}, expected 'cifar10', 'shapes' or an existing folder"
    with pytest.raises(ValueError, match=re.escape(message)):
        load_images(dataset)


def test_channel_statistics_match_torch():
    images = as_images(noise(50))
    images[:, 1] //= 4
    mean, std = channel_statistics(images)
    values = images.double() / 255
    assert_close(mean, values.mean((0, 2, 3)).float(), rtol=1e-6, atol=0)
    assert_close(std, values.std((0, 2, 3), correction=0).float(), rtol=1e-6, atol=0)


@pytest.mark.parametrize("indices", [slice(2, 5), torch.tensor([2, 3, 4]), torch.arange(10).sub(3).abs() < 2])
def test_part_of_a_set(indices, ten):
    part = ten[indices]
    assert len(part) == 3 and part.labels.tolist() == [2, 3, 4] and torch.equal(part.images, ten.images[2:5])
    assert (part.mean is ten.mean, part.std is ten.std, part.classes, part.name) == (True, True, ten.classes, "ten")
    moved = part.to("meta")
    assert {t.device.type for t in (moved.images, moved.labels, moved.mean, moved.std)} == {"meta"}


def test_split(ten):
    drawn = [split(ten, 3, Generator().manual_seed(seed)) for seed in (0, 0, 1, 2)]
    for rest, held_out in drawn:
        assert not set(rest.labels.tolist()) & set(held_out.labels.tolist()), (
            "images that are held out stay in the rest"
        )
        assert len(rest) + len(held_out) == 10 and len(held_out) == 3
        assert torch.equal(held_out.images, ten.images[held_out.labels])
    first, again, *others = (held_out.labels.tolist() for _, held_out in drawn)
    assert first == again and first not in others
    for held_out in (-1, 0, 10, 11, 2.5):
        with pytest.raises(ValueError, match=f"held_out is {held_out}, expected a whole number from 1 to 9, for 10 im"):
            split(ten, held_out, Generator())


@pytest.mark.parametrize("shuffle", [False, True])
@pytest.mark.parametrize(("batch_size", "sizes"), [(4, [4, 4, 2]), (5, [5, 5]), (10, [10]), (1, [1] * 10)])
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_batches_hold_every_image_once_and_normalized(memory_format, batch_size, sizes, shuffle, ten, generator):
    ten = data.replace(ten, images=ten.images.contiguous(memory_format=memory_format))
    loader = BatchLoader(ten, batch_size, shuffle=shuffle, generator=generator)
    for batches in (list(loader), list(loader)):
        assert len(loader) == len(sizes) and [len(images) for images, _ in batches] == sizes
        labels = torch.cat([labels for _, labels in batches]).tolist()
        assert sorted(labels) == list(range(10))
        assert (labels != list(range(10))) == shuffle, f"the labels come as {labels}"
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
    def mirror(images: Tensor, with_generator: Generator) -> Tensor:
        seen.append((images.dtype, tuple(images.shape), with_generator))
        return images.flip(3)

    seen = []
    for images, labels in BatchLoader(ten, 4, shuffle=shuffle, augment=mirror, generator=generator):
        expected = TF.normalize(ten.images[labels].flip(3).float() / 255, ten.mean.tolist(), ten.std.tolist())
        assert_close(images, expected, rtol=0, atol=1e-6)
    assert seen == [(torch.uint8, (n, 3, 32, 32), generator) for n in (4, 4, 2)]


def test_augmentation_may_change_the_size(ten, generator):
    (images, labels), *_ = BatchLoader(ten, 4, augment=lambda images, _: images[:, :, 4:, 8:], generator=generator)
    expected = TF.normalize(ten.images[labels][:, :, 4:, 8:].float() / 255, ten.mean.tolist(), ten.std.tolist())
    assert_close(images, expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", ["crop", "hflip", "vflip", "cutout", "grayscale", "affine"])
def test_augmented_batches_are_channels_last(name, ten, generator):
    loader = BatchLoader(ten, 4, augment=getattr(augment, f"random_{name}"), generator=generator)
    assert all(images.is_contiguous(memory_format=torch.channels_last) for images, _ in loader)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        *(
            (dict(batch_size=size), f"batch_size is {size!r}, expected a whole number from 1 to 10, the number of imag")
            for size in (0, -4, 11, 2.5, "4", True, None)
        ),
        (dict(batch_size=4, shuffle=True), r"expected a torch\.Generator as generator="),
        (dict(batch_size=4, augment=augment.random_hflip), r"expected a torch\.Generator as generator="),
        (dict(batch_size=4, shuffle=True, generator=0), r"expected a torch\.Generator as generator="),
    ],
)
def test_impossible_loaders_are_refused(options, message, ten):
    with pytest.raises(ValueError, match=message):
        BatchLoader(ten, **options)


def test_augmenting_in_place_leaves_the_set_alone(ten, generator):
    before = ten.images.clone()
    for shuffle in (False, True):
        for _ in BatchLoader(ten, 4, shuffle=shuffle, augment=lambda x, g: x.zero_(), generator=generator):
            pass
        assert torch.equal(ten.images, before)


@pytest.mark.parametrize("shuffle", [False, True])
@pytest.mark.parametrize(("batch_size", "sizes"), [(np.int64(4), [4, 4]), (5, [5, 5]), (10, [10]), (1, [1] * 10)])
def test_last_batch_can_be_left_out(batch_size, sizes, shuffle, ten, generator):
    loader = BatchLoader(ten, batch_size, shuffle=shuffle, generator=generator, drop_last=True)
    expected = torch.utils.data.DataLoader(range(10), int(batch_size), drop_last=True)
    assert len(loader) == len(expected) and [len(labels) for _, labels in loader] == sizes
    other = BatchLoader(ten, batch_size, shuffle=shuffle, generator=generator)
    assert loader.fingerprint != other.fingerprint


@pytest.mark.parametrize(
    ("change", "found"),
    [
        (lambda images: images / 255, r"torch.float32 of shape (4, 3, 32, 32) on cpu"),
        (lambda images: images.long(), r"torch.int64 of shape (4, 3, 32, 32) on cpu"),
        (lambda images: images[:2], r"torch.uint8 of shape (2, 3, 32, 32) on cpu"),
        (lambda images: images[:, :1], r"torch.uint8 of shape (4, 1, 32, 32) on cpu"),
        (lambda images: images.flatten(1), r"torch.uint8 of shape (4, 3072) on cpu"),
        (lambda images: images.to("meta"), r"torch.uint8 of shape (4, 3, 32, 32) on meta"),
        (lambda images: images.numpy(), "ndarray"),
        (lambda images: (images, None), "tuple"),
        (lambda images: None, "NoneType"),
    ],
)
def test_augmentation_that_returns_something_else(change, found, ten, generator):
    def policy(images, generator):
        return change(images)

    expected = f"what augment = policy returns: {found}, expected torch.uint8 in 0…255 of shape 4×3×H×W on cpu"
    with pytest.raises(ValueError, match=re.escape(expected)):
        next(iter(BatchLoader(ten, 4, augment=policy, generator=generator)))


@pytest.mark.parametrize("change", [lambda images: images / 255, lambda images: images[:, 0], lambda images: [images]])
def test_sets_of_other_images_are_refused(change, ten):
    with pytest.raises(ValueError, match=r"^images: .*expected torch\.uint8 in 0…255 of shape N×3×H×W"):
        data.replace(ten, images=change(ten.images))


@pytest.mark.parametrize(
    "change", [lambda labels: labels[:4], lambda labels: labels.int(), lambda labels: labels[None]]
)
def test_sets_with_other_labels_are_refused(change, ten):
    with pytest.raises(ValueError, match=r"labels are torch.*expected torch\.int64, one for each of 10 images"):
        data.replace(ten, labels=change(ten.labels))
