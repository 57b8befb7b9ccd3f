"""The targets of the Makefile: what help lists, and which images a target takes."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
LINES = (ROOT / "Makefile").read_text(encoding="utf-8").splitlines()
pytestmark = pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")


def make(*arguments: str) -> str:
    # `make test DATASET=...` hands its wish down to every make below it.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}
    environment.pop("DATASET", None)
    done = subprocess.run(["make", *arguments], cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_make_alone_lists_the_targets_that_have_a_text():
    listed = re.findall(r"^  make ([a-z-]+) +\S", make(), re.MULTILINE)
    phony = " ".join(line.partition(":")[2] for line in LINES if line.startswith(".PHONY:")).split()
    assert ["help", *listed] == phony
    assert len([name for name in listed if not name.startswith("slow-")]) <= 12


@pytest.mark.parametrize(
    ("target", "default", "command"),
    [
        ("run", "shapes", 'tools/run.py --dataset "{}"'),
        ("reference", "cifar10", '-m course_utils.runs "data/reference" --dataset "{}"'),
    ],
)
def test_a_named_data_set_is_never_another_one(target, default, command):
    assert command.format(default) in make("-n", target)
    for name in ("shapes", "cifar10", "a folder"):
        assert command.format(name) in make("-n", target, f"DATASET={name}")


@pytest.mark.parametrize(
    ("target", "name", "variable"), [("test", "shapes", "COURSE_TEST_IMAGES"), ("render", "cifar10", "COURSE_DATA")]
)
def test_a_folder_goes_into_the_environment(target, name, variable):
    assert variable not in make("-n", target) and variable not in make("-n", target, f"DATASET={name}")
    assert f'{variable}=$(cd "a folder" && pwd)' in make("-n", target, "DATASET=a folder")


def test_neither_name_nor_folder(tmp_path):
    """What the recipe does before its command, in a Makefile of its own."""
    (tmp_path / "Makefile").write_text(
        "\n".join([*LINES, "", "show:", "\t@$(call folder,SEEN,cifar10)echo \"'$$SEEN' '$$DATASET'\"", ""])
    )
    (tmp_path / "a folder").mkdir()

    def show(name: str) -> subprocess.CompletedProcess:
        return subprocess.run(
            ["make", "-s", "show", f"DATASET={name}"], cwd=tmp_path, capture_output=True, text=True, check=False
        )

    assert show("cifar10").stdout == "'' ''\n"
    assert show("a folder").stdout == f"'{tmp_path / 'a folder'}' ''\n"
    refused = show("shapes")
    assert refused.returncode and "expected cifar10 or a folder of images" in refused.stderr and not refused.stdout
