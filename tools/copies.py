"""Copies of the course, to break or to compare with."""

import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sources import ROOT

NOT_COPIED = shutil.ignore_patterns(
    ".*", "__pycache__", "build", "cache", "cifar-*", "cifar10", "cifar10[!.]*", "unfinished", "*.egg-info"
)


def copy_of_the_course(folder: Path) -> Path:
    """The course as it lies in the working directory, as a new folder in `folder`."""
    return Path(shutil.copytree(ROOT, folder / "course", ignore=NOT_COPIED))


@contextmanager
def worktree(revision: str, folder: Path, root: Path = ROOT) -> Iterator[Path]:
    """The tree of a commit in `folder`, for a while."""

    def git(*arguments: str | Path, check: bool = True) -> None:
        command = ["git", "-C", root, "-c", "core.hooksPath=/dev/null", "worktree", *arguments]
        subprocess.run(command, check=check, capture_output=True, text=True)

    folder.parent.mkdir(parents=True, exist_ok=True)
    git("add", "--detach", folder, revision)
    try:
        yield folder
    finally:
        git("remove", "--force", folder, check=False)
        shutil.rmtree(folder, ignore_errors=True)
