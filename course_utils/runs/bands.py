"""Which test accuracy a run should reach, and what was published for its network."""

from dataclasses import dataclass
from pathlib import Path

import yaml

from course_utils.files import REFERENCE
from course_utils.runs.run import Run


@dataclass(frozen=True)
class Verdict:
    """`place`: "inside", "above", "below" or "no band"; `text`: one line with accuracy, band and its reason."""

    place: str
    text: str

    def __str__(self) -> str:
        return self.text


def read_bands(folder: Path = REFERENCE) -> list[dict]:
    """The entries of `bands.yaml`: `run` (for which runs), `band` (lowest and highest share of 1) and `why`."""
    return _list_in(folder / "bands.yaml")


def read_published(folder: Path = REFERENCE) -> list[dict]:
    """The entries of `published.yaml`: `network`, `norm` and `published`, a share of 1 or a text."""
    return _list_in(folder / "published.yaml")


def _list_in(file: Path) -> list[dict]:
    # Without a checkout the repository's data are not at hand.
    return yaml.safe_load(file.read_text(encoding="utf-8")) if file.is_file() else []


def compare_with_band(run: Run, folder: Path = REFERENCE) -> Verdict:
    """Is the test accuracy of `run` what a run like it should reach?

    A band holds for its network, norm, data set, epochs, batch size and number of training images, and for no other.
    Raises `ValueError` for a run without a test accuracy.
    """
    if run.test_accuracy is None:
        raise ValueError(f"{run.job.name} has no test accuracy, expected a run that was evaluated on the test images")
    facts = {"network": run.job.network, "norm": run.job.norm, "data": run.data, "epochs": run.epochs}
    facts |= {"batch_size": run.job.batch_size, "train_images": run.train_images}

    def differing(entry: dict) -> list[str]:
        """The facts in which `run` is not as the entry says; a list there means any of its values."""
        accepted = {name: value if isinstance(value, list) else [value] for name, value in entry["run"].items()}
        return [name for name, values in accepted.items() if facts[name] not in values]

    subject = f"{run.job.network} with {run.job.norm} norm: test accuracy {100 * run.test_accuracy:.1f} %"
    bands = [entry for entry in read_bands(folder) if not {"network", "norm"} & set(differing(entry))]
    if not bands:
        return Verdict("no band", f"{subject}; no band is known for this network")
    nearest = min(bands, key=lambda entry: len(differing(entry)))
    low, high = nearest["band"]
    band = f"{100 * low:.3g} to {100 * high:.3g} %"
    if names := differing(nearest):
        others = ", ".join(f"{name} {nearest['run'][name]} (here {facts[name]})" for name in names)
        return Verdict("no band", f"{subject}; no band for this run, but {band} for {others}")
    place = "above" if run.test_accuracy > high else "below" if run.test_accuracy < low else "inside"
    return Verdict(place, f"{subject} is {place} the band of {band} ({nearest['why']})")
