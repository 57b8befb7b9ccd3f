"""The gallery of mistakes: each entry of gallery.yaml is made in a copy of the course, and must be noticed.

`make slow-gallery` makes all of them; `make test` a few.
"""

import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from copies import copy_of_the_course

ROOT = Path(__file__).resolve().parents[2]
GALLERY = yaml.safe_load((ROOT / "tests" / "slow" / "gallery.yaml").read_text(encoding="utf-8"))


def make_mistake(entry: dict, course: Path) -> None:
    """Put `new` in place of `old`; `ValueError` where there is no `old`."""
    file = course / entry["file"]
    text = file.read_text(encoding="utf-8")
    if entry["old"] not in text:
        raise ValueError(
            f"'{entry['name']}': {entry['file']} does not have {entry['old']!r} any more, mend the gallery"
        )
    file.write_text(text.replace(entry["old"], entry["new"]), encoding="utf-8")


def look_at(course: Path, *caught_by: str) -> tuple[int, str]:
    """Exit status and output of what is to notice the mistake: tests, or `run` and what tools/run.py takes."""
    if caught_by[0].startswith("run "):
        command = [sys.executable, "tools/run.py", *shlex.split(caught_by[0])[1:]]
    else:
        command = [sys.executable, "-m", "pytest", "-x", "-rf", *caught_by]
    # The copy comes before the installed package; one thread each, as everywhere where something else computes.
    environment = {
        **os.environ,
        "PYTHONPATH": str(course),
        "OMP_NUM_THREADS": "1",
        "COLUMNS": "1000",
    }
    done = subprocess.run(command, cwd=course, env=environment, capture_output=True, text=True, timeout=400)
    return done.returncode, done.stdout + done.stderr


def check(entry: dict, folder: Path) -> None:
    """Make the mistake and see it noticed, with its message."""
    course = copy_of_the_course(folder)
    make_mistake(entry, course)
    status, text = look_at(course, entry["caught_by"])
    assert status == 1, f"'{entry['name']}' was not noticed by {entry['caught_by']}: {text[-3000:]}"
    assert entry["message"] in text, f"'{entry['name']}': expected {entry['message']!r} in {text[-3000:]}"


@pytest.mark.parametrize("entry", GALLERY, ids=lambda entry: entry["name"])
def test_mistake_is_noticed(entry, tmp_path):
    check(entry, tmp_path)


def test_unbroken_course_passes(tmp_path):
    course = copy_of_the_course(tmp_path)
    tests = sorted({entry["caught_by"] for entry in GALLERY if not entry["caught_by"].startswith("run ")})
    for caught_by in (tests, ["run "]):
        status, text = look_at(course, *caught_by)
        assert status == 0, text[-3000:]
