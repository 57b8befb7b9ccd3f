"""`Metrics` of an epoch; `History`: those of all epochs of a training, with its recipe."""

from dataclasses import asdict, dataclass, field

import pandas as pd

from course_utils.training.recipe import Recipe


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
    """What a training gave: its recipe, the metrics of every finished epoch, and the environment it ran in."""

    recipe: Recipe
    metrics: list[Metrics] = field(default_factory=list)
    environment: dict[str, str] = field(default_factory=dict, compare=False)

    def __len__(self) -> int:
        return len(self.metrics)

    @property
    def seconds(self) -> float:
        """Seconds of all epochs together."""
        return sum(metrics.seconds for metrics in self.metrics)

    def to_dict(self) -> dict:
        """Plain numbers, texts, lists and dicts, for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, content: dict) -> "History":
        """The history of which `to_dict` gave `content`; `ValueError` names what is missing or too much."""
        try:
            recipe, metrics = Recipe(**content["recipe"]), [Metrics(**each) for each in content["metrics"]]
            return cls(**content | {"recipe": recipe, "metrics": metrics})
        except (KeyError, TypeError) as error:
            raise ValueError(f"this is no history: {error}") from error

    def frame(self) -> pd.DataFrame:
        """One row per epoch and part (`train`, `validation`), with its loss and accuracy; tidy, for seaborn."""
        rows = [
            {"epoch": m.epoch, "part": part, "loss": loss, "accuracy": accuracy, "lr": m.lr, "seconds": m.seconds}
            for m in self.metrics
            for part, loss, accuracy in (
                ("train", m.train_loss, m.train_accuracy),
                ("validation", m.val_loss, m.val_accuracy),
            )
            if loss is not None
        ]
        return pd.DataFrame(rows, columns=["epoch", "part", "loss", "accuracy", "lr", "seconds"])
