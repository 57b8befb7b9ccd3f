"""What several test modules share."""

import os
from pathlib import Path

import pytest
import torch

from course_utils.data import load_images


@pytest.fixture(scope="session", autouse=True)
def one_thread():
    """Small tensors gain nothing from threads, and two test processes side by side lose much."""
    torch.set_num_threads(1)


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
        pytest.skip("needs real images: set COURSE_TEST_IMAGES to a folder with {train,test}/<class>/*.jpg")
    return Path(folder)
