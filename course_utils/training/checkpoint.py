"""`Checkpoint`: one file that an interrupted training resumes from."""

import glob
import hashlib
import io
import pickle
import random
import time
from collections.abc import Sized
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import torch
from torch import Generator, nn
from torch.utils.data import DataLoader

from course_utils.arguments import as_json
from course_utils.device import device_of
from course_utils.digest import digest
from course_utils.files import write_whole
from course_utils.training.history import History
from course_utils.training.optimizer import TrainState
from course_utils.training.recipe import Recipe

# Networks whose training was left, finished or not, by checkpoint: what they started from, and the weights then. Where
# the same call is made again with the same network, its weights are not the initial ones any more.
_LEFT: WeakKeyDictionary[nn.Module, dict[Path, tuple[dict[str, str], str]]] = WeakKeyDictionary()
ABANDONED = 3600  # seconds after which nobody is still writing a part of a file


@dataclass(frozen=True)
class Checkpoint:
    """One file that holds a run after its last finished epoch: all that the next epoch depends on.

    `identity` tells whose checkpoint it is. The file is a SHA-256 in hexadecimal, a line break, and what `torch.save`
    makes of tensors and numbers alone, so that nothing in it is ever executed.
    """

    path: Path
    identity: dict[str, str]

    @classmethod
    def of(
        cls,
        path: Path | str,
        model: nn.Module,
        recipe: Recipe,
        train: Sized,
        val: object = None,
        generator: Generator | None = None,
    ) -> "Checkpoint":
        """The checkpoint of training `model` on `train`, which draws from `generator`, by `recipe`.

        Raises `ValueError` where `path` is a folder.
        """
        path = Path(path).expanduser().absolute()
        if path.is_dir():
            raise ValueError(f"checkpoint is the folder {path}, expected a file, such as {path / 'run.checkpoint'}")
        seeds = [torch.initial_seed(), *([generator.initial_seed()] if generator else [])]
        identity = {"network": str(model), "data": getattr(train, "fingerprint", None) or _summary(train)}
        identity |= {"batches": _content(train), "validation": f"{getattr(val, 'fingerprint', '')} {_content(val)}"}
        identity |= {"seed": " and ".join(map(str, dict.fromkeys(seeds)))}
        identity |= {f"recipe.{name}": str(value) for name, value in asdict(recipe).items()}
        started, weights = _LEFT.get(model, {}).get(path, ({}, None))
        if weights is None or weights != digest(model.state_dict()):
            frozen = [name for name, parameter in model.named_parameters() if not parameter.requires_grad]
            started = {"the network's code": digest(model), "initial weights": digest(model.state_dict())}
            started |= {"frozen": ", ".join(frozen) or "nothing"}
        return cls(path, identity | started)

    def leave(self, model: nn.Module) -> None:
        """Know `model` again when the same training is called with it once more."""
        names = ("the network's code", "initial weights", "frozen")
        started = {name: self.identity[name] for name in names}
        _LEFT.setdefault(model, {})[self.path] = started, digest(model.state_dict())

    def save(self, model: nn.Module, state: TrainState, generator: Generator | None, history: History) -> None:
        """Write everything beside the old file and put it in its place whole; `OSError` if that fails."""
        content = {
            "identity": self.identity,
            "model": model.state_dict(),
            "optimizer": state.optimizer.state_dict(),
            "scheduler": state.scheduler.state_dict(),
            "scaler": state.scaler.state_dict(),
            "generators": _generator_states(device_of(model), generator),
            "history": history.to_dict(),
        }
        buffer = io.BytesIO()
        torch.save(content, buffer)
        body = buffer.getvalue()
        try:
            write_whole(self.path, hashlib.sha256(body).hexdigest().encode() + b"\n" + body)
        except OSError as error:
            kept = f"{self.path} still holds the epoch before" if self.path.exists() else "there is none yet"
            raise OSError(f"the checkpoint could not be written ({error}); {kept}") from error

    def load(self, model: nn.Module, state: TrainState, generator: Generator | None) -> History | None:
        """Put model, state and generators into the saved state and return the history; None if there is no file.

        Raises `ValueError` if the file is damaged, no checkpoint, or of a training that differs in anything.
        """
        for left in self.path.parent.glob(f"{glob.escape(self.path.name)}.{'[0-9a-f]' * 32}.part"):
            if time.time() - left.stat().st_mtime > ABANDONED:  # by a process that was killed while it wrote
                left.unlink(missing_ok=True)
        if not self.path.exists():
            return None
        digest, _, body = self.path.read_bytes().partition(b"\n")
        if hashlib.sha256(body).hexdigest().encode() != digest:
            raise ValueError(
                f"{self.path} is damaged, or no checkpoint of `fit`: its checksum does not match. It is left as it is: "
                "name another file, or move this one away to start anew"
            )
        device = device_of(model)
        try:
            content = torch.load(io.BytesIO(body), map_location=device, weights_only=True)
            identity = content["identity"]
        except (pickle.UnpicklingError, RuntimeError, EOFError, LookupError, TypeError) as error:
            raise ValueError(f"{self.path} was not opened: it is no checkpoint, or holds more than tensors") from error
        for name in self.identity | identity:
            if name not in identity and not name.startswith("recipe."):
                continue  # the file is older than this comparison
            found, expected = identity.get(name), self.identity.get(name)
            if found != expected:
                found, expected = _first_difference(str(found), str(expected))
                advice = "Give this run another checkpoint, or move that one away"
                raise ValueError(f"{self.path} is of another run: {name} was {found}, is now {expected}. {advice}")
        model.load_state_dict(content["model"])
        state.optimizer.load_state_dict(content["optimizer"])
        state.scheduler.load_state_dict(content["scheduler"])
        if content["scaler"]:  # empty after training without one, on another kind of hardware
            state.scaler.load_state_dict(content["scaler"])
        _set_generators(device, generator, content["generators"])
        return History.from_dict(content["history"])


def _first_difference(found: str, expected: str) -> tuple[str, str]:
    """The first lines in which two texts differ: of a printed network, the layer."""
    pairs = zip(found.splitlines(), expected.splitlines(), strict=False)
    return next(((a.strip(), b.strip()) for a, b in pairs if a != b), (found, expected))


def _summary(batches: Any) -> str:
    return (
        f"{type(batches).__name__} of {len(batches)} batches" if isinstance(batches, Sized) else type(batches).__name__
    )


def _content(batches: Any) -> str:
    """What else is known of batches, in a few words or as a hash."""
    if hasattr(batches, "fingerprint"):
        augment = getattr(batches, "augment", None)
        return f"augmented by {getattr(augment, '__qualname__', type(augment).__name__)} ({digest(augment)})"
    if isinstance(batches, DataLoader):
        return digest(batches.batch_size, batches.drop_last, type(batches.sampler), batches.dataset, batches.collate_fn)
    return digest(batches) if isinstance(batches, list | tuple) else _summary(batches)


def _generator_states(device: torch.device, generator: Generator | None) -> dict[str, Any]:
    # Augmentations may draw from these streams, too; arrays are no part of a checkpoint.
    numpy = tuple(as_json(np.random.get_state()))  # noqa: NPY002
    states: dict[str, Any] = {"cpu": torch.get_rng_state(), "random": random.getstate(), "numpy": numpy}
    if device.type != "cpu":
        states[device.type] = torch.get_device_module(device).get_rng_state(device)
    if generator is not None:
        states["loader"] = generator.get_state()
    return states


def _set_generators(device: torch.device, generator: Generator | None, states: dict[str, Any]) -> None:
    # Generators keep their state on the CPU wherever they draw.
    torch.set_rng_state(states["cpu"].cpu())
    if "random" in states:
        random.setstate(states["random"])
        np.random.set_state(states["numpy"])  # noqa: NPY002
    if device.type in states and device.type != "cpu":
        torch.get_device_module(device).set_rng_state(states[device.type].cpu(), device)
    if generator is not None and "loader" in states:
        generator.set_state(states["loader"].cpu())
