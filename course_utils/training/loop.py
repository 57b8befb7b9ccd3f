"""`fit`: train, validate, log and checkpoint a classifier; `evaluate`: its loss and accuracy."""

import copy
import math
import time
import warnings
from collections.abc import Iterable
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from course_utils.arguments import number
from course_utils.device import Placement, device_of, evaluation_mode
from course_utils.environment import describe_environment
from course_utils.training.batches import Batches, Tally, placed, refuse_augmented
from course_utils.training.checkpoint import Checkpoint
from course_utils.training.history import History, Metrics
from course_utils.training.optimizer import TrainState, prepare
from course_utils.training.progress import Progress
from course_utils.training.recipe import Recipe


def train_epoch(
    model: nn.Module,
    batches: Iterable[tuple[Tensor, Tensor]],
    state: TrainState,
    num_classes: int | None = None,
    image_size: int | None = None,
) -> tuple[float, float]:
    """One pass over `batches` in training mode; returns the mean loss and the accuracy, both over images.

    `image_size`: the pixels on a side to which the images are resized first.

    Raises `ValueError` for batches, labels and outputs that are not as they should be, and `FloatingPointError` after
    the pass if the loss of a step was not finite.
    """
    model.train()
    recipe, placement = state.recipe, state.placement
    tally, first_bad = Tally(placement.device), torch.full((), -1, device=placement.device)
    # Sums stay on the device until the epoch is over: asking for a number after each step would make a GPU wait.
    for step, (images, labels) in enumerate(placed(batches, placement, image_size)):
        logits = placement.logits(model, images, num_classes)
        labels = tally.within(labels, logits.shape[1])
        loss = F.cross_entropy(logits, labels, label_smoothing=recipe.label_smoothing)
        state.optimizer.zero_grad()
        state.scaler.scale(loss).backward()
        state.scaler.step(state.optimizer)
        state.scaler.update()
        with warnings.catch_warnings():
            # The scaler leaves out steps whose gradient overflows, often the first one; the schedule goes on.
            warnings.filterwarnings("ignore", "Detected call of `lr_scheduler.step", UserWarning)
            state.scheduler.step()
        loss = loss.detach()
        first_bad = torch.where((first_bad < 0) & ~loss.isfinite(), step, first_bad)
        tally.add(loss * len(images), logits, labels)
    if first_bad.item() >= 0:
        raise FloatingPointError(
            f"the loss was not finite at step {first_bad.item() + 1:.0f} of {step + 1} in this epoch, with "
            f"lr={recipe.lr} in {placement.precision.name}: try a tenth of the learning rate or precision='fp32', and "
            "check the images for NaN"
        )
    return tally.means()


@torch.inference_mode()
def evaluate(
    model: nn.Module, batches: Iterable[tuple[Tensor, Tensor]], *, precision: str = "auto"
) -> tuple[float, float]:
    """Mean cross-entropy (nats) and accuracy over all images of `batches`, in evaluation mode.

    Raises `ValueError` for a `BatchLoader` that augments, for no batches at all, and for batches, labels and outputs
    that are not as they should be.
    """
    refuse_augmented(batches)
    placement, num_classes = Placement.of(model, precision), getattr(batches, "num_classes", None)
    tally = Tally(placement.device)
    with evaluation_mode(model):
        for images, labels in placed(batches, placement):
            logits = placement.logits(model, images, num_classes)
            labels = tally.within(labels, logits.shape[1])
            tally.add(F.cross_entropy(logits, labels, reduction="sum"), logits, labels)
    return tally.means()


def minutes_to_train(model: nn.Module, images: int, batch_size: int = 128) -> float:
    """About how long it takes here to train `model` on so many 32×32 images, measured on a few batches of noise.

    Raises `ValueError` for less than one image or a batch size below 1.
    """
    images, batch_size = (number(images, "images", 1), number(batch_size, "batch_size", 1, whole=True))
    device = device_of(model)
    accelerators = [] if device.type == "cpu" else [device]
    with torch.random.fork_rng(accelerators, device_type=device.type):  # timing must not change results
        noise = torch.randn(batch_size, 3, 32, 32), torch.zeros(batch_size, dtype=torch.int64)
        recipe = Recipe(epochs=2, lr=1e-3)  # the first epoch warms up
        history = fit(copy.deepcopy(model), [noise] * 4, None, recipe, verbose=False)
    return history.metrics[-1].seconds / (4 * batch_size) * images / 60


def fit(
    model: nn.Module,
    train: Batches,
    val: Iterable[tuple[Tensor, Tensor]] | None,
    recipe: Recipe,
    *,
    verbose: bool = True,
    checkpoint: Path | str | None = None,
) -> History:
    """Train `model` in place by `recipe` and return its `History`.

    `train` and `val` are iterated once per epoch: images, float32 `B×3×H×W`, and labels, int64 `B`. `train` needs a
    length (a `BatchLoader`, a `DataLoader`, a list). Prints one line per epoch; where a person steps
    through a notebook, a curve of the accuracy grows in place of the lines. Interrupted (Ctrl-C, or stop in a
    notebook), it returns the epochs that were finished.

    `checkpoint`: a file that is written after every epoch. Where it exists, the same call resumes there as if it had
    never been interrupted, bit for bit on the same machine. It raises `ValueError` if anything differs that changes the
    result: recipe, network, its code, initial weights and frozen parameters, images and augmentation, seeds. Saved with
    the weights are the states of the loader's generator and of the global ones of torch, NumPy and `random`, but not of
    others that an augmentation may have.
    """
    if not hasattr(train, "__len__") or len(train) == 0:
        raise ValueError(f"train is {type(train).__name__} without batches, expected a loader or list of known length")
    # The generator that draws order and augmentation is part of the state of a training.
    generator = getattr(train, "generator", None) or getattr(getattr(train, "sampler", None), "generator", None)
    saved = None if checkpoint is None else Checkpoint.of(checkpoint, model, recipe, train, val, generator)
    state = prepare(model, recipe, len(train))
    history = History(recipe, environment=describe_environment(state.placement))
    progress = Progress(verbose)
    try:
        if saved:
            history = saved.load(model, state, generator) or history
            if verbose and len(history):
                print(f"resuming after epoch {len(history)} of {recipe.epochs}, from {checkpoint}")
        for epoch in range(len(history) + 1, recipe.epochs + 1):
            start = time.perf_counter()
            lr = float(state.scheduler.get_last_lr()[-1])  # of the parameters that are no kernels
            batches = progress.batches(train, epoch)
            image_size = recipe.small_size if epoch <= recipe.small_epochs else None
            num_classes = getattr(train, "num_classes", None)
            train_loss, train_accuracy = train_epoch(model, batches, state, num_classes, image_size)
            val_loss = val_accuracy = None
            if val is not None:
                val_loss, val_accuracy = evaluate(model, val, precision=recipe.precision)
                if not math.isfinite(val_loss):
                    raise FloatingPointError(f"the validation loss is {val_loss} after epoch {epoch}: try a lower lr")
            seconds = time.perf_counter() - start
            metrics = Metrics(epoch, train_loss, train_accuracy, val_loss, val_accuracy, lr, seconds)
            history.metrics.append(metrics)
            progress.show(history)
            if saved:
                saved.save(model, state, generator, history)
    except KeyboardInterrupt:
        print(f"interrupted in epoch {len(history) + 1}; the history holds the {len(history)} finished ones")
    finally:
        model.to(memory_format=torch.contiguous_format)  # which safetensors wants, and computes the same
        if saved:
            saved.leave(model)
    return history
