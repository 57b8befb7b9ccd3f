"""The optimizer, the schedule and the gradient scaler that a recipe asks for."""

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim.lr_scheduler import ConstantLR, LRScheduler, OneCycleLR, StepLR

from course_utils.device import Placement
from course_utils.training.recipe import Recipe


def orthogonalized(matrices: Tensor, steps: int = 5) -> Tensor:
    """Bring the singular values of `matrices` (`…×rows×columns`) close to 1 and keep their singular vectors.

    `steps` of the quintic Newton-Schulz iteration of Jordan et al. 2024 ("Muon"), which leaves singular values between
    about 0.7 and 1.2; the zero matrix stays zero.
    """
    wide = matrices.mT if matrices.shape[-2] > matrices.shape[-1] else matrices
    wide = wide / wide.norm(dim=(-2, -1), keepdim=True).clamp_min(1e-7)  # no singular value above 1
    for _ in range(steps):
        square = wide @ wide.mT
        wide = 3.4445 * wide + (-4.7750 * square + 2.0315 * square @ square) @ wide
    return wide.mT if matrices.shape[-2] > matrices.shape[-1] else wide


class Muon(torch.optim.SGD):
    """SGD in which every convolution kernel moves by its orthogonalized Nesterov momentum (Jordan et al. 2024).

    A kernel is the matrix `out_channels × in_channels·k·k`, one for each group of a grouped convolution; its update is
    scaled by `sqrt(max(1, rows / columns))`. `muon_lr` and `muon_weight_decay` (decoupled) are for kernels, the other
    options are SGD's and for all other parameters.
    """

    def __init__(self, model: nn.Module, *, muon_lr: float, muon_weight_decay: float, momentum: float, **options: Any):
        convolutions = [module for module in model.modules() if isinstance(module, nn.modules.conv._ConvNd)]
        groups = {module.weight: module.groups for module in convolutions if not module.transposed}
        # A kernel that is computed from others (weight_norm) is none of them; these move as SGD moves them.
        groups = {kernel: count for kernel, count in groups.items() if isinstance(kernel, nn.Parameter)}
        others = [parameter for parameter in model.parameters() if parameter not in groups]
        self._kernels = {count: [kernel for kernel in groups if groups[kernel] == count] for count in groups.values()}
        # Without a momentum of its own, SGD's weight decay is the decoupled one.
        kernels: dict[str, Any] = dict(
            params=list(groups), lr=muon_lr, weight_decay=muon_weight_decay, momentum=0, nesterov=False
        )
        super().__init__([kernels, {"params": others}], momentum=momentum, **options)
        self._momentum = momentum

    @torch.no_grad()
    def step(self, closure=None):
        """Put the orthogonalized momentum in place of each kernel's gradient, then take SGD's step."""
        for groups, kernels in self._kernels.items():
            gradients, updates = [kernel.grad for kernel in kernels if kernel.grad is not None], []
            for kernel in kernels:
                if kernel.grad is None:
                    continue
                buffer = self.state[kernel].setdefault("momentum_buffer", torch.zeros_like(kernel))
                buffer.lerp_(kernel.grad, 1 - self._momentum)
                update = kernel.grad.lerp(buffer, self._momentum)
                updates.append(update.reshape(groups, len(kernel) // groups, -1))
            for gradient, update in zip(gradients, _orthogonalized_together(updates), strict=True):
                scale = max(1, update.shape[1] / update.shape[2]) ** 0.5
                gradient.copy_((update * scale).view(gradient.shape))
        return super().step(closure)


def _orthogonalized_together(batches: list[Tensor]) -> list[Tensor]:
    """`orthogonalized` of each `…×rows×columns`, in one go: a graphics card waits for every small operation.

    Zeros around a matrix only add zeros to what becomes of it.
    """
    rows, columns = (max((batch.shape[dim] for batch in batches), default=0) for dim in (1, 2))
    padded = [F.pad(batch, (0, columns - batch.shape[2], 0, rows - batch.shape[1])) for batch in batches]
    whole = orthogonalized(torch.cat(padded)) if padded else torch.empty(0)
    parts = whole.split([len(batch) for batch in batches])
    return [part[:, : batch.shape[1], : batch.shape[2]] for part, batch in zip(parts, batches, strict=True)]


@dataclass
class TrainState:
    """What a training keeps from step to step, besides the weights."""

    recipe: Recipe
    placement: Placement
    optimizer: torch.optim.Optimizer
    scheduler: LRScheduler
    scaler: torch.amp.GradScaler


def prepare(model: nn.Module, recipe: Recipe, steps_per_epoch: int) -> TrainState:
    """Lay the weights out for speed and build what `recipe` asks for around them.

    Raises `ValueError` for a network without weights to train, and for float16 weights: steps would round to zero.
    """
    placement = Placement.of(model, recipe.precision)
    if not any(parameter.requires_grad for parameter in model.parameters()):
        raise ValueError(f"this {type(model).__name__} has no weights to train, expected some with requires_grad")
    if placement.precision.weights is torch.float16:
        raise ValueError(
            "the weights are float16, expected float32: model.float(), and precision='fp16' to compute in it"
        )
    model.to(memory_format=placement.layout)
    optimizer = _optimizer(recipe, model)
    scheduler = _scheduler(recipe, optimizer, steps_per_epoch)
    scaler = torch.amp.GradScaler(placement.device.type, enabled=placement.precision.dtype is torch.float16)
    return TrainState(recipe, placement, optimizer, scheduler, scaler)


def _optimizer(recipe: Recipe, model: nn.Module) -> torch.optim.Optimizer:
    options: dict[str, Any] = dict(
        lr=recipe.lr,
        momentum=recipe.momentum,
        nesterov=recipe.nesterov and recipe.momentum > 0,
        weight_decay=recipe.weight_decay,
    )
    if recipe.optimizer == "muon":
        return Muon(model, muon_lr=recipe.muon_lr, muon_weight_decay=recipe.muon_weight_decay, **options)
    # One pass over weight, gradient and momentum: a fifth of the time of the plain step.
    optimizer = torch.optim.SGD(model.parameters(), fused=True, **options)
    if recipe.momentum > 0:
        # The fused step would make these but not fill them where the scaler leaves out the first step (torch 2.15).
        for parameter in model.parameters():
            optimizer.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)
    return optimizer


def _scheduler(recipe: Recipe, optimizer: torch.optim.Optimizer, steps_per_epoch: int) -> LRScheduler:
    """A schedule that is stepped after every batch; a training of a single step takes it at the full rate."""
    steps = recipe.epochs * steps_per_epoch
    if recipe.schedule == "one-cycle" and steps > 1:
        # The momentum stays what the recipe says; by default OneCycleLR would run it from 0.95 to 0.85 and back.
        # A warm-up of exactly one step would divide by zero in it.
        highest = [group["lr"] for group in optimizer.param_groups]
        warmup = max(recipe.warmup, 1.5 / steps)
        return OneCycleLR(optimizer, max_lr=highest, total_steps=steps, pct_start=warmup, cycle_momentum=False)
    if recipe.schedule == "step":
        return StepLR(optimizer, step_size=recipe.step_size * steps_per_epoch, gamma=recipe.gamma)
    return ConstantLR(optimizer, factor=1.0, total_iters=0)
