"""Optimizers of D-STM: Adam as published, AdamW, or Muon for the kernels and AdamW for the rest."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from pipeline.core.muon import Muon
from pipeline.dstm.network import DSTM
from pipeline.training.config import TrainingConfig


class Together:
    """Optimizers of different weights that step together.

    Args:
        parts: the optimizers.
    """

    def __init__(self, parts: Sequence[torch.optim.Optimizer]) -> None:
        self.parts = tuple(parts)
        self._found_inf: Tensor | None = None

    @property
    def found_inf(self) -> Tensor | None:
        """On a GPU: where this is not 0, the optimizers leave their step out; nothing waits for the device."""
        return self._found_inf

    @found_inf.setter
    def found_inf(self, value: Tensor) -> None:
        self._found_inf = value
        for part in self.parts:
            part.found_inf = value  # type: ignore[attr-defined]

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        """Groups of all parts."""
        return [group for part in self.parts for group in part.param_groups]

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Forget the gradients."""
        for part in self.parts:
            part.zero_grad(set_to_none=set_to_none)

    def step(self) -> None:
        """Update all weights that have a gradient."""
        for part in self.parts:
            part.step()

    def state_dict(self) -> dict[str, Any]:
        """State of each part."""
        return {str(number): part.state_dict() for number, part in enumerate(self.parts)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore a stored state."""
        for number, part in enumerate(self.parts):
            part.load_state_dict(state[str(number)])


def make_optimizer(network: DSTM, config: TrainingConfig, device: torch.device) -> Together:
    """The optimizer of a training.

    Args:
        network: on `device`.
        config: kind and rates.
        device: of the computation; on a GPU Adam is a fused kernel.
    """
    named = [(name, p) for name, p in network.named_parameters() if p.requires_grad]
    kernels = [p for name, p in named if config.optimizer == "muon" and _inner(name, p)]
    rest = [p for _, p in named if all(p is not kernel for kernel in kernels)]
    kind = torch.optim.Adam if config.optimizer == "adam" else torch.optim.AdamW
    betas = (config.beta1, config.beta2)
    parts: list[torch.optim.Optimizer] = [
        kind(rest, lr=config.lr, betas=betas, weight_decay=config.weight_decay, fused=device.type == "cuda")
    ]
    if kernels:
        parts.append(Muon(kernels, config.lr, weight_decay=config.weight_decay, adam_sized=True))
    return Together(parts)


def _inner(name: str, parameter: Tensor) -> bool:
    """Whether a parameter is a kernel between features, neither of an input plane nor of the result."""
    return parameter.ndim == 4 and parameter.shape[1] > 3 and not name.startswith("decoder.predict")
