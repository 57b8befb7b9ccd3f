"""A few runs of one network on noise."""

import shutil
from pathlib import Path

import pytest

from course_utils.runs.run import Job
from course_utils.runs.study import run_job
from course_utils.training import Recipe

JOBS = [
    Job("S8Net31k", seed=seed, batch_size=8, options=options, recipe=Recipe(epochs=epochs))
    for epochs, seed, options in ((1, 0, {}), (2, 1, {}), (2, 0, {"dropout": 0.1}))
]
JOBS.append(Job("S8Net31k", "group", batch_size=8, options={"num_groups": 2}, recipe=Recipe(epochs=1)))


@pytest.fixture(scope="session")
def recorded(noise_folder, tmp_path_factory) -> Path:
    """The results of `JOBS`; not to be changed."""
    folder = tmp_path_factory.mktemp("recorded")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("COURSE_DATA", str(noise_folder.parent))
        for job in JOBS:
            run_job(job, str(noise_folder), folder)
    return folder


@pytest.fixture
def folder(recorded, tmp_path) -> Path:
    """A copy of these results."""
    return shutil.copytree(recorded, tmp_path / "results")


@pytest.fixture(scope="session")
def jobs() -> list[Job]:
    """What was asked of the runs in `recorded`."""
    return JOBS
