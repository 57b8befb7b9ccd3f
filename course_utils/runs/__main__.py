"""`python -m course_utils.runs FOLDER`: run the jobs of FOLDER/jobs.yaml that have no result in FOLDER yet."""

import argparse
import os
import sys
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

from course_utils.environment import check_versions
from course_utils.files import REFERENCE
from course_utils.runs.study import read_jobs, run_study


def main() -> int:
    """Returns 1 if a job failed, else 0."""
    parser = argparse.ArgumentParser(description="Run the jobs of FOLDER/jobs.yaml that have no result in FOLDER yet.")
    parser.add_argument("folder", nargs="?", type=Path, default=REFERENCE)
    parser.add_argument("--dataset", default="cifar10", help="cifar10, shapes or a folder of images")
    parser.add_argument("--workers", type=int, default=os.cpu_count(), help="processes on this machine")
    options = parser.parse_args()
    check_versions()
    folder, jobs = options.folder.resolve(), read_jobs(options.folder / "jobs.yaml")
    dataset = str(Path(options.dataset).resolve()) if Path(options.dataset).is_dir() else options.dataset
    # New interpreters rather than copies of this one: a copy of a process with threads may hang.
    with ProcessPoolExecutor(options.workers, mp_context=get_context("spawn")) as executor:
        return 1 if run_study(jobs, dataset, folder, executor) else 0


if __name__ == "__main__":
    sys.exit(main())
