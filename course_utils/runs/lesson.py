"""`Lesson`: what a notebook needs around its lesson: the images, the trainings or their records, and its own record."""

from collections.abc import Callable, Mapping
from dataclasses import KW_ONLY, dataclass, field, replace

import pandas as pd
from torch import nn

from course_utils.analysis.predictions import Predictions, predict
from course_utils.arguments import number, one_of
from course_utils.data import Augment, BatchLoader, ImageSet, load_images, split
from course_utils.device import pick_device, seed_everything
from course_utils.digest import digest
from course_utils.environment import describe_session, show_figures
from course_utils.files import checkpoint_file
from course_utils.networks import make_for, make_network
from course_utils.networks.layers import norm_of
from course_utils.runs.bands import compare_with_band
from course_utils.runs.lesson_checks import check_data, check_images, check_networks, check_recorded
from course_utils.runs.reference import accuracy_table, load_lesson, load_reference, reference_network
from course_utils.runs.run import Job, Run
from course_utils.training import History, Recipe, fit, minutes_to_train

MIME = "application/vnd.small-networks-course.record+json"


@dataclass
class Lesson:
    """One execution of a session's notebook; its last cell shows it, and the output keeps its record.

    `networks` are those that the notebook trains, and `also` those of its short studies; it divides their channels into
    at most `most_groups` groups. The other fields are its parameters. `run`: `"train"` trains; `"reference"` shows the
    reference runs and recorded studies, and trains nothing; `"recorded"`, for `make render`, shows the last full run,
    with untrained networks. Raises `ValueError` for networks and data sets that have no record, with those that have.
    """

    session: str
    networks: list[str]
    _: KW_ONLY
    dataset: str
    run: str
    epochs: int
    batch_size: int
    seed: int
    train_size: int | None = None
    checkpoints: str | None = None
    also: tuple[str, ...] = ()
    most_groups: int = 1
    runs: dict[str, Run] = field(default_factory=dict, init=False)
    studies: dict[str, Run] = field(default_factory=dict, init=False)

    def __post_init__(self):
        one_of(self.run, "run", ("train", "reference", "recorded"))
        self.epochs = number(self.epochs, "epochs", 1, whole=True)
        self.batch_size = number(self.batch_size, "batch_size", 1, whole=True)
        self.seed = number(self.seed, "seed", 0, 2**63, whole=True)
        check_networks(self.session, self.networks, self.most_groups)
        self._recorded = {"runs": {}, "studies": {}} if self.run == "train" else load_lesson(self.session)
        recorded = list(self._recorded["runs"].values())
        if self.run != "train":
            check_recorded(self.session, self.networks, {run.job.network for run in recorded})
        if self.run == "reference":  # which may have seen other images than the last full run of the notebook
            recorded = [load_reference(name) for name in self.networks]
        self._data = recorded[0].data if recorded else None
        self._short_epochs, self.device = max(1, self.epochs // 2), pick_device()
        describe_session(self.device)
        show_figures()
        checkpoint_file(self.checkpoints if self.run == "train" else None, self.session)  # refuses what is no folder

    def load(self) -> tuple[ImageSet, ImageSet, ImageSet]:
        """The images to train on, to validate on (a tenth, drawn by the seed) and to test on; prints how many."""
        generator = seed_everything(self.seed)
        images, test = load_images(self.dataset)
        check_data(self.dataset, test.name, self._data or test.name)
        size = number(len(images), f"the number of training images in {images.name}", 10)
        if self.train_size is not None:
            self.train_size = number(self.train_size, "train_size", 10, size + 1, whole=True, note=", or None for all")
            images = images if self.train_size == size else split(images, self.train_size, generator)[1]
        train, val = (part.to(self.device) for part in split(images, len(images) // 10, generator))
        if self.run == "train":
            check_images([*self.networks, *self.also], train.images, self.batch_size)
        self._train, self._test = train, test
        self._part = train[: min(10_000, len(train) // 4)]  # for the short studies
        self._val_batches = BatchLoader(val, min(1000, len(val)))
        print(f"{train.name}: {len(train):,} images to train on, {len(val):,} to validate on, {len(test):,} to test on")
        return train, val, test

    def print_minutes(self, model: nn.Module, *, trainings: int, studies: int) -> None:
        """Print about how long all trainings and short studies take, measured with `model` on noise."""
        minutes = sum(run.history.seconds for part in self._recorded.values() for run in part.values()) / 60
        if self.run == "train":
            images = trainings * self.epochs * len(self._train) + studies * self._short_epochs * len(self._part)
            minutes = minutes_to_train(model.to(self.device), images, self.batch_size)
        about = f"all trainings of this notebook together: about {max(1, round(minutes))} min here"
        print(about if self.run != "reference" else "the runs below are recorded, nothing is trained")

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
        if self.run == "reference":
            self.runs[name] = load_reference(network, norm, data=self._data, epochs=reference_epochs)
            return reference_network(self.runs[name]).to(self.device)
        generator = seed_everything(self.seed, self.device)
        model = make_network(network, norm=norm, num_classes=len(self._train.classes)).to(self.device)
        if self.run == "recorded":
            self.runs[name] = self._recorded_run("runs", name)
            return model
        batches = BatchLoader(self._train, self.batch_size, shuffle=True, augment=augment, generator=generator)
        job = self._job(model, recipe, self.batch_size)
        code = digest(job.name, batches.fingerprint, model, augment)
        file = checkpoint_file(self.checkpoints, f"{self.session}-{name}-{recipe.epochs}ep-{code}")
        history = fit(model, batches, self._val_batches, recipe, checkpoint=file)
        self.runs[name] = self._run(job, len(self._train), history)
        return model

    def study(
        self, name: str, make: Callable[..., nn.Module], recipe: Recipe, augment: Augment, batch_size: int | None = None
    ) -> History:
        """A short training of `make()`: a quarter of the images, at most 10,000, for half of the epochs.

        `make` is given the `num_classes` of the images where it takes that. The learning rate is in proportion to the
        batch size. A training that diverges says so and returns a history without epochs; one that is interrupted is no
        result, and ends the cell. `studies[name]` is its run, or the recorded one (`ValueError` if there is none).
        """
        generator = seed_everything(self.seed, self.device)
        # Also where it is not trained: what later cells draw does not depend on `run`.
        model = make_for(make, len(self._train.classes)).to(self.device)
        if self.run != "train":
            self.studies[name] = self._recorded_run("studies", name)
            return self.studies[name].history
        batch_size = min(batch_size or self.batch_size, len(self._part))
        batches = BatchLoader(self._part, batch_size, shuffle=True, augment=augment, generator=generator)
        short = replace(recipe, lr=recipe.lr * batch_size / self.batch_size, epochs=self._short_epochs)
        job, diverged = self._job(model, short, batch_size), None
        try:
            history = fit(model, batches, self._val_batches, short, verbose=False)
        except FloatingPointError as error:  # that a learning rate is too large is a result
            history, diverged = History(short), str(error)
            print(f"{name}: {diverged}")
        if len(history) < history.recipe.epochs and not diverged:
            raise KeyboardInterrupt(f"{name}: interrupted")
        self.studies[name] = replace(self._run(job, len(self._part), history), diverged=diverged)
        return history

    def test(self, models: Mapping[str, nn.Module]) -> dict[str, Predictions]:
        """What the trained networks say of the test images, by name; their runs get the accuracy."""
        batches = BatchLoader(self._test.to(self.device), min(1000, len(self._test)))
        predictions = {name: predict(model, batches) for name, model in models.items()}
        for name, found in predictions.items() if self.run == "train" else ():
            self.runs[name] = replace(self.runs[name], test_accuracy=found.accuracy)
        return predictions

    def print_bands(self) -> None:
        """Print for each run whether its test accuracy is what a run like it should reach."""
        for run in self.runs.values():
            print(compare_with_band(run))

    def table(self) -> pd.DataFrame:
        """One row per run: accuracies in per cent after the last epoch, and mean seconds per epoch."""
        return accuracy_table(self.runs)

    @property
    def histories(self) -> dict[str, History]:
        """The histories of the runs, by name."""
        return {name: run.history for name, run in self.runs.items()}

    def to_dict(self) -> dict:
        """The record: the notebook's parameters, its runs and its studies, in JSON's types."""
        runs, studies = ({name: run.to_dict() for name, run in part.items()} for part in (self.runs, self.studies))
        names = ("networks", "dataset", "run", "epochs", "batch_size", "seed", "train_size")
        parameters = {name: getattr(self, name) for name in names} | {"dataset": str(self.dataset)}
        return {"parameters": parameters, "runs": runs, "studies": studies}

    def _repr_mimebundle_(self, include=None, exclude=None) -> dict:
        seconds = sum(run.history.seconds for run in [*self.runs.values(), *self.studies.values()])
        text = f"trainings: {len(self.runs)}, short studies: {len(self.studies)}, together {seconds / 60:.0f} min"
        return {"text/plain": text, MIME: self.to_dict()}

    def _job(self, model: nn.Module, recipe: Recipe, batch_size: int) -> Job:
        network, held_out = type(model).__name__, len(self._val_batches.image_set)
        return Job(network, norm_of(model), self.seed, batch_size, augment=None, held_out=held_out, recipe=recipe)

    def _run(self, job: Job, train_images: int, history: History) -> Run:
        last = history.metrics[-1] if len(history) else None
        run = Run(job, self._train.name, train_images, len(self._train.classes), history)
        return replace(run, val_loss=last.val_loss, val_accuracy=last.val_accuracy) if last else run

    def _recorded_run(self, part: str, name: str) -> Run:
        return self._recorded[part][one_of(name, f"recorded run of {self.session}", self._recorded[part])]
