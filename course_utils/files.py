"""The folders of the course, and files that are written whole or not at all."""

import importlib.util
import os
import uuid
from pathlib import Path


def repository_root() -> Path | None:
    """The folder of the repository that this package is used from; None where it was installed without one."""
    package = importlib.util.find_spec("course_utils")
    root = Path(package.origin).resolve().parents[1] if package and package.origin else None
    return root if root and (root / "pyproject.toml").is_file() else None


REFERENCE = (repository_root() or Path.cwd()) / "data" / "reference"


def data_root() -> Path:
    """The folder for data sets: `COURSE_DATA` if set, else `data/` of the checkout, else `data/` where you are."""
    if os.environ.get("COURSE_DATA"):
        return Path(os.environ["COURSE_DATA"]).expanduser().resolve()
    return (repository_root() or Path.cwd()) / "data"


def write_whole(path: Path, content: bytes) -> None:
    """Write a file so that at any moment there is the old one or the new one, also if the power fails."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.{uuid.uuid4().hex}.part")  # its own, should two write the same file
    try:
        with partial.open("xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def checkpoint_file(where: str | Path | None, name: str, drive: Path = Path("/content/drive/MyDrive")) -> Path | None:
    """The file for the checkpoints of the run `name`, for `fit`, in a folder that is there; None for no checkpoints.

    `where`: `"drive"`, a folder of Google Drive where it is mounted, and else none; a folder; or None.
    Raises `ValueError` for anything else, and for a folder that cannot be made.
    """
    if where == "drive":
        where = drive / "course" if drive.is_dir() else None
    if where is None or where == "":
        return None
    if not isinstance(where, str | Path):
        raise ValueError(f"checkpoints is {where!r}, expected 'drive', a folder or None")
    folder = Path(where).expanduser()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ValueError(f"checkpoints is {str(where)!r}, expected a folder: it cannot be made ({error})") from error
    return folder / f"{name}.checkpoint"
