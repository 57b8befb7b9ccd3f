"""The state of a training run: optimizer, schedule, scaler, generators; and the file that keeps it safe."""

import hashlib
import io
import os
import pickle
import uuid
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Generator, Tensor, nn
from torch.optim.lr_scheduler import ConstantLR, LRScheduler, OneCycleLR, StepLR

from course_utils.history import History, Recipe
from course_utils.optimizer import Muon
from course_utils.runtime import Precision, device_of, memory_format_of, pick_precision


@dataclass
class TrainState:
    """What a run of training keeps from step to step, besides the weights."""

    recipe: Recipe
    precision: Precision
    forward: Callable[[Tensor], Tensor]  # the model, or what torch.compile made of it
    optimizer: torch.optim.Optimizer
    scheduler: LRScheduler
    scaler: torch.amp.GradScaler


def prepare(model: nn.Module, recipe: Recipe, steps_per_epoch: int) -> TrainState:
    """Lay the weights out for speed and build what `recipe` asks for around them."""
    device = device_of(model)
    model.to(memory_format=memory_format_of(model))
    precision = pick_precision(recipe.precision, device)
    options = dict(
        lr=recipe.lr,
        momentum=recipe.momentum,
        nesterov=recipe.nesterov and recipe.momentum > 0,
        weight_decay=recipe.weight_decay,
    )
    if recipe.optimizer == "muon":
        kernels = dict(muon_lr=recipe.muon_lr, muon_weight_decay=recipe.muon_weight_decay)
        optimizer = Muon(model, **kernels, **options)
    else:
        # One pass over weight, gradient and momentum: a fifth of the time of the plain step.
        optimizer = torch.optim.SGD(model.parameters(), fused=True, **options)
        if recipe.momentum > 0:
            # The fused step would make these but not fill them where the scaler leaves out the first step (torch 2.15).
            for parameter in model.parameters():
                optimizer.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)
    scheduler = _scheduler(recipe, optimizer, steps_per_epoch)
    scaler = torch.amp.GradScaler(device.type, enabled=precision.dtype is torch.float16)
    forward = torch.compile(model, mode="max-autotune") if recipe.compile else model
    return TrainState(recipe, precision, forward, optimizer, scheduler, scaler)


def _scheduler(recipe: Recipe, optimizer: torch.optim.Optimizer, steps_per_epoch: int) -> LRScheduler:
    """A schedule that is stepped after every batch."""
    if recipe.schedule == "one-cycle":
        # The momentum stays what the recipe says; by default OneCycleLR would run it from 0.95 to 0.85 and back.
        # A warm-up of exactly one step would divide by zero in it.
        steps = recipe.epochs * steps_per_epoch
        options = dict(pct_start=max(recipe.warmup, 1.5 / steps), cycle_momentum=False)
        highest = [group["lr"] for group in optimizer.param_groups]
        return OneCycleLR(optimizer, max_lr=highest, total_steps=steps, **options)
    if recipe.schedule == "step":
        return StepLR(optimizer, step_size=recipe.step_size * steps_per_epoch, gamma=recipe.gamma)
    return ConstantLR(optimizer, factor=1.0, total_iters=0)


@dataclass(frozen=True)
class Checkpoint:
    """One file that holds a run after its last finished epoch: all that the next epoch depends on.

    `identity` tells whose checkpoint it is. The file is a SHA-256 in hexadecimal, a line break, and what `torch.save`
    makes of tensors and numbers alone, so that nothing in it is ever executed.
    """

    path: Path
    identity: dict[str, str]

    @classmethod
    def of(cls, path: Path | str, model: nn.Module, recipe: Recipe, train: Iterable) -> "Checkpoint":
        """The checkpoint of training `model` on `train` by `recipe`."""
        data = getattr(train, "identity", f"{type(train).__name__} of {len(train)} batches")
        identity = {"network": str(model), "data": data}
        identity |= {f"recipe.{name}": str(value) for name, value in asdict(recipe).items()}
        return cls(Path(path), identity)

    def save(self, model: nn.Module, state: TrainState, loader: Generator | None, history: History) -> None:
        """Write everything beside the old file and put it in its place whole; `OSError` if that fails."""
        content = {
            "identity": self.identity,
            "model": model.state_dict(),
            "optimizer": state.optimizer.state_dict(),
            "scheduler": state.scheduler.state_dict(),
            "scaler": state.scaler.state_dict(),
            "generators": _generator_states(device_of(model), loader),
            "history": history.to_json(),
        }
        buffer = io.BytesIO()
        torch.save(content, buffer)
        body = buffer.getvalue()
        try:
            write_whole(self.path, hashlib.sha256(body).hexdigest().encode() + b"\n" + body)
        except OSError as error:
            kept = f"{self.path} still holds the epoch before" if self.path.exists() else "there is none yet"
            raise OSError(f"the checkpoint could not be written ({error}); {kept}") from error

    def load(self, model: nn.Module, state: TrainState, loader: Generator | None) -> History | None:
        """Put model, state and generators into the saved state and return the history; None if there is no file.

        Raises `ValueError` if the file is damaged or belongs to another network, recipe or data set.
        """
        for left in self.path.parent.glob(f"{self.path.name}.*.part"):  # by a process that was killed while it wrote
            left.unlink()
        if not self.path.exists():
            return None
        digest, _, body = self.path.read_bytes().partition(b"\n")
        if hashlib.sha256(body).hexdigest().encode() != digest:
            raise ValueError(f"{self.path} is damaged: its checksum does not match. Delete it to start anew")
        device = device_of(model)
        try:
            content = torch.load(io.BytesIO(body), map_location=device, weights_only=True)
            identity = content["identity"]
        except (pickle.UnpicklingError, RuntimeError, EOFError, LookupError, TypeError) as error:
            raise ValueError(f"{self.path} was not opened: it is no checkpoint, or holds more than tensors") from error
        for name in self.identity | identity:
            found, expected = identity.get(name), self.identity.get(name)
            if found != expected:
                found, expected = _first_difference(str(found), str(expected))
                advice = "Give this run another checkpoint, or delete that one"
                raise ValueError(f"{self.path} is of another run: {name} was {found}, is now {expected}. {advice}")
        model.load_state_dict(content["model"])
        state.optimizer.load_state_dict(content["optimizer"])
        state.scheduler.load_state_dict(content["scheduler"])
        if content["scaler"]:  # empty after training without one, on another kind of hardware
            state.scaler.load_state_dict(content["scaler"])
        _set_generators(device, loader, content["generators"])
        return History.from_json(content["history"])


def write_whole(path: Path, content: bytes) -> None:
    """Write a file so that at any moment there is the old one or the new one, also if the power fails."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.{uuid.uuid4().hex}.part")  # its own, should two write the same file
    try:
        with partial.open("xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def _first_difference(found: str, expected: str) -> tuple[str, str]:
    """The first lines in which two texts differ: of a printed network, the layer."""
    pairs = zip(found.splitlines(), expected.splitlines(), strict=False)
    return next(((a.strip(), b.strip()) for a, b in pairs if a != b), (found, expected))


def _generator_states(device: torch.device, loader: Generator | None) -> dict[str, Tensor]:
    states = {"cpu": torch.get_rng_state()}
    if device.type != "cpu":
        states[device.type] = torch.get_device_module(device).get_rng_state(device)
    if loader is not None:
        states["loader"] = loader.get_state()
    return states


def _set_generators(device: torch.device, loader: Generator | None, states: dict[str, Tensor]) -> None:
    # Generators keep their state on the CPU wherever they draw.
    torch.set_rng_state(states["cpu"].cpu())
    if device.type in states and device.type != "cpu":
        torch.get_device_module(device).set_rng_state(states[device.type].cpu(), device)
    if loader is not None and "loader" in states:
        loader.set_state(states["loader"].cpu())
