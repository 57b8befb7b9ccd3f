"""`Recipe`: the hyperparameters of a training."""

import math
from dataclasses import dataclass

from course_utils.checks import one_of
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
    Raises `ValueError` for unknown names and impossible numbers.
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

    def __post_init__(self):
        one_of(self.schedule, "schedule", SCHEDULES)
        one_of(self.optimizer, "optimizer", OPTIMIZERS)
        one_of(self.precision, "precision", PRECISIONS)
        for name, low in (
            ("epochs", 1),
            ("step_size", 1),
            ("weight_decay", 0),
            ("gamma", 0),
            ("muon_weight_decay", 0),
        ):
            if not low <= getattr(self, name) < math.inf:
                raise ValueError(f"{name} is {getattr(self, name)}, expected at least {low}")
        for name in ("momentum", "warmup", "label_smoothing"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}, expected a number from 0 to below 1")
        for name in ("lr", "muon_lr"):
            if not 0 < getattr(self, name) < math.inf:
                raise ValueError(f"{name} is {getattr(self, name)}, expected a learning rate above 0")
