"""`Checkpoint`: one file that an interrupted training resumes from."""

import hashlib
import io
import pickle
from collections.abc import Sized
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Generator, Tensor, nn

from course_utils.device import device_of
from course_utils.files import write_whole
from course_utils.training.history import History
from course_utils.training.optimizer import TrainState
from course_utils.training.recipe import Recipe


@dataclass(frozen=True)
class Checkpoint:
    """One file that holds a run after its last finished epoch: all that the next epoch depends on.

    `identity` tells whose checkpoint it is. The file is a SHA-256 in hexadecimal, a line break, and what `torch.save`
    makes of tensors and numbers alone, so that nothing in it is ever executed.
    """

    path: Path
    identity: dict[str, str]

    @classmethod
    def of(cls, path: Path | str, model: nn.Module, recipe: Recipe, train: Sized) -> "Checkpoint":
        """The checkpoint of training `model` on `train` by `recipe`."""
        data = getattr(train, "fingerprint", f"{type(train).__name__} of {len(train)} batches")
        identity = {"network": str(model), "data": data}
        identity |= {f"recipe.{name}": str(value) for name, value in asdict(recipe).items()}
        return cls(Path(path), identity)

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
        _set_generators(device, generator, content["generators"])
        return History.from_dict(content["history"])


def _first_difference(found: str, expected: str) -> tuple[str, str]:
    """The first lines in which two texts differ: of a printed network, the layer."""
    pairs = zip(found.splitlines(), expected.splitlines(), strict=False)
    return next(((a.strip(), b.strip()) for a, b in pairs if a != b), (found, expected))


def _generator_states(device: torch.device, generator: Generator | None) -> dict[str, Tensor]:
    states = {"cpu": torch.get_rng_state()}
    if device.type != "cpu":
        states[device.type] = torch.get_device_module(device).get_rng_state(device)
    if generator is not None:
        states["loader"] = generator.get_state()
    return states


def _set_generators(device: torch.device, generator: Generator | None, states: dict[str, Tensor]) -> None:
    # Generators keep their state on the CPU wherever they draw.
    torch.set_rng_state(states["cpu"].cpu())
    if device.type in states and device.type != "cpu":
        torch.get_device_module(device).set_rng_state(states[device.type].cpu(), device)
    if generator is not None and "loader" in states:
        generator.set_state(states["loader"].cpu())
