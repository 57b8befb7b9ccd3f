"""Execute one notebook in a process of its own, within limits, and say what went wrong."""

import os
import re
import subprocess
import sys
from pathlib import Path

import nbformat
import yaml
from results import describe
from sources import ROOT

NOTEBOOKS, BUILD = ROOT / "notebooks", ROOT / "build"


def execute(
    notebook: Path,
    output: Path,
    parameters: dict,
    cell_seconds: int,
    seconds: int,
    *,
    folder: Path = NOTEBOOKS,
    variables: dict[str, str] | None = None,
    save_each_cell: bool = True,
) -> str | None:
    """Run a copy of `notebook` as `output`, within the two limits; returns what went wrong.

    The kernel starts in `folder`, with these `variables` besides those of this process. Without `save_each_cell` a
    notebook of hundreds of cells takes half of the time, but leaves nothing behind if its kernel dies.
    """
    command: list[str | Path] = [sys.executable, "-m", "papermill", notebook, output, "--cwd", folder, "-k", "python3"]
    command += ["--no-progress-bar", "--execution-timeout", str(cell_seconds), "-y", yaml.safe_dump(parameters)]
    command += [] if save_each_cell else ["--no-request-save-on-cell-execute"]
    environment = os.environ | (variables or {})
    if data := environment.get("COURSE_DATA"):
        environment["COURSE_DATA"] = str(Path(data).resolve())  # the notebooks run in a folder of their own
    output.unlink(missing_ok=True)  # that of an earlier run would be taken for this one's
    try:
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=seconds)
    except subprocess.TimeoutExpired:
        return f"stopped after {seconds} s, the limit for a notebook"
    if not output.exists():
        return failure_of(nbformat.v4.new_notebook(), done.stderr)
    executed = nbformat.read(output, as_version=4)
    if done.returncode:
        return failure_of(executed, done.stderr)
    # A kernel that a cell has ended counts as success for papermill: only the execution counts tell.
    code = [cell for cell in executed.cells if cell.cell_type == "code"]
    skipped = next((index for index, cell in enumerate(code) if cell.execution_count is None), None)
    if skipped is not None:
        return f"the kernel ended with {describe(code[max(0, skipped - 1)])}; what follows was not executed"
    return None


def failure_of(executed, stderr: str) -> str:
    """One line: the cell that papermill started last, and its error; papermill's own where it raised none."""
    raised = re.findall(r"^(?:\w+\.)*(\w+(?:Error|Exception|Interrupt): .+)$", stderr, re.MULTILINE)
    error = raised[-1] if raised else " ".join(stderr.split())[-300:]
    begun = [cell for cell in executed.cells if cell.metadata.get("papermill", {}).get("start_time")]
    if not begun:
        return error
    for output in begun[-1].get("outputs", []):
        if output.output_type == "error" and not error.startswith("CellTimeoutError"):
            error = f"{output.ename}: {' '.join(output.evalue.split())}"
    return f"{describe(begun[-1])}: {error}"
