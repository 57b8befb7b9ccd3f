"""A study: many trainings described as data, each resumable, each recorded in a file of its own."""

import hashlib
import inspect
import re
from collections.abc import Callable, Iterable
from concurrent.futures import Executor, as_completed
from dataclasses import fields
from functools import partial
from itertools import product
from pathlib import Path

import torch
import yaml
from safetensors.torch import load as from_safetensors
from safetensors.torch import save as to_safetensors
from torch import nn

from course_utils.arguments import one_of
from course_utils.data import Augment, BatchLoader, ImageSet, load_images, split
from course_utils.data import augment as transforms
from course_utils.device import pick_device, seed_everything
from course_utils.files import write_whole
from course_utils.networks import make_network, network_class
from course_utils.runs.run import Job, Run, read_run, write_record
from course_utils.training import History, Recipe, evaluate, fit


def read_jobs(file: Path) -> list[Job]:
    """The jobs of a YAML list whose entries hold fields of `Job` and `Recipe`; a list of values means each of them.

    Raises `ValueError`, with the file, for a field that neither has, a value that cannot be, networks and augmentations
    that cannot be made, and a job that stands there twice.
    """
    try:
        entries = yaml.safe_load(file.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise ValueError(f"{file} is no YAML: {error}") from error
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise ValueError(f"{file}: expected a list of mappings, each with the fields of a job: '- network: S8Net46k'")
    jobs = []
    for entry in entries:
        try:
            jobs += _jobs_of(entry)
        except (TypeError, ValueError, RuntimeError) as error:
            raise ValueError(f"{file}: {error}, in {entry}{_hint(error, entry)}") from error
    names = [job.name for job in jobs]
    if twice := {name for name in names if names.count(name) > 1}:
        raise ValueError(f"{file}: {', '.join(sorted(twice))} stands there more than once")
    return jobs


def _hint(error: Exception, entry: dict) -> str:
    """What YAML may have read otherwise than it was meant."""
    if text := re.search(r"'([-+]?\d+)(\.\d*)?[eE]([-+]?)(\d+)'", str(entry)):
        whole, fraction, sign, power = text.groups()
        return f". YAML takes {text[0]} for a text: write {whole}{fraction or '.0'}e{sign or '+'}{power}"
    return ". YAML takes no and off for False, yes and on for True" if re.search(r"\b(True|False),", str(error)) else ""


def _jobs_of(entry: dict) -> list[Job]:
    """A job for every combination of the values of an entry."""
    of_job, of_recipe = ({f.name for f in fields(kind)} - {"recipe"} for kind in (Job, Recipe))
    if unknown := {str(key) for key in entry} - of_job - of_recipe:
        expected = ", ".join(sorted(of_job | of_recipe))
        raise ValueError(f"unknown field {', '.join(sorted(unknown))}, expected some of {expected}")
    if empty := [str(key) for key, values in entry.items() if values == []]:
        raise ValueError(f"{', '.join(empty)} is an empty list, expected at least one value")
    jobs = []
    for values in product(*(values if isinstance(values, list) else [values] for values in entry.values())):
        chosen = dict(zip(entry, values, strict=True))
        recipe = Recipe(**{name: chosen.pop(name) for name in of_recipe & set(chosen)})
        jobs.append(Job(recipe=recipe, **chosen))
        _try_out(jobs[-1])
    return jobs


def _try_out(job: Job) -> None:
    """Make the network, without weights, and augment two images, so that wrong options don't show after hours."""
    _refuse_unknown_options(network_class(job.network), job.options, ("norm", "num_classes"))
    with torch.device("meta"):
        make_network(job.network, norm=job.norm, num_classes=10, **job.options)
    augmentation(job.augment or {})(torch.zeros(2, 3, 32, 32, dtype=torch.uint8), torch.Generator())


def _refuse_unknown_options(function: Callable, options: object, given: tuple[str, ...]) -> None:
    known = [name for name in inspect.signature(function).parameters if name not in given]
    if not isinstance(options, dict) or not set(options) <= set(known):
        raise ValueError(
            f"{function.__name__} has options {options!r}, expected a mapping of some of {', '.join(known)}"
        )


def augmentation(steps: dict[str, dict]) -> Augment:
    """The functions named in `steps` one after the other, with their options; `ValueError` for unknown ones."""
    known = [name for name in vars(transforms) if name.startswith("random_")]
    for name, options in steps.items():
        _refuse_unknown_options(
            getattr(transforms, one_of(name, "augmentation", known)), options, ("images", "generator")
        )

    def apply(images: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        for name, options in steps.items():
            images = getattr(transforms, name)(images, generator, **options)
        return images

    return apply


def run_job(job: Job, dataset: str, folder: Path) -> str:
    """Train and evaluate; leaves `<name>.json` and, if all images were used, `<name>.safetensors` in `folder`.

    Killed and called again it resumes after the last finished epoch; called again after that it does nothing. Returns
    the job's name.
    """
    result, checkpoint = folder / f"{job.name}.json", folder / "unfinished" / f"{job.name}.checkpoint"
    if result.exists():
        if (made := read_run(result).job) != job:
            raise ValueError(f"{result} was made by {made}, not by {job}: a default has changed since")
        checkpoint.unlink(missing_ok=True)
        return job.name
    train, judged_on = load_images(dataset)
    if job.held_out:
        train, judged_on = split(train, job.held_out, torch.Generator().manual_seed(0))
    model, run = _train(job, train, judged_on, checkpoint)
    if run.weights_sha256:
        write_whole(result.with_suffix(".safetensors"), _weights(model))
    write_record(result, run.to_dict())  # last: a result is there only when all is
    checkpoint.unlink(missing_ok=True)
    return job.name


def _train(job: Job, train: ImageSet, judged_on: ImageSet, checkpoint: Path) -> tuple[nn.Module, Run]:
    """The trained network and its run, which is judged by the images `judged_on` after the last epoch."""
    device = pick_device()
    generator = seed_everything(job.seed, device)
    model = make_network(job.network, norm=job.norm, num_classes=len(train.classes), **job.options).to(device)
    augment = augmentation(job.augment or {})
    batches = BatchLoader(train.to(device), job.batch_size, shuffle=True, augment=augment, generator=generator)
    judges = BatchLoader(judged_on.to(device), min(1000, len(judged_on)))
    run = partial(Run, job, train.name, len(train), len(train.classes))
    try:
        history = fit(model, batches, judges if job.follow else None, job.recipe, verbose=False, checkpoint=checkpoint)
        if len(history) < job.recipe.epochs:
            raise RuntimeError(f"{job.name} was interrupted in epoch {len(history) + 1}")
        if not job.held_out:  # what ships is evaluated, and in float32, which hardly depends on the hardware
            model.load_state_dict(from_safetensors(_weights(model)))
        loss, accuracy = evaluate(model, judges, precision=job.recipe.precision if job.held_out else "fp32")
    except FloatingPointError as error:
        if not job.held_out:
            raise
        return model, run(History(job.recipe), diverged=str(error))  # in a search, that a recipe diverges is a result
    if job.held_out:
        return model, run(history, val_loss=loss, val_accuracy=accuracy)
    sha256 = hashlib.sha256(_weights(model)).hexdigest()
    return model, run(history, test_loss=loss, test_accuracy=accuracy, weights_sha256=sha256)


def _weights(model: nn.Module) -> bytes:
    """The weights as they ship: in half precision, which takes half the space and hardly moves the accuracy."""
    state = {name: value.cpu().contiguous() for name, value in model.state_dict().items()}
    return to_safetensors({name: value.half() if value.is_floating_point() else value for name, value in state.items()})


def run_study(jobs: Iterable[Job], dataset: str, folder: Path, executor: Executor) -> dict[str, BaseException]:
    """Run all jobs that have no result yet; one line for each as it ends. Returns those that failed, with the error."""
    futures = {executor.submit(run_job, job, dataset, folder): job for job in jobs}
    failed = {}
    for count, future in enumerate(as_completed(futures), start=1):
        name, error = futures[future].name, future.exception()
        if error is not None:
            failed[name] = error
        print(f"{count}/{len(futures)} {name}: {'done' if error is None else f'FAILED, {error!r}'}", flush=True)
    return failed
