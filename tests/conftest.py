"""What several test modules share."""

import multiprocessing
import os
import shutil
import signal
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from course_utils.data import ImageSet, load_images


def pytest_addoption(parser):
    parser.addoption("--fault-table", type=Path, help="write what the tests marked fault(fault, how, holds) gave")


def pytest_configure(config):
    config.addinivalue_line("markers", "fault(fault, how, holds): what goes wrong, how it is made to, what must hold")
    if config.option.fault_table:
        config.pluginmanager.register(FaultTable(config.option.fault_table))


class FaultTable:
    """Collects the outcomes of the tests marked `fault`, one row for each mark."""

    def __init__(self, file: Path):
        self.file, self.outcomes = file, {}

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(self, item, call):
        report = yield
        if (mark := item.get_closest_marker("fault")) and (report.when == "call" or not report.passed):
            self.outcomes.setdefault(mark.args, []).append(report.outcome)
        return report

    def pytest_sessionfinish(self):
        rows = ["| fault | how injected | what must hold | result |", "| --- | --- | --- | --- |"]
        for mark, outcomes in self.outcomes.items():
            counts = [f"{outcomes.count(outcome)} {outcome}" for outcome in dict.fromkeys(outcomes)]
            rows.append("| " + " | ".join((*mark, ", ".join(counts))) + " |")
        head, _, _ = self.file.read_text(encoding="utf-8").partition("| fault |")
        self.file.write_text(head + "\n".join(rows) + "\n", encoding="utf-8")


@pytest.fixture(scope="session", autouse=True)
def one_thread():
    """Small tensors gain nothing from threads, and two test processes side by side lose much."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session", autouse=True)
def interrupts():
    """A shell that starts the tests in the background makes them deaf to interrupts; some of them send one."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture(scope="session")
def forked() -> multiprocessing.context.BaseContext:
    """How to start processes that have imported already what takes seconds: torch, and what stands on it."""
    from multiprocessing.forkserver import ensure_running  # not on Windows

    processes = multiprocessing.get_context("forkserver")
    processes.set_forkserver_preload(["pytest", "distributed", "course_utils.runs.study"])
    ensure_running()  # whoever names other modules later comes too late
    return processes


@pytest.fixture
def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


@pytest.fixture(scope="session")
def shapes():
    """The built-in training and test set."""
    return load_images("shapes")


@pytest.fixture(scope="session")
def real_images() -> Path:
    """The folder of real CIFAR-10 images that COURSE_TEST_IMAGES names."""
    folder = os.environ.get("COURSE_TEST_IMAGES")
    if not folder:
        pytest.skip("needs real images: set COURSE_TEST_IMAGES to a folder with {train,test}/<class>/*.png")
    return Path(folder)


@pytest.fixture(scope="session")
def photographs(real_images) -> tuple[ImageSet, ImageSet]:
    """These images, read before a test names a data folder of its own: to decode them takes half a minute."""
    return load_images(real_images)


@pytest.fixture(scope="session")
def few_photographs(real_images, tmp_path_factory) -> Path:
    """A folder with a few of them: to decode and to classify them all takes most of a short run of a notebook."""
    few = tmp_path_factory.mktemp("few")
    for part, count in (("train", 100), ("test", 50)):
        for folder in sorted(Path(real_images, part).iterdir()):
            (few / part / folder.name).mkdir(parents=True)
            for file in sorted(folder.iterdir())[:count]:
                shutil.copy(file, few / part / folder.name)
    return few


@pytest.fixture(scope="session")
def noise_folder(tmp_path_factory) -> Path:
    """A folder of two classes of noise, per class 12 images for training and 6 for testing."""
    folder, random = tmp_path_factory.mktemp("data") / "noise", np.random.default_rng(0)
    for part, count in (("train", 12), ("test", 6)):
        for name in ("ant", "cat"):
            (folder / part / name).mkdir(parents=True)
            for i in range(count):
                pixels = random.integers(0, 256, (32, 32, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(folder / part / name / f"{i:02d}.png")
    return folder
