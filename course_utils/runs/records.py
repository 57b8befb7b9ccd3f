"""The record of a run as a file that shows whether it was edited, and the list of all records in a folder."""

import hashlib
import json
from pathlib import Path

from course_utils.files import write_whole


def seal(record: dict) -> str:
    """SHA-256 of a record without its seal, whatever its layout in the file."""
    content = {name: value for name, value in record.items() if name != "sha256"}
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def read_record(file: Path) -> dict:
    """A run's record; `ValueError` if it is not what was written when the run ended."""
    try:
        record = json.loads(file.read_text(encoding="utf-8"))
        sealed = record["sha256"] == seal(record)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{file} is no record of a run: {error!r}") from error
    if not sealed:
        raise ValueError(f"{file} was edited: its content does not match its checksum")
    return record


def make_index(folder: Path) -> list[dict]:
    """One entry for each record in `folder`, in the order of their names, as `index.json` holds them."""
    entries = []
    for file in sorted(folder.glob("*-seed*.json")):
        record = read_record(file)
        job, scores = record["job"], {name: record[name] for name in record if name.endswith("_accuracy")}
        sha256 = record.get("weights_sha256")
        entries.append(
            {"network": job["network"], "norm": job["norm"], "seed": job["seed"], "epochs": job["recipe"]["epochs"]}
            | {"options": job["options"], "data": record["data"], "train_images": record["train_images"]}
            | scores
            | {"weights": sha256 and file.with_suffix(".safetensors").name, "history": file.name, "sha256": sha256}
        )
    return entries


def write_index(folder: Path) -> None:
    """Bring `folder/index.json` up to date."""
    lines = ",\n".join(json.dumps(entry) for entry in make_index(folder))
    write_whole(folder / "index.json", f"[\n{lines}\n]\n".encode())
