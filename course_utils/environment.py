"""The versions of the packages, and what a notebook prints about where it runs."""

import builtins
import platform
import shlex
import sys
import tomllib
from importlib import metadata
from typing import Any

import matplotlib
import torch
from packaging.requirements import Requirement

from course_utils.device import Placement, hardware_name, pick_precision
from course_utils.files import repository_root


def check_versions() -> None:
    """Raise `ImportError` that names every package which is missing or older than the course is tested with."""
    if root := repository_root():
        project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]
        requirements = project["dependencies"]
    else:
        try:
            # None is what a package without requirements gives; this one has some.
            requirements = [line for line in metadata.requires("course-utils") if "extra ==" not in line]  # type: ignore[union-attr]
        except metadata.PackageNotFoundError:  # neither checkout nor package: copied into a notebook
            return
    problems = []
    for requirement in map(Requirement, requirements):
        try:
            found = metadata.version(requirement.name)
        except metadata.PackageNotFoundError:
            problems.append(f"{requirement.name} is missing, expected {requirement.specifier}")
        else:
            if not requirement.specifier.contains(found, prereleases=True):
                problems.append(f"{requirement.name} is {found}, expected {requirement.specifier}")
    if problems:
        raise ImportError(
            "; ".join(problems) + ". Install them with: pip install --upgrade " + shlex.join(requirements)
        )


def describe_environment(placement: Placement) -> dict[str, str]:
    """What a training runs on, for its record: hardware, number format, threads and versions."""
    return {
        "device": hardware_name(placement.device),
        "precision": placement.precision.name,
        "threads": str(torch.get_num_threads()),
        "torch": str(torch.__version__),  # a text, not its own class, which checkpoints do not hold
        "torchvision": metadata.version("torchvision"),
        "python": platform.python_version(),
    }


def describe_session(device: torch.device) -> None:
    """Print what the notebook runs on: versions, device, number format; in Colab also how to get a GPU."""
    check_versions()
    precision = pick_precision("auto", device)
    versions = f"Python {platform.python_version()}, torch {torch.__version__}"
    print(f"{versions} on {hardware_name(device)}, threads: {torch.get_num_threads()}")
    print(f"{precision.name}: {precision.reason}")
    if "google.colab" in sys.modules and device.type == "cpu":
        print("A GPU is ten times as fast: Runtime, Change runtime type, T4 GPU; then run all cells from the top")


def show_figures() -> None:
    """Show figures in a notebook also where the environment has MPLBACKEND=Agg, which would silently drop them."""
    shell: Any = getattr(builtins, "get_ipython", lambda: None)()
    if hasattr(shell, "kernel") and matplotlib.get_backend().lower() == "agg":
        shell.run_line_magic("matplotlib", "inline")
