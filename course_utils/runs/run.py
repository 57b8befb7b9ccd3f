"""`Job`: what is asked of a training. `Run`: the job, the images and the result; one file format for all records."""

import hashlib
import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from course_utils.arguments import as_json, number, one_of, truth
from course_utils.files import write_whole
from course_utils.networks.layers import NORMS
from course_utils.training import History, Recipe

CROP_AND_FLIP = {"random_crop": {"padding": 4}, "random_hflip": {}}


@dataclass(frozen=True)
class Job:
    """One training: `recipe` applied to `network` with `options`, from `seed`.

    `augment`: functions of `data.augment` with their options, in order; None where a notebook's own function did it.
    `held_out`: so many training images are kept for validation; with 0 the run trains on all images and is evaluated on
    the test set, once, after its last epoch. `follow`: evaluate after every epoch too, to know when a figure is passed;
    nothing may be chosen by it. Raises `ValueError` for a value of another kind.
    """

    network: str
    norm: str = "batch"
    seed: int = 0
    batch_size: int = 128
    augment: dict[str, dict] | None = field(default_factory=lambda: CROP_AND_FLIP)
    options: dict = field(default_factory=dict)
    held_out: int = 0
    follow: bool = False
    recipe: Recipe = field(default_factory=Recipe)

    def __post_init__(self):
        one_of(self.norm, "norm", NORMS)
        for name, kinds, expected in (
            ("network", str, "a name"),
            ("augment", dict | None, "a mapping of functions to their options"),
            ("options", dict, "a mapping of options of the network"),
            ("recipe", Recipe, "a Recipe"),
        ):
            if not isinstance(getattr(self, name), kinds):
                raise ValueError(f"{name} is {getattr(self, name)!r}, expected {expected}")
        checked = {"seed": number(self.seed, "seed", 0, 2**64, whole=True), "follow": truth(self.follow, "follow")}
        checked |= {"batch_size": number(self.batch_size, "batch_size", 1, whole=True)}
        checked |= {"held_out": number(self.held_out, "held_out", 0, whole=True)}
        for name, value in (checked | {"augment": as_json(self.augment), "options": as_json(self.options)}).items():
            object.__setattr__(self, name, value)  # in JSON's types, so that a record of it gives the same job

    @property
    def name(self) -> str:
        """Unique file name: network, norm, epochs, seed and a hash of all fields that are not at their default."""
        default = asdict(Job(self.network))
        chosen = [[key, value] for key, value in asdict(self).items() if value != default[key] and key != "recipe"]
        if self.augment == default["augment"] and list(self.augment or {}) != list(default["augment"]):
            chosen.append(["augment", self.augment])  # in another order, which counts; dicts are equal all the same
        recipe, usual = asdict(self.recipe), default["recipe"]
        chosen += [[key, value] for key, value in recipe.items() if value != usual[key]]
        digest = hashlib.sha256(json.dumps(chosen).encode()).hexdigest()[:8]
        return f"{self.network}-{self.norm}-{self.recipe.epochs}ep-seed{self.seed}-{digest}"


@dataclass(frozen=True)
class Run:
    """What a training was asked for, what it saw, and what it gave.

    `data`: the name of the data set; `train_images`, `num_classes`: how many it has for training. `test_*`, `val_*`:
    mean cross-entropy (nats) and accuracy (share of 1) after the last epoch, on the test images and on held-out
    training images; None where they were not measured. `diverged`: the error of a training that ended in one.
    `weights_sha256`: the checksum of the weights, which lie beside the record as `.safetensors`; None where none were
    kept.
    """

    job: Job
    data: str
    train_images: int
    num_classes: int
    history: History
    test_loss: float | None = None
    test_accuracy: float | None = None
    val_loss: float | None = None
    val_accuracy: float | None = None
    diverged: str | None = None
    weights_sha256: str | None = None

    @property
    def epochs(self) -> int:
        """How many epochs were finished."""
        return len(self.history)

    def to_dict(self) -> dict:
        """Plain numbers, texts, lists and dicts, for JSON; the recipe stands in the job alone."""
        content = asdict(self)
        del content["history"]["recipe"]
        return content

    @classmethod
    def from_dict(cls, content: dict) -> "Run":
        """The run of which `to_dict` gave `content`; `ValueError` names what is missing or too much."""
        try:
            recipe = content["job"]["recipe"]
            job = Job(**content["job"] | {"recipe": Recipe(**recipe)})
            history = History.from_dict(content["history"] | {"recipe": recipe})
            return cls(**content | {"job": job, "history": history})
        except (KeyError, TypeError) as error:
            raise ValueError(f"this is no record of a run: {error}") from error


def checksum(record: dict) -> str:
    """SHA-256 of a record without its own checksum, whatever its layout in the file."""
    content = {name: value for name, value in record.items() if name != "record_sha256"}
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def write_record(file: Path, content: dict) -> None:
    """Write `content` with its checksum as JSON, whole or not at all; metrics as columns, which saves space."""
    record = _by_column(content | {"record_sha256": checksum(content)})
    write_whole(file, (json.dumps(record) + "\n").encode())


def _by_column(value: Any) -> Any:
    """`value` with the rows of every `metrics` in it as one list for each name."""
    if not isinstance(value, dict):
        return value
    found = {name: _by_column(part) for name, part in value.items()}
    if rows := found.get("metrics"):
        found["metrics"] = {name: [row[name] for row in rows] for name in rows[0]}
    return found


def _by_row(mapping: dict) -> dict:
    """The other way round, for one mapping."""
    if isinstance(columns := mapping.get("metrics"), dict):
        mapping["metrics"] = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
    return mapping


def read_record(file: Path) -> dict:
    """What `write_record` wrote, without the checksum; `ValueError` if it is something else or was edited since."""
    try:
        record = json.loads(file.read_text(encoding="utf-8"), object_hook=_by_row)
        whole = record.pop("record_sha256") == checksum(record)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{file} is no record of a run: {error!r}") from error
    if not whole:
        raise ValueError(f"{file} was edited: its content does not match its checksum")
    return record


def read_run(file: Path) -> Run:
    """The run that a file records; `ValueError` names a file that is no record or was edited."""
    record = read_record(file)
    try:
        return Run.from_dict(record)
    except ValueError as error:
        raise ValueError(f"{file}: {error}") from error


def load_runs(folder: Path) -> list[Run]:
    """The runs that the `.json` files of `folder` record, in the order of their names; `ValueError` as `read_run`."""
    return [read_run(file) for file in sorted(folder.glob("*.json"))]
