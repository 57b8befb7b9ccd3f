"""What an executed notebook shows and what it ran, against what it should."""

import difflib
from copy import copy
from itertools import zip_longest
from pathlib import Path

from course_utils.runs.bands import Verdict, compare_with_band
from course_utils.runs.lesson import MIME
from course_utils.runs.run import Run, write_record

CHECKED = "nbval-check-output"


def describe(cell) -> str:
    """Which cell it is: its id, which stays when other cells come and go, and the first line of its source."""
    return f"cell '{cell.id}' ({cell.source.splitlines()[0] if cell.source else 'empty'})"


def merge_streams(outputs: list) -> list:
    """Join neighbouring pieces of printed text: how it came in pieces depends on the second."""
    merged = []
    for output in outputs:
        if merged and output.output_type == "stream" and output.get("name") == merged[-1].get("name"):
            merged[-1].text += output.text
        else:
            merged.append(copy(output))
    return merged


def shown(cell) -> str:
    """What a cell displays, as text."""
    parts = []
    for output in merge_streams(cell.outputs):
        data = output.get("data", {})
        parts.append(output.get("text") or data.get("text/plain") or "".join(output.get("traceback", [])))
    return "\n".join(parts)


def compare(committed, executed, difference: Path) -> list[str]:
    """One line for each checked cell that shows something else than what is committed; all of it goes to a file."""
    found = {cell.id: cell for cell in executed.cells}
    problems, texts = [], []
    for cell in committed.cells:
        if CHECKED not in cell.metadata.get("tags", []):
            continue
        expected, got = shown(cell).splitlines(), shown(found[cell.id]).splitlines()
        if expected != got:
            lines = zip_longest(expected, got, fillvalue="nothing more")
            first, second = next((a, b) for a, b in lines if a != b)
            problems.append(f"{describe(cell)}: expected {first!r}, found {second!r}")
            texts += difflib.unified_diff(expected, got, f"{cell.id}, committed", f"{cell.id}, executed", lineterm="")
    difference.unlink(missing_ok=True)
    if problems:
        difference.write_text("\n".join(texts) + "\n", encoding="utf-8")
    return problems


def record_in(book) -> dict:
    """The record in an executed notebook, with the seconds of each cell that took one or more, by the cell's id.

    Raises `ValueError` if no cell has left one.
    """
    seconds, record = {}, None
    for cell in book.cells:
        if (duration := cell.metadata.get("papermill", {}).get("duration") or 0) >= 1:
            seconds[cell.id] = round(duration, 1)
        for output in cell.get("outputs", []):
            record = output.get("data", {}).get(MIME, record)
    if record is None:
        raise ValueError("no cell has left a record of what was run, expected the lesson as a cell's value")
    return record | {"seconds": seconds}


def outside_bands(executed, record_file: Path) -> list[str]:
    """Keep the record of what a notebook ran; one line for each test accuracy that is not what it should be."""
    try:
        record = record_in(executed)
    except ValueError as error:
        return [str(error)]
    write_record(record_file, record)
    return [str(verdict) for verdict in verdicts(record) if verdict.place in ("above", "below")]


def verdicts(record: dict) -> list[Verdict]:
    """Each training of a record compared with its band."""
    return [compare_with_band(Run.from_dict(run)) for run in record["runs"].values()]
