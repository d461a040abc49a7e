"""Train the depth network: batches are split over replicas that run in parallel."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path

import torch
from torch import Tensor, nn

from pipeline.core.errors import UserError
from pipeline.core.kernels.onednn import arithmetic, describe_arithmetic
from pipeline.core.resume import load_state, store_state
from pipeline.core.runtime import log
from pipeline.core.signals import stop_on_signal
from pipeline.depth_training.averaging import averaged_copy, recompute_statistics
from pipeline.depth_training.losses import DepthLosses, depth_loss
from pipeline.depth_training.optimizers import DepthOptimizer
from pipeline.depth_training.replicas import average_gradients, average_statistics, replicate
from pipeline.hourglass.batches import DepthBatch
from pipeline.hourglass.config import TrainDepthConfig
from pipeline.hourglass.network import Hourglass

_KIND = "hourglass-training"

Batches = Callable[[int, int], Iterator[DepthBatch]]


class DepthTrainer:
    """Trains a network; its state after any step can be stored, and training resumed with the same result.

    Args:
        model: The network, on its device.
        config: The recipe.
        steps_per_epoch: Batches in an epoch.
        save_every: Steps between two saves of the state; 0: only at the end of an epoch.
    """

    def __init__(self, model: Hourglass, config: TrainDepthConfig, steps_per_epoch: int, save_every: int = 0) -> None:
        self.model, self._config, self._steps_per_epoch = model, config, steps_per_epoch
        self._save_every = save_every
        self._optimizer = DepthOptimizer(model, config)
        self._device = next(model.parameters()).device
        self._average = averaged_copy(model, config.ema_decay) if config.ema_decay else None
        self._replicas = replicate(model, config.replicas)
        self._dtype = arithmetic(config.precision, self._device)
        self.epoch = self.step = 0
        self._sums = torch.zeros(len(DepthLosses._fields), dtype=torch.float64)

    def run(self, batches: Batches, state: Path | None = None) -> None:
        """Train to the last epoch; the network then has the averaged weights and the recomputed statistics.

        Args:
            batches: Returns the batches of an epoch from some step on; one more epoch than those of training is used
                for the statistics.
            state: File from which to resume if it exists, and which is written after each epoch, every `save_every`
                steps and on a signal.

        Raises:
            UserError: The loss is no longer finite.
            KeyboardInterrupt: Interrupted; the state is saved.
        """
        log(f"training the depth network in {describe_arithmetic(self._config.precision, self._device)}")
        if state is not None and self._restore(state):
            log(f"resuming after step {self.step} of epoch {self.epoch + 1} of {self._config.epochs}")
        threads = torch.get_num_threads()
        with ThreadPoolExecutor(len(self._replicas)) as pool, stop_on_signal() as asked:
            while self.epoch < self._config.epochs:
                if self.step == 0 and self.epoch == self._config.epochs - self._config.frozen_epochs:
                    self._freeze(batches)
                try:
                    if len(self._replicas) > 1:
                        torch.set_num_threads(1)
                    self._one_epoch(batches(self.epoch, self.step), pool, state, asked)
                finally:
                    torch.set_num_threads(threads)
        if self._average is not None:
            self.model.load_state_dict(self._average.module.state_dict())
        if not self._config.frozen_epochs:
            recompute_statistics(self.model, self._statistics_frames(batches), self._dtype)
        self.model.eval()

    def _freeze(self, batches: Batches) -> None:
        """Compute the statistics with which the remaining epochs are trained, and start the average anew."""
        recompute_statistics(self.model, self._statistics_frames(batches), self._dtype)
        self._replicas = replicate(self.model, self._config.replicas)
        if self._config.ema_decay:
            self._average = averaged_copy(self.model, self._config.ema_decay)

    def _statistics_frames(self, batches: Batches) -> Iterator[Tensor]:
        """Large batches of training frames, from an epoch that is not trained on."""
        config = self._config
        if config.statistics_batches:
            epoch = batches(config.epochs, 0)
            for _ in range(config.statistics_batches):
                group = [self._on_device(batch) for batch in islice(epoch, config.statistics_batch // config.batch)]
                if not group:
                    return
                yield torch.cat(group)

    def _one_epoch(
        self, batches: Iterator[DepthBatch], pool: ThreadPoolExecutor, state: Path | None, asked: Callable[[], bool]
    ) -> None:
        """The rest of an epoch from the present step on."""
        frozen = self.epoch >= self._config.epochs - self._config.frozen_epochs
        for replica in self._replicas:
            replica.train(not frozen)
        for batch in batches:
            self._optimizer.set_factor(self.rate_factor(self.epoch * self._steps_per_epoch + self.step))
            self._sums += self._step(batch, pool)
            self.step += 1
            if state is not None and self.step < self._steps_per_epoch and self._saves(asked()):
                self._store(state)
                if asked():
                    raise KeyboardInterrupt
        terms = zip(DepthLosses._fields, self._sums / max(1, self.step))
        self.epoch, self.step, self._sums = self.epoch + 1, 0, torch.zeros_like(self._sums)
        text = ", ".join(f"{name} {value:.4f}" for name, value in terms)
        log(f"epoch {self.epoch}/{self._config.epochs}: {text}")
        if state is not None:
            self._store(state)
        if asked() and self.epoch < self._config.epochs:
            raise KeyboardInterrupt

    def _saves(self, asked: bool) -> bool:
        done = self.epoch * self._steps_per_epoch + self.step
        return asked or (self._save_every > 0 and done % self._save_every == 0)

    def _step(self, batch: DepthBatch, pool: ThreadPoolExecutor) -> Tensor:
        parts = zip(*(tensor.chunk(len(self._replicas)) for tensor in batch))
        jobs = [pool.submit(self._backward, replica, DepthBatch(*part)) for replica, part in zip(self._replicas, parts)]
        losses = torch.stack([job.result() for job in jobs]).mean(0)
        if not losses.isfinite().all():
            raise UserError(
                f"the depth loss is {losses[0]:.3g} in epoch {self.epoch + 1}; expected a finite number; "
                "lower train_depth.lr or raise train_depth.warmup_steps"
            )
        average_gradients(self._replicas)
        self._optimizer.step()
        for replica in self._replicas:
            replica.zero_grad(set_to_none=True)
        average_statistics(self._replicas)
        if self._average is not None:
            self._average.update_parameters(self.model)
        return losses

    def _backward(self, replica: nn.Module, batch: DepthBatch) -> Tensor:
        """Gradients of one part of a batch, and its losses."""
        if len(self._replicas) > 1:
            torch.set_num_threads(1)  # this setting is per thread
        frames = self._on_device(batch)
        # each weight is used once per pass, so a cache of converted weights, shared by all threads, gains nothing
        with torch.autocast(
            self._device.type, torch.bfloat16, enabled=self._dtype == torch.bfloat16, cache_enabled=False
        ):
            log_depth, _ = replica(frames)
        stride = self.model.config.stem_stride
        losses = depth_loss(
            log_depth[:, 0], frames[:, :, ::stride, ::stride], batch.depth.to(self._device), self._config.loss
        )
        losses.total.backward()
        return torch.stack([term.detach() for term in losses]).double().cpu()

    def _on_device(self, batch: DepthBatch) -> Tensor:
        return batch.frames.to(self._device, memory_format=torch.channels_last)

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

    def _store(self, path: Path) -> None:
        extra = {"epoch": self.epoch, "step": self.step, "sums": self._sums, "optimizer": self._optimizer.state_dict()}
        average = None if self._average is None else self._average.state_dict()
        store_state(path, _KIND, {}, self.model.state_dict(), average=average, **extra)

    def _restore(self, path: Path) -> bool:
        """Continue from a stored state; returns whether there was one."""
        saved = load_state(path, _KIND)
        if saved is None:
            return False
        self.model.load_state_dict(saved["state_dict"])
        self._optimizer.load_state_dict(saved["optimizer"])
        if self._average is not None:
            self._average.load_state_dict(saved["average"])
        self.epoch, self.step, self._sums = int(saved["epoch"]), int(saved["step"]), saved["sums"]
        self._replicas = replicate(self.model, self._config.replicas)
        return True
