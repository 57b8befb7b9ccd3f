"""`Lesson`: what a notebook needs around its lesson: the images, the trainings or their records, and its own record."""

import hashlib
import inspect
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import pandas as pd
from torch import nn

from course_utils.analysis.predictions import Predictions, predict
from course_utils.checks import one_of
from course_utils.data import Augment, BatchLoader, ImageSet, load_images, split
from course_utils.device import pick_device, seed_everything
from course_utils.environment import describe_session
from course_utils.files import REFERENCE, checkpoint_file
from course_utils.networks import make_network
from course_utils.networks.layers import norm_of
from course_utils.runs.bands import compare_with_band
from course_utils.runs.reference import load_reference, reference_network
from course_utils.runs.run import Job, Run, read_record
from course_utils.training import History, Recipe, fit, minutes_to_train

SESSIONS = REFERENCE / "sessions"
MIME = "application/vnd.small-networks-course.record+json"


class Lesson:
    """One execution of a session's notebook; its last cell shows it, and the output keeps its record.

    The arguments are the notebook's parameters; `networks` are those it trains. `run`: with `"train"` it trains; with
    `"reference"` it shows the reference runs and the recorded short studies, and trains nothing; `"recorded"` is for
    `make render`: everything comes from the record of the notebook's last full run, and the networks are untrained.
    Raises `ValueError` for networks and data sets that have no record, with those that have.
    """

    def __init__(
        self,
        session: str,
        networks: list[str],
        *,
        dataset: str,
        run: str,
        epochs: int,
        batch_size: int,
        seed: int,
        train_size: int | None = None,
        checkpoints: str | None = None,
    ):
        self.mode = one_of(run, "run", ("train", "reference", "recorded"))
        self.parameters = dict(
            networks=networks, dataset=dataset, run=run, epochs=epochs, batch_size=batch_size, seed=seed
        ) | dict(train_size=train_size)
        self.epochs, self.batch_size, self.seed = epochs, batch_size, seed
        self.session, self.checkpoints = session, checkpoints
        self.runs: dict[str, Run] = {}
        self.studies: dict[str, Run] = {}
        self._recorded = {"runs": {}, "studies": {}} if run == "train" else load_lesson(session)
        known = sorted({each.job.network for each in self._recorded["runs"].values()})
        if run != "train" and (unknown := set(networks) - set(known)):
            missing = f"there is no recorded run of {', '.join(sorted(unknown))} in {session}"
            raise ValueError(f"{missing}, expected {' or '.join(known)}; with run = 'train' it is trained")
        self.device = pick_device()
        describe_session(self.device)

    def load(self) -> tuple[ImageSet, ImageSet, ImageSet]:
        """The images to train on, to validate on (a tenth, drawn by the seed) and to test on; prints how many."""
        generator = seed_everything(self.seed)
        dataset, train_size = self.parameters["dataset"], self.parameters["train_size"]
        images, test = load_images(dataset)
        known = sorted({each.data for each in self._recorded["runs"].values()})
        if self.mode != "train" and test.name not in known:
            only = f"there are recorded runs on {' and '.join(known)} alone"
            remedy = "name a folder with these images, or set run = 'train'"
            raise ValueError(f"dataset = {str(dataset)!r} is {test.name}, and {only}: {remedy}")
        if train_size is not None and not 10 <= train_size <= len(images):
            raise ValueError(f"train_size is {train_size}, expected 10 to {len(images)}, the number of images, or None")
        if train_size is not None and train_size < len(images):
            images = split(images, train_size, generator)[1]
        train, val = (part.to(self.device) for part in split(images, len(images) // 10, generator))
        self._train, self._val, self._test = train, val, test
        print(f"{train.name}: {len(train):,} images to train on, {len(val):,} to validate on, {len(test):,} to test on")
        return train, val, test

    def print_minutes(self, model: nn.Module, *, trainings: int, studies: int) -> None:
        """Print about how long all trainings and short studies take, measured with `model` on noise."""
        if self.mode == "reference":
            print("the runs below are recorded, nothing is trained")
            return
        images = trainings * self.epochs * len(self._train) + studies * self._short_epochs * len(self._part)
        if self.mode == "train":
            minutes = minutes_to_train(model.to(self.device), images, self.batch_size)
        else:
            kept = [*self._recorded["runs"].values(), *self._recorded["studies"].values()]
            minutes = sum(run.history.seconds for run in kept) / 60
        print(f"all trainings of this notebook together: about {max(1, round(minutes))} min here")

    def train(
        self,
        name: str,
        network: str,
        recipe: Recipe,
        augment: Augment,
        *,
        norm: str = "batch",
        reference_epochs: int | None = None,
    ) -> nn.Module:
        """The course network of that name and norm, trained or from its record; `runs[name]` is its run.

        `reference_epochs`: take the reference run of so many epochs, for networks that are compared at equal length.
        """
        if self.mode == "reference":
            data = self._test.name
            self.runs[name] = load_reference(network, norm, data=data, epochs=reference_epochs)
            return reference_network(self.runs[name]).to(self.device)
        generator = seed_everything(self.seed, self.device)
        model = make_network(network, norm=norm, num_classes=len(self._train.classes)).to(self.device)
        if self.mode == "recorded":
            self.runs[name] = self._recorded_run("runs", name)
            return model
        batches = BatchLoader(self._train, self.batch_size, shuffle=True, augment=augment, generator=generator)
        job = self._job(model, recipe, self.batch_size)
        seen = [job.name, batches.fingerprint, str(model), inspect.getsource(augment)]
        digest = hashlib.sha256("\n".join(seen).encode()).hexdigest()[:8]
        file = checkpoint_file(self.checkpoints, f"{self.session}-{name}-{recipe.epochs}ep-{digest}")
        history = fit(model, batches, self._val_batches, recipe, checkpoint=file)
        self.runs[name] = self._run(job, len(self._train), history)
        return model

    def study(
        self,
        name: str,
        make: Callable[[], nn.Module],
        recipe: Recipe,
        augment: Augment,
        batch_size: int | None = None,
    ) -> History:
        """A short training of `make()`: a quarter of the images, at most 10,000, for a fifth of the epochs.

        The learning rate is in proportion to the batch size. `studies[name]` is its run. With recorded runs the one of
        that name is returned, and `ValueError` raised where there is none.
        """
        if self.mode != "train":
            self.studies[name] = self._recorded_run("studies", name)
            return self.studies[name].history
        batch_size = min(batch_size or self.batch_size, len(self._part))
        generator = seed_everything(self.seed, self.device)
        model = make().to(self.device)
        batches = BatchLoader(self._part, batch_size, shuffle=True, augment=augment, generator=generator)
        short = replace(recipe, lr=recipe.lr * batch_size / self.batch_size, epochs=self._short_epochs)
        history = fit(model, batches, self._val_batches, short, verbose=False)
        self.studies[name] = self._run(self._job(model, short, batch_size), len(self._part), history)
        return history

    def test(self, models: Mapping[str, nn.Module]) -> dict[str, Predictions]:
        """What the trained networks say of the test images, by name; their runs get the accuracy."""
        batches = BatchLoader(self._test.to(self.device), min(1000, len(self._test)))
        predictions = {name: predict(model, batches) for name, model in models.items()}
        if self.mode == "train":
            for name, found in predictions.items():
                self.runs[name] = replace(self.runs[name], test_accuracy=found.accuracy)
        return predictions

    def print_bands(self) -> None:
        """Print for each run whether its test accuracy is what a run like it should reach."""
        for run in self.runs.values():
            print(compare_with_band(run))

    def table(self) -> pd.DataFrame:
        """One row per run: accuracies in per cent after the last epoch, and mean seconds per epoch."""
        rows = {}
        for name, run in self.runs.items():
            accuracies = [run.history.metrics[-1].train_accuracy, run.val_accuracy, run.test_accuracy]
            shares = [float("nan") if accuracy is None else 100 * accuracy for accuracy in accuracies]
            rows[name] = [*shares, run.history.seconds / run.epochs]
        parts = [f"{part} accuracy (%)" for part in ("train", "validation", "test")]
        return pd.DataFrame.from_dict(rows, orient="index", columns=[*parts, "seconds per epoch"])

    @property
    def histories(self) -> dict[str, History]:
        """The histories of the runs, by name."""
        return {name: run.history for name, run in self.runs.items()}

    def to_dict(self) -> dict:
        """The record: the notebook's parameters, its runs and its studies, in JSON's types."""
        runs, studies = ({name: run.to_dict() for name, run in part.items()} for part in (self.runs, self.studies))
        return {"parameters": self.parameters, "runs": runs, "studies": studies}

    def _repr_mimebundle_(self, include=None, exclude=None) -> dict:
        seconds = sum(run.history.seconds for run in [*self.runs.values(), *self.studies.values()])
        text = f"trainings: {len(self.runs)}, short studies: {len(self.studies)}, together {seconds / 60:.0f} min"
        return {"text/plain": text, MIME: self.to_dict()}

    @property
    def _part(self) -> ImageSet:
        return self._train[: min(10_000, len(self._train) // 4)]

    @property
    def _short_epochs(self) -> int:
        return max(1, self.epochs // 5)

    @property
    def _val_batches(self) -> BatchLoader:
        return BatchLoader(self._val, min(1000, len(self._val)))

    def _job(self, model: nn.Module, recipe: Recipe, batch_size: int) -> Job:
        network, held_out = type(model).__name__, len(self._val)
        return Job(network, norm_of(model), self.seed, batch_size, augment=None, held_out=held_out, recipe=recipe)

    def _run(self, job: Job, train_images: int, history: History) -> Run:
        last = history.metrics[-1] if len(history) else None
        val = dict(val_loss=last.val_loss, val_accuracy=last.val_accuracy) if last else {}
        return Run(job, self._train.name, train_images, len(self._train.classes), history, **val)

    def _recorded_run(self, part: str, name: str) -> Run:
        if name not in self._recorded[part]:
            there = ", ".join(self._recorded[part])
            raise ValueError(f"{self.session} has no recorded run {name!r}, and nothing is trained; there are: {there}")
        return self._recorded[part][name]


def load_lesson(session: str, folder: Path = SESSIONS) -> dict[str, dict[str, Run]]:
    """The `runs` and `studies` of the recorded full run of a notebook, by name; `ValueError` if there is no record."""
    if not (file := folder / f"{session}.json").is_file():
        there = ", ".join(sorted(path.stem for path in folder.glob("*.json"))) or "none"
        raise ValueError(f"no record of the session {session!r}, there are: {there}")
    record = read_record(file)
    return {part: {name: Run.from_dict(run) for name, run in record[part].items()} for part in ("runs", "studies")}
