"""`Recipe`: the hyperparameters of a training."""

from dataclasses import dataclass

from course_utils.arguments import number, one_of, truth
from course_utils.device import PRECISIONS

SCHEDULES = ("one-cycle", "step", "constant")
OPTIMIZERS = ("sgd", "muon")


@dataclass(frozen=True)
class Recipe:
    """How to train: optimizer, learning rate schedule, regularization, number format.

    `optimizer`: `"sgd"`, stochastic gradient descent with momentum; or `"muon"`, which orthogonalizes the updates of
    convolution kernels, with a learning rate and a weight decay of their own (`muon_lr`, `muon_weight_decay`).
    `lr`: the highest learning rate. `"one-cycle"` rises to it over the first `warmup` (share of the steps) and anneals
    to zero (Smith and Topin 2019); `"step"` multiplies by `gamma` every `step_size` epochs; `"constant"` stays.
    `small_epochs`: so many epochs at the beginning train on images resized to `small_size` pixels on a side, which
    takes less time (progressive resizing).
    Raises `ValueError` for unknown names and impossible numbers, also for texts and fractions where integers belong.
    """

    epochs: int = 20
    optimizer: str = "sgd"
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
    muon_lr: float = 0.08
    muon_weight_decay: float = 0.02
    small_epochs: int = 0
    small_size: int = 24

    def __post_init__(self):
        one_of(self.schedule, "schedule", SCHEDULES)
        one_of(self.optimizer, "optimizer", OPTIMIZERS)
        one_of(self.precision, "precision", PRECISIONS)
        checked = {name: number(getattr(self, name), name, 1, whole=True) for name in ("epochs", "step_size")}
        checked["small_size"] = number(self.small_size, "small_size", 1, whole=True)
        upper, note = checked["epochs"] + 1, ", the number of epochs"
        checked["small_epochs"] = number(self.small_epochs, "small_epochs", 0, upper, whole=True, note=note)
        checked |= {name: number(getattr(self, name), name, 0, above=True) for name in ("lr", "muon_lr")}
        for name in ("weight_decay", "gamma", "muon_weight_decay"):
            checked[name] = number(getattr(self, name), name, 0)
        for name in ("momentum", "warmup", "label_smoothing"):
            checked[name] = number(getattr(self, name), name, 0, below=1)
        for name, value in (checked | {"nesterov": truth(self.nesterov, "nesterov")}).items():
            object.__setattr__(self, name, value)  # NumPy's numbers as Python's, which JSON and PyTorch take
