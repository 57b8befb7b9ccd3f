"""What a notebook ran: a record that its output keeps, that checks read and that `run = "reference"` loads."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from course_utils.runs.records import read_record
from course_utils.runs.reference import REFERENCE
from course_utils.training import History

SESSIONS = REFERENCE / "sessions"


MIME = "application/vnd.small-networks-course.record+json"


@dataclass(frozen=True)
class SessionRecord:
    """The last value of a notebook: shown as a line of text, and kept with the output as JSON.

    `parameters`: the notebook's. `runs`: for each training what `compare_with_band` asks for, its `test_accuracy` in
    per cent and its `history`. `studies`: the histories of the short ones.
    """

    parameters: Mapping
    runs: Mapping[str, Mapping]
    studies: Mapping[str, History]

    def as_json(self) -> dict:
        """The record in JSON's types; `TypeError` for what they cannot hold."""
        return json.loads(json.dumps(asdict(self)))

    def _repr_mimebundle_(self, include=None, exclude=None) -> dict:
        histories = [run["history"] for run in self.runs.values()] + list(self.studies.values())
        seconds = sum(metrics.seconds for history in histories for metrics in history.epochs)
        text = f"trainings: {len(self.runs)}, short studies: {len(self.studies)}, together {seconds / 60:.0f} min"
        return {"text/plain": text, MIME: self.as_json()}


def load_studies(session: str, *, folder: Path = SESSIONS) -> dict[str, History]:
    """The short studies of the recorded run of a notebook, by name. Raises `ValueError` if there is no such record."""
    if not (file := folder / f"{session}.json").is_file():
        there = ", ".join(sorted(path.stem for path in folder.glob("*.json"))) or "none"
        raise ValueError(f"no record of the session {session!r}, there are: {there}")
    studies = read_record(file)["studies"]
    return {name: History.from_json(json.dumps(history)) for name, history in studies.items()}
