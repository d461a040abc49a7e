"""The state of a training: weights, their moving average, optimizer and position; saved and restored together."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from pipeline.core.resume import load_state, store_state
from pipeline.dstm.config import to_plain
from pipeline.dstm.network import DSTM
from pipeline.training.config import TrainingConfig
from pipeline.training.optimizers import Together, make_optimizer
from pipeline.training.precision import make_scaler

STATE_KIND = "dstm-training"


class State:
    """Weights, averaged weights, optimizer, position and curves of a training.

    Args:
        network: trained in place.
        optimizer: of the network's weights.
        scaler: of the loss.
        ema_decay: share of the average that each step keeps; 0: no average.

    Attributes:
        step: number of optimizer steps so far.
        history: one row for each complete epoch.
    """

    def __init__(self, network: DSTM, optimizer: Together, scaler: torch.amp.GradScaler, ema_decay: float) -> None:
        self.network = network
        self.optimizer = optimizer
        self.scaler = scaler
        self.step = 0
        self.history: list[dict[str, float]] = []
        self._sums: dict[str, float] = {}
        self._counted = 0
        self._decay = ema_decay
        self._average: AveragedModel | None = None

    @property
    def counted(self) -> int:
        """Steps whose losses have been counted."""
        return self._counted

    def update(self) -> None:
        """Step the optimizer and the average."""
        if self._decay and self._average is None:
            self._average = _averaged(self.network, self._decay)
        for part in self.optimizer.parts:
            self.scaler.step(part)
        self.scaler.update()
        if self._average is not None:
            self._average.update_parameters(self.network)
        self.step += 1

    def count(self, losses: dict[str, float]) -> None:
        """Add the losses of one step to those of the epoch."""
        for name, value in losses.items():
            self._sums[name] = self._sums.get(name, 0.0) + value
        self._counted += 1

    def end_epoch(self, lr: float, skip: int, steps: int) -> None:
        """Finish the row of an epoch.

        Args:
            lr: learning rate of its last step.
            skip: largest number of frames skipped in it.
            steps: its number of steps.
        """
        means = {name: value / steps for name, value in self._sums.items()}
        self.history.append({"epoch": self.step // steps, "step": self.step, "lr": lr, "max_skip": skip, **means})
        self._sums = {}

    def weights(self) -> dict[str, Tensor]:
        """The averaged weights, if there are any, otherwise those of the network."""
        network = self.network if self._average is None else self._average.module
        weights: dict[str, Tensor] = network.state_dict()
        return weights

    def save(self, path: Path) -> None:
        """Write everything, next to what was written before (`core/resume.py`)."""
        average = self._average
        extra: dict[str, Any] = {"step": self.step, "history": self.history, "sums": self._sums}
        extra["average"] = {} if average is None else {k: v.cpu() for k, v in average.state_dict().items()}
        extra |= {"optimizer": self.optimizer.state_dict(), "scaler": self.scaler.state_dict()}
        config = to_plain(self.network.switches, self.network.config)
        store_state(path, STATE_KIND, config, self.network.state_dict(), **extra)

    def restore(self, path: Path) -> bool:
        """Continue from what `save` wrote.

        Returns:
            Whether there was a complete state.
        """
        saved = load_state(path, STATE_KIND)
        if saved is None:
            return False
        self.network.load_state_dict(saved["state_dict"])
        self.optimizer.load_state_dict(saved["optimizer"])
        if saved["scaler"]:
            self.scaler.load_state_dict(saved["scaler"])
        self.step, self.history, self._sums = saved["step"], saved["history"], saved["sums"]
        self._counted = self.step
        if saved["average"]:
            self._average = _averaged(self.network, self._decay)
            self._average.load_state_dict(saved["average"])
        return True


def make_state(network: DSTM, config: TrainingConfig, device: torch.device, dtype: torch.dtype) -> State:
    """The state before the first step.

    Args:
        network: with its initial weights, on `device`.
        config: optimizer and average.
        device: of the computation; on a GPU the optimizer uses a fused kernel.
        dtype: of the arithmetic.
    """
    optimizer = make_optimizer(network, config, device)
    return State(network, optimizer, make_scaler(dtype, device), config.ema_decay)


def _averaged(network: DSTM, decay: float) -> AveragedModel:
    return AveragedModel(network, multi_avg_fn=get_ema_multi_avg_fn(decay), use_buffers=True)
