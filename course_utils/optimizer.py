"""`Muon`: stochastic gradient descent whose updates of convolution kernels are orthogonalized."""

import torch
from torch import Tensor, nn


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

    def __init__(
        self, model: nn.Module, *, muon_lr: float, muon_weight_decay: float, momentum: float, **options
    ):
        convolutions = [module for module in model.modules() if isinstance(module, nn.modules.conv._ConvNd)]
        self._groups = {module.weight: module.groups for module in convolutions if not module.transposed}
        others = [parameter for parameter in model.parameters() if parameter not in self._groups]
        # Without a momentum of its own, SGD's weight decay is the decoupled one.
        kernels = dict(params=list(self._groups), lr=muon_lr, weight_decay=muon_weight_decay, momentum=0, nesterov=False)
        super().__init__([kernels, {"params": others}], momentum=momentum, **options)
        self._momentum = momentum

    @torch.no_grad()
    def step(self, closure=None):
        """Put the orthogonalized momentum in place of each kernel's gradient, then take SGD's step."""
        for kernel, groups in self._groups.items():
            if kernel.grad is None:
                continue
            state = self.state[kernel]
            buffer = state.setdefault("momentum_buffer", torch.zeros_like(kernel))
            buffer.lerp_(kernel.grad, 1 - self._momentum)
            update = kernel.grad.lerp(buffer, self._momentum).reshape(groups, len(kernel) // groups, -1)
            scale = max(1, update.shape[1] / update.shape[2]) ** 0.5
            kernel.grad.copy_(orthogonalized(update).view(kernel.shape) * scale)
        return super().step(closure)
