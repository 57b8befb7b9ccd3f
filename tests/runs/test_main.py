"""The command that runs a study."""

import runpy
import shutil
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from course_utils.runs import __main__ as command
from course_utils.runs.run import Job, load_runs
from course_utils.training import Recipe


@pytest.fixture
def study(noise_folder, tmp_path) -> Path:
    """A study of one network with two batch sizes, the second over the number of images, and those beside it."""
    shutil.copytree(noise_folder, tmp_path / "noise")
    (tmp_path / "study").mkdir()
    (tmp_path / "study" / "jobs.yaml").write_text("- {network: S8Net31k, batch_size: [8, 99], epochs: 1}\n")
    return tmp_path / "study"


GOOD, BAD = (Job("S8Net31k", batch_size=size, recipe=Recipe(epochs=1)).name for size in (8, 99))
ARGUMENTS = ["study", "--dataset", "noise", "--workers", "1"]  # relative paths


def in_threads(workers, mp_context):
    return ThreadPoolExecutor(workers)


def test_command_with_a_job_that_fails(study, monkeypatch, capsys):
    """As `python -m course_utils.runs`, with a worker process."""
    for name, value in dict(COURSE_DATA=str(study.parent), OMP_NUM_THREADS="1", CUDA_VISIBLE_DEVICES="").items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(study.parent)
    monkeypatch.setattr(sys, "argv", ["runs", *ARGUMENTS])
    monkeypatch.delitem(sys.modules, command.__name__)  # as in a process of its own
    with pytest.raises(SystemExit) as ended:
        runpy.run_module("course_utils.runs", run_name="__main__")
    out = capsys.readouterr().out
    assert ended.value.code == 1
    assert f" {GOOD}: done\n" in out and f" {BAD}: FAILED, ValueError('batch_size is 99" in out
    assert [(run.job.name, run.data) for run in load_runs(study)] == [(GOOD, "noise")]


def test_command_that_ends_well(study, monkeypatch):
    (study / "jobs.yaml").write_text("- {network: S8Net31k, batch_size: 8, epochs: 1}\n")
    monkeypatch.chdir(study.parent)
    monkeypatch.setenv("COURSE_DATA", str(study.parent))
    monkeypatch.setattr(sys, "argv", ["runs", *ARGUMENTS])
    monkeypatch.setattr(command, "ProcessPoolExecutor", in_threads)
    for _ in range(2):  # the second time there is nothing left to do
        assert command.main() == 0
        assert [run.job.name for run in load_runs(study)] == [GOOD]
        (study / "jobs.yaml").write_text("[]")


@pytest.mark.parametrize(("given", "passed_on"), [("noise", "{}/noise"), ("cifar10", "cifar10")])
def test_command_hands_workers_a_folder_they_can_find(study, monkeypatch, given, passed_on):
    datasets = []
    monkeypatch.chdir(study.parent)
    monkeypatch.setattr(sys, "argv", ["runs", "study", "--dataset", given])
    monkeypatch.setattr(command, "ProcessPoolExecutor", in_threads)
    monkeypatch.setattr(command, "run_study", lambda jobs, dataset, folder, executor: datasets.append(dataset))
    assert command.main() == 0
    assert datasets == [passed_on.format(study.parent.resolve())]
