"""Muon for convolution kernels, with float32 products."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import overload

import torch
from torch import Tensor

_COEFFICIENTS = (3.4445, -4.7750, 2.0315)  # of the quintic iteration, as published
_ITERATIONS = 5


class Muon(torch.optim.Optimizer):
    """Muon (Jordan et al. 2024): the step of a kernel is about the nearest orthogonal matrix of its momentum.

    A kernel O,I,h,w is a matrix of O rows. `torch.optim.Muon` takes matrices one by one and multiplies them in
    bfloat16, which takes 15 times as long on CPUs without bfloat16 instructions; here all kernels of one shape are one
    float32 batch. As with torch's fused optimizers, a step changes nothing where the attribute `found_inf` is not 0.

    Args:
        kernels: parameters of two or more dimensions.
        lr: learning rate: the size of a step relative to an orthogonal matrix, times the square root of rows / columns
            where there are more rows; with `adam_sized`, the root mean square of a step's elements is about 0.2 `lr`,
            which is that of Adam, so the same rates fit both.
        momentum: decay of the moving average of gradients; Nesterov's form is used.
        weight_decay: decoupled weight decay.
        adam_sized: see `lr`.
    """

    def __init__(
        self,
        kernels: Iterable[Tensor],
        lr: float,
        momentum: float = 0.95,
        weight_decay: float = 0.0,
        adam_sized: bool = False,
    ) -> None:
        defaults = {"lr": lr, "momentum": momentum, "weight_decay": weight_decay, "adam_sized": adam_sized}
        super().__init__(kernels, defaults)
        self.found_inf: Tensor | None = None

    @overload
    def step(self, closure: None = None) -> None: ...

    @overload
    def step(self, closure: Callable[[], float]) -> float: ...

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        """Update the kernels that have a gradient.

        Args:
            closure: computes the loss again; not needed.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            shapes: dict[tuple[int, int], list[Tensor]] = {}
            for kernel in group["params"]:
                if kernel.grad is not None:
                    shapes.setdefault((len(kernel), kernel[0].numel()), []).append(kernel)
            for (rows, columns), kernels in shapes.items():
                rate = group["lr"] * _scale(rows, columns, group["adam_sized"])
                directions = orthogonal(torch.stack([self._momentum(k, group["momentum"]) for k in kernels]))
                for kernel, direction in zip(kernels, directions):
                    step = kernel * (group["lr"] * group["weight_decay"]) + direction.view(kernel.shape) * rate
                    kernel.sub_(step if self.found_inf is None else step.masked_fill(self.found_inf > 0, 0.0))
        return loss

    def _momentum(self, kernel: Tensor, decay: float) -> Tensor:
        """The direction before it is made orthogonal, as a matrix."""
        assert kernel.grad is not None
        if "momentum" not in self.state[kernel]:
            self.state[kernel]["momentum"] = torch.zeros_like(kernel)
        average, gradient = self.state[kernel]["momentum"], kernel.grad
        if self.found_inf is not None:
            gradient = torch.where(self.found_inf > 0, average, gradient)  # leaves the average as it is
        average.lerp_(gradient, 1 - decay)
        return gradient.lerp(average, decay).flatten(1)


def orthogonal(matrices: Tensor) -> Tensor:
    """Matrices with the same singular vectors and singular values near 1 (0.7 to 1.2), by Newton-Schulz iteration.

    Args:
        matrices: N,rows,columns.

    Returns:
        N,rows,columns float32; a zero matrix stays zero.
    """
    a, b, c = _COEFFICIENTS
    tall = matrices.shape[1] > matrices.shape[2]
    x = matrices.float()
    x = x.mT if tall else x
    x = x / x.flatten(1).norm(dim=1).clamp(min=1e-7)[:, None, None]
    for _ in range(_ITERATIONS):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.mT if tall else x


def _scale(rows: int, columns: int, adam_sized: bool) -> float:
    if adam_sized:
        return 0.2 * float(max(rows, columns)) ** 0.5
    return float(max(1.0, rows / columns)) ** 0.5
