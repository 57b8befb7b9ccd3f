"""All tests with the lowest or the newest allowed version of every dependency, in a virtual environment of its own.

    python tools/versions.py lowest | newest [arguments for pytest]

Lowest: each at the lower bound that pyproject.toml names. Newest: whatever pip finds today, constraints.txt set aside.
"""

import os
import subprocess
import sys
import tomllib
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def requirements() -> list[str]:
    """What pyproject.toml asks for, to run and to test."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    named = [*project["dependencies"], *extras["notebooks"], *extras["dev"]]
    return [requirement for requirement in named if not requirement.startswith(project["name"])]


def main() -> int:
    which, *arguments = sys.argv[1:] or [""]
    if which not in ("lowest", "newest"):
        sys.exit(__doc__)
    folder = ROOT / "build" / f"venv-{which}"
    venv.create(folder, with_pip=True)
    python = folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    wanted = requirements()
    if which == "lowest":
        wanted = [requirement.replace(">=", "==") for requirement in wanted]
    install: list[str | Path] = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*install, "--upgrade", *wanted], check=True)
    subprocess.run([*install, "--no-deps", "--editable", ROOT], check=True)
    subprocess.run([python, "-m", "pip", "list", "--disable-pip-version-check"], check=True)
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.run([python, "-m", "pytest", *arguments], cwd=ROOT, env=environment).returncode


if __name__ == "__main__":
    sys.exit(main())
