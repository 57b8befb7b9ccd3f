"""How to train, and the record of having trained."""

import json
import math
from dataclasses import asdict, dataclass, field

import pandas as pd

from course_utils.runtime import PRECISIONS, choose

SCHEDULES = ("one-cycle", "step", "constant")
OPTIMIZERS = ("sgd", "muon")


@dataclass(frozen=True)
class Recipe:
    """How to train: stochastic gradient descent with momentum, a schedule, label smoothing, a precision.

    `lr`: the highest learning rate. `"one-cycle"` rises to it over the first `warmup` (share of the steps) and anneals
    to zero (Smith and Topin 2019); `"step"` multiplies by `gamma` every `step_size` epochs; `"constant"` stays.
    `compile`: let `torch.compile` tune the network first, for seconds to minutes; measure whether that pays off.
    `num_classes`: how wide the network's output must be. Raises `ValueError` for unknown names and impossible numbers.
    """

    epochs: int = 20
    lr: float = 0.05
    momentum: float = 0.9
    nesterov: bool = True
    weight_decay: float = 5e-4
    schedule: str = "one-cycle"
    warmup: float = 0.3
    step_size: int = 10
    gamma: float = 0.1
    label_smoothing: float = 0.0
    precision: str = "auto"
    compile: bool = False
    num_classes: int = 10
    optimizer: str = "sgd"
    muon_lr: float = 0.08
    muon_weight_decay: float = 0.02

    def __post_init__(self):
        choose(self.schedule, SCHEDULES, "schedule")
        choose(self.optimizer, OPTIMIZERS, "optimizer")
        choose(self.precision, PRECISIONS, "precision")
        for name, low in (("epochs", 1), ("step_size", 1), ("num_classes", 1), ("weight_decay", 0), ("gamma", 0), ("muon_weight_decay", 0)):
            if not low <= getattr(self, name) < math.inf:
                raise ValueError(f"{name} is {getattr(self, name)}, expected at least {low}")
        for name in ("momentum", "warmup", "label_smoothing"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}, expected a number from 0 to below 1")
        for name in ("lr", "muon_lr"):
            if not 0 < getattr(self, name) < math.inf:
                raise ValueError(f"{name} is {getattr(self, name)}, expected a learning rate above 0")


@dataclass(frozen=True)
class Metrics:
    """What one epoch gave. Losses: nats per image; accuracies: shares of 1; `lr`: at the epoch's first step.

    Training figures are gathered while training, on augmented images and with dropout. Validation figures are None
    where there was nothing to validate on.
    """

    epoch: int
    train_loss: float
    train_accuracy: float
    val_loss: float | None
    val_accuracy: float | None
    lr: float
    seconds: float = field(compare=False)  # the only figure that differs between two runs of the same seed

    def __str__(self) -> str:
        line = f"epoch {self.epoch:3d}   train loss {self.train_loss:.3f} accuracy {self.train_accuracy:6.2%}"
        if self.val_loss is not None:
            line += f"   validation loss {self.val_loss:.3f} accuracy {self.val_accuracy:6.2%}"
        return line + f"   {self.seconds:5.1f} s"


@dataclass
class History:
    """The record of a run: its recipe, the metrics of every epoch, and on what it ran."""

    recipe: Recipe
    epochs: list[Metrics] = field(default_factory=list)
    environment: dict[str, str] = field(default_factory=dict, compare=False)

    def to_json(self) -> str:
        """Text that `from_json` turns into an equal history."""
        return json.dumps(asdict(self), indent=1) + "\n"

    @classmethod
    def from_json(cls, text: str) -> "History":
        """Read what `to_json` wrote; `ValueError` names what is missing or too much."""
        try:
            record = json.loads(text)
            epochs = [Metrics(**metrics) for metrics in record.pop("epochs")]
            return cls(recipe=Recipe(**record.pop("recipe")), epochs=epochs, **record)
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"this is no history: {error}") from error

    def frame(self) -> pd.DataFrame:
        """One row per epoch and part (`train`, `validation`), with its loss and accuracy; tidy, for seaborn."""
        rows = [
            {"epoch": m.epoch, "part": part, "loss": loss, "accuracy": accuracy, "lr": m.lr, "seconds": m.seconds}
            for m in self.epochs
            for part, loss, accuracy in (
                ("train", m.train_loss, m.train_accuracy),
                ("validation", m.val_loss, m.val_accuracy),
            )
            if loss is not None
        ]
        return pd.DataFrame(rows, columns=["epoch", "part", "loss", "accuracy", "lr", "seconds"])
