"""Training the depth network: Adam over batches, cut into replicas that run side by side."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch
from torch import Tensor, nn

from pipeline.core.checkpoint import load_checkpoint, save_checkpoint
from pipeline.core.errors import UserError
from pipeline.core.kernels.onednn import arithmetic, describe_arithmetic
from pipeline.core.runtime import log
from pipeline.hourglass.batches import DepthBatch
from pipeline.hourglass.config import TrainDepthConfig
from pipeline.hourglass.losses import DepthLosses, depth_loss
from pipeline.hourglass.network import Hourglass
from pipeline.hourglass.optimizers import DepthOptimizer

_KIND = "hourglass-training"

Batches = Callable[[int], Iterator[DepthBatch]]


class DepthTrainer:
    """Trains a network; its state after any epoch can be stored and taken up again with the same result.

    Args:
        model: The network, on its device.
        config: The recipe.
        steps_per_epoch: Batches in an epoch.
    """

    def __init__(self, model: Hourglass, config: TrainDepthConfig, steps_per_epoch: int) -> None:
        self.model, self._config, self._steps_per_epoch = model, config, steps_per_epoch
        self._optimizer = DepthOptimizer(model, config)
        self._device = next(model.parameters()).device
        self._replicas = _replicas(model, config.replicas)
        self._lower = arithmetic(config.precision, self._device) == torch.bfloat16
        self.epoch = 0

    def run(self, batches: Batches, state: Path | None = None) -> None:
        """Train to the last epoch.

        Args:
            batches: Gives the batches of an epoch.
            state: File to take up from if it exists, and to write after each epoch.

        Raises:
            UserError: The loss is no longer finite.
        """
        log(f"training the depth network in {describe_arithmetic(self._config.precision, self._device)}")
        if state is not None and state.exists():
            self._restore(state)
            log(f"going on after epoch {self.epoch} of {self._config.epochs}")
        threads = torch.get_num_threads()
        with ThreadPoolExecutor(len(self._replicas)) as pool:
            try:
                if len(self._replicas) > 1:
                    torch.set_num_threads(1)
                while self.epoch < self._config.epochs:
                    self._one_epoch(batches(self.epoch), pool)
                    if state is not None:
                        self._store(state)
            finally:
                torch.set_num_threads(threads)

    def _one_epoch(self, batches: Iterator[DepthBatch], pool: ThreadPoolExecutor) -> None:
        for replica in self._replicas:
            replica.train()
        sums, steps = torch.zeros(len(DepthLosses._fields), dtype=torch.float64), 0
        for batch in batches:
            self._optimizer.set_factor(self.rate_factor(self.epoch * self._steps_per_epoch + steps))
            sums += self._step(batch, pool)
            steps += 1
        self._merge_statistics()
        self.epoch += 1
        terms = ", ".join(f"{name} {value:.4f}" for name, value in zip(DepthLosses._fields, sums / max(1, steps)))
        log(f"epoch {self.epoch}/{self._config.epochs}: {terms}")

    def _step(self, batch: DepthBatch, pool: ThreadPoolExecutor) -> Tensor:
        parts = zip(*(tensor.chunk(len(self._replicas)) for tensor in batch))
        jobs = [pool.submit(self._backward, replica, DepthBatch(*part)) for replica, part in zip(self._replicas, parts)]
        losses = torch.stack([job.result() for job in jobs]).mean(0)
        if not losses.isfinite().all():
            raise UserError(
                f"the depth loss is {losses[0]:.3g} in epoch {self.epoch + 1}; expected a finite number; "
                "lower train_depth.lr or raise train_depth.warmup_steps"
            )
        for parameters in zip(*(replica.parameters() for replica in self._replicas)):
            gradients = [p.grad for p in parameters if p.grad is not None]
            if gradients:  # no term of the loss reaches the confidence
                parameters[0].grad = torch.stack(gradients).mean(0)
        self._optimizer.step()
        for replica in self._replicas:
            replica.zero_grad(set_to_none=True)
        return losses

    def _backward(self, replica: nn.Module, batch: DepthBatch) -> Tensor:
        """Gradients of one part of a batch, and its losses."""
        if len(self._replicas) > 1:
            torch.set_num_threads(1)  # a setting of each thread
        frames = batch.frames.to(self._device, memory_format=torch.channels_last)
        # each weight is used once a pass, so a cache of converted weights, shared by all threads, gains nothing
        with torch.autocast(self._device.type, torch.bfloat16, enabled=self._lower, cache_enabled=False):
            log_depth, _ = replica(frames)
        stride = self.model.config.stem_stride
        losses = depth_loss(
            log_depth[:, 0], frames[:, :, ::stride, ::stride], batch.depth.to(self._device), self._config.loss
        )
        losses.total.backward()
        return torch.stack([term.detach() for term in losses]).double().cpu()

    def rate_factor(self, step: int) -> float:
        """Share of the configured learning rate at a step, counted from 0."""
        config = self._config
        if config.schedule == "halve":
            factor = 0.5 ** (step // self._steps_per_epoch // config.halve_every)
        else:
            total = config.epochs * self._steps_per_epoch
            factor = 0.5 * (1 + math.cos(math.pi * step / total))
        if step < config.warmup_steps:
            factor *= (step + 1) / config.warmup_steps
        return factor

    def _merge_statistics(self) -> None:
        """Give all replicas the mean of their running statistics; the first of them is the model itself."""
        for buffers in zip(*(replica.buffers() for replica in self._replicas)):
            if buffers[0].is_floating_point() and len(buffers) > 1:
                mean = torch.stack(buffers).mean(0)
                for buffer in buffers:
                    buffer.copy_(mean)

    def _store(self, path: Path) -> None:
        weights, optimizer = self.model.state_dict(), self._optimizer.state_dict()
        save_checkpoint(path, _KIND, {}, weights, optimizer=optimizer, epoch=self.epoch)

    def _restore(self, path: Path) -> None:
        saved = load_checkpoint(path, _KIND)
        self.model.load_state_dict(saved["state_dict"])
        self._optimizer.load_state_dict(saved["optimizer"])
        self.epoch = int(saved["epoch"])
        self._replicas = _replicas(self.model, self._config.replicas)


def _replicas(model: Hourglass, count: int) -> list[Hourglass]:
    """The model and copies of it that share its weights but have gradients and batch statistics of their own."""
    replicas = [model]
    for _ in range(count - 1):
        replica = copy.deepcopy(model)
        for mine, shared in zip(replica.parameters(), model.parameters()):
            mine.data = shared.data
        replicas.append(replica)
    return replicas
