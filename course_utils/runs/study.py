"""A study: many training runs described as data, each resumable, each recorded in a file of its own."""

import hashlib
import json
import platform
from collections.abc import Iterable
from concurrent.futures import Executor, as_completed
from dataclasses import asdict, dataclass, field, fields
from itertools import product
from pathlib import Path

import torch
import torchvision
import yaml
from safetensors.torch import save as to_safetensors

from course_utils.data import Augment, BatchLoader, augment, load_images, split
from course_utils.device import pick_device, seed_everything
from course_utils.files import write_whole
from course_utils.networks import make_network
from course_utils.runs.records import read_record, seal, write_index
from course_utils.training import History, Recipe, evaluate, fit

CROP_AND_FLIP = {"random_crop": {"padding": 4}, "random_hflip": {}}


@dataclass(frozen=True)
class Job:
    """One run: `recipe` applied to `network` with `options`, from `seed`.

    `augment`: functions of the module of that name with their options, in order. `held_out`: so many training images
    are kept for validation, drawn alike in every job, and the test set stays untouched; with 0 the run trains on all
    images and is evaluated on the test set, once, after its last epoch. `follow`: evaluate after every epoch too, to
    know when a figure is passed; nothing may be chosen by it.
    """

    network: str
    norm: str = "batch"
    seed: int = 0
    batch_size: int = 128
    augment: dict[str, dict] = field(default_factory=lambda: CROP_AND_FLIP)
    options: dict = field(default_factory=dict)
    held_out: int = 0
    follow: bool = False
    recipe: Recipe = field(default_factory=Recipe)

    @property
    def name(self) -> str:
        """Readable, and another one for every job: the digest at its end covers whatever is not left at its default."""
        default = asdict(Job(self.network))
        chosen = [[key, value] for key, value in asdict(self).items() if value != default[key] and key != "recipe"]
        if self.augment == default["augment"] and list(self.augment) != list(default["augment"]):
            chosen.append(["augment", self.augment])  # in another order, which counts; dicts are equal all the same
        chosen += [[key, value] for key, value in asdict(self.recipe).items() if value != default["recipe"][key]]
        digest = hashlib.sha256(json.dumps(chosen).encode()).hexdigest()[:8]
        return f"{self.network}-{self.norm}-{self.recipe.epochs}ep-seed{self.seed}-{digest}"


def read_jobs(file: Path) -> list[Job]:
    """The jobs of a YAML list whose entries hold fields of `Job` and `Recipe`; a list of values means each of them.

    Raises `ValueError`, with the file, for a field that neither has, a value that cannot be, and a job that stands
    there twice.
    """
    of_job, of_recipe = ({f.name for f in fields(kind)} for kind in (Job, Recipe))
    of_job.remove("recipe")
    jobs = []
    try:
        entries = yaml.safe_load(file.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise ValueError(f"{file} is no YAML: {error}") from error
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise ValueError(f"{file}: expected a list of mappings, each with the fields of a job: '- network: S8Net46k'")
    for entry in entries:
        if unknown := {str(key) for key in entry} - of_job - of_recipe:
            expected = ", ".join(sorted(of_job | of_recipe))
            raise ValueError(f"{file}: unknown field {', '.join(sorted(unknown))}, expected some of {expected}")
        if empty := [str(key) for key, values in entry.items() if values == []]:
            raise ValueError(f"{file}: {', '.join(empty)} is an empty list, expected at least one value")
        choices = [values if isinstance(values, list) else [values] for values in entry.values()]
        for values in product(*choices):
            chosen = dict(zip(entry, values, strict=True))
            try:
                recipe = Recipe(**{name: chosen.pop(name) for name in of_recipe & set(chosen)})
                jobs.append(Job(recipe=recipe, **chosen))
            except (TypeError, ValueError) as error:
                raise ValueError(f"{file}: {error}, in {entry}") from error
    names = [job.name for job in jobs]
    if twice := {name for name in names if names.count(name) > 1}:
        raise ValueError(f"{file}: {', '.join(sorted(twice))} stands there more than once")
    return jobs


def augmentation(steps: dict[str, dict]) -> Augment:
    """The functions named in `steps` one after the other, with their options."""
    for name in steps:
        if not name.startswith("random_") or not hasattr(augment, name):
            expected = ", ".join(name for name in vars(augment) if name.startswith("random_"))
            raise ValueError(f"unknown augmentation {name!r}, expected one of {expected}")

    def apply(images: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        for name, options in steps.items():
            images = getattr(augment, name)(images, generator, **options)
        return images

    return apply


def run_job(job: Job, dataset: str, folder: Path) -> str:
    """Train and evaluate; leaves `<name>.json` (sealed) and, if all images were used, `<name>.safetensors` in `folder`.

    Killed and called again it goes on after the last finished epoch; called again after that it does nothing. Returns
    the job's name.
    """
    result, checkpoint = folder / f"{job.name}.json", folder / "unfinished" / f"{job.name}.checkpoint"
    if result.exists():
        made = read_record(result)["job"]
        if Job(**made | {"recipe": Recipe(**made["recipe"])}) != job:
            raise ValueError(f"{result} was made by {made}, not by {asdict(job)}: a default has changed since")
        checkpoint.unlink(missing_ok=True)
        return job.name
    images, test = load_images(dataset)
    device = pick_device()
    if job.held_out:
        images, test = split(images, job.held_out, torch.Generator().manual_seed(0))
    generator = seed_everything(job.seed, device)
    model = make_network(job.network, norm=job.norm, num_classes=job.recipe.num_classes, **job.options).to(device)
    batches = BatchLoader(
        images.to(device), job.batch_size, shuffle=True, augment=augmentation(job.augment), generator=generator
    )
    test_batches = BatchLoader(test.to(device), min(1000, len(test)))
    record = {
        "job": asdict(job),
        "data": images.name,
        "train_images": len(images),
        "versions": {"python": platform.python_version(), "torchvision": torchvision.__version__},
    }
    part = "val" if job.held_out else "test"
    try:
        followed = test_batches if job.follow else None
        history = fit(model, batches, followed, job.recipe, verbose=False, checkpoint=checkpoint)
        if len(history.epochs) < job.recipe.epochs:
            raise RuntimeError(f"{job.name} was interrupted in epoch {len(history.epochs) + 1}")
        # What ships is evaluated in float32, which gives the same figure on any hardware.
        options = dict(precision=job.recipe.precision if job.held_out else "fp32", num_classes=job.recipe.num_classes)
        loss, accuracy = evaluate(model, test_batches, **options)
        record |= {f"{part}_accuracy": round(100 * accuracy, 4), f"{part}_loss": loss}
    except FloatingPointError as error:
        if not job.held_out:
            raise
        history = History(job.recipe)  # in a search, that a recipe diverges is a result
        record |= {"val_accuracy": None, "val_loss": None, "diverged": str(error)}
    record["seconds"] = round(sum(metrics.seconds for metrics in history.epochs), 1)
    record["history"] = json.loads(history.to_json())
    if not job.held_out:
        weights = to_safetensors({name: value.cpu().contiguous() for name, value in model.state_dict().items()})
        write_whole(result.with_suffix(".safetensors"), weights)
        record["weights_sha256"] = hashlib.sha256(weights).hexdigest()
    record["sha256"] = seal(record)
    write_whole(result, (json.dumps(record, indent=1) + "\n").encode())  # last: a result is there only when all is
    checkpoint.unlink(missing_ok=True)
    return job.name


def run_study(jobs: Iterable[Job], dataset: str, folder: Path, executor: Executor) -> dict[str, BaseException]:
    """Run all jobs that have no result yet; one line for each as it ends. Returns those that failed, with the error."""
    futures = {executor.submit(run_job, job, dataset, folder): job for job in jobs}
    failed = {}
    for count, future in enumerate(as_completed(futures), start=1):
        name, error = futures[future].name, future.exception()
        if error is not None:
            failed[name] = error
        else:
            write_index(folder)
        print(f"{count}/{len(futures)} {name}: {'done' if error is None else f'FAILED, {error!r}'}", flush=True)
    return failed
