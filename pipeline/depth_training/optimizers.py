"""Optimizers of the depth network: Adam as published, or Muon for the kernels and Adam for the rest."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from pipeline.core.muon import Muon
from pipeline.hourglass.config import TrainDepthConfig
from pipeline.hourglass.network import Hourglass


class DepthOptimizer:
    """One or two optimizers that step together.

    With `optimizer: muon`, Muon updates the kernels before the heads; BatchNorm cancels their scale.

    Args:
        model: The network to train.
        config: Which optimizer, and the learning rates.
    """

    def __init__(self, model: Hourglass, config: TrainDepthConfig) -> None:
        named = list(model.named_parameters())
        muon = config.optimizer == "muon"
        kernels = [p for name, p in named if muon and p.ndim == 4 and name.startswith("seq.")]
        others = [p for _, p in named if all(p is not kernel for kernel in kernels)]
        self._parts: list[torch.optim.Optimizer] = [torch.optim.Adam(others, config.lr, (0.9, 0.999), fused=True)]
        self._rates = [config.lr]
        if kernels:
            self._parts.append(Muon(kernels, config.muon_lr))
            self._rates.append(config.muon_lr)

    def set_factor(self, factor: float) -> None:
        """Set the learning rates to this multiple of the configured ones."""
        for part, rate in zip(self._parts, self._rates):
            for group in part.param_groups:
                group["lr"] = rate * factor

    def step(self) -> None:
        """Update the weights with their gradients."""
        for part in self._parts:
            part.step()

    def state_dict(self) -> list[dict[str, Any]]:
        """State of the optimizers."""
        return [part.state_dict() for part in self._parts]

    def load_state_dict(self, state: list[dict[str, Tensor]]) -> None:
        """Restore a stored state."""
        for part, saved in zip(self._parts, state, strict=True):
            part.load_state_dict(saved)
