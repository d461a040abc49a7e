"""The training loop: batches from threads, one step, a line an epoch, state that survives a kill."""

from __future__ import annotations

import signal
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from pipeline.core.checkpoint import load_checkpoint, save_checkpoint
from pipeline.core.errors import UserError
from pipeline.core.processes import Processes
from pipeline.core.runtime import log
from pipeline.datasets.clips import Batch, Clip, ClipDataset, collate
from pipeline.dstm.network import DSTM
from pipeline.training.config import TrainingConfig
from pipeline.training.curriculum import learning_rate, max_skip
from pipeline.training.losses import Objective

STATE_KIND = "dstm-training"


def fit(
    network: DSTM,
    dataset: ClipDataset,
    objective: Objective,
    config: TrainingConfig,
    *,
    seed: int,
    device: torch.device,
    workers: int,
    state_path: Path,
    processes: Processes,
) -> list[dict[str, float]]:
    """Train `network` in place.

    A clip is drawn from a generator of (seed, step, place in the batch) alone, so neither workers, nor processes, nor
    an interruption change what is seen.

    Args:
        network: on `device`.
        dataset: where clips come from.
        objective: the losses.
        config: the stage.
        seed: of the clips.
        device: of the computation.
        workers: threads that prepare clips.
        state_path: file of the resume state, removed by the caller when the result is written.
        processes: this process among those that share the batch.

    Returns:
        A row an epoch: epoch, step, lr, max_skip and the mean of every loss.

    Raises:
        UserError: a loss is not finite, or `state_path` is of another network.
        KeyboardInterrupt: interrupted; the state is saved.
    """
    n_videos = sum(len(source.videos.videos) for source in dataset.sources)
    steps_per_epoch = config.steps_per_epoch or max(1, -(-n_videos // config.batch))
    optimizer = _make_optimizer(network, config)
    history: list[dict[str, float]] = []
    sums: dict[str, float] = {}
    first = 0
    if state_path.exists():
        first, history, sums = _restore(state_path, network, optimizer)
        log(f"resuming at step {first} of {config.epochs * steps_per_epoch}")
    elif network.config.key_std:
        _calibrate(network, _first_batch(dataset, config, seed), device, config)
    model = _averaging(network, device, processes)
    network.train()

    def save(step: int) -> None:
        if processes.first:
            extra = {"step": step, "history": history, "sums": sums, "optimizer": optimizer.state_dict()}
            save_checkpoint(state_path, STATE_KIND, {}, network.state_dict(), **extra)

    batches = _prefetch(
        dataset, config, seed, workers, range(first, config.epochs * steps_per_epoch), steps_per_epoch, processes
    )
    start = time.monotonic()
    with _stop_on_signal() as stopping:
        for step, batch in batches:
            lr = learning_rate(config, step, steps_per_epoch)
            for group in optimizer.param_groups:
                group["lr"] = lr
            losses = processes.mean(_step(model, network, optimizer, objective, _to(batch, device), config))
            if not np.isfinite(losses["loss"]):
                raise UserError(
                    f"the loss is {losses['loss']} at step {step}; expected a finite number; lower lr or clip_norm"
                )
            for name, value in losses.items():
                sums[name] = sums.get(name, 0.0) + value
            if (step + 1) % steps_per_epoch == 0:
                epoch = step // steps_per_epoch
                means = {name: value / steps_per_epoch for name, value in sums.items()}
                history.append(
                    {"epoch": epoch + 1, "step": step + 1, "lr": lr, "max_skip": max_skip(config, epoch), **means}
                )
                sums = {}
                _report(history[-1], config, (time.monotonic() - start) / (step + 1 - first), processes)
                save(step + 1)
            elif stopping():
                save(step + 1)
            if stopping():
                raise KeyboardInterrupt
    return history


def _step(
    model: nn.Module,
    network: DSTM,
    optimizer: torch.optim.Optimizer,
    objective: Objective,
    batch: Batch,
    config: TrainingConfig,
) -> dict[str, float]:
    """One forward, backward and update; the losses as numbers."""
    classes = batch.objects.shape[1] + 1
    with torch.autocast(batch.frames.device.type, torch.bfloat16, enabled=config.precision == "bf16"):
        outcome = model(batch.frames, batch.depth, one_hot(batch.labels[:, 0], classes), batch.objects)
    losses = objective(outcome, batch)
    optimizer.zero_grad(set_to_none=True)
    losses["loss"].backward()
    if config.clip_norm:
        nn.utils.clip_grad_norm_(network.parameters(), config.clip_norm)
    optimizer.step()
    return {name: float(value.detach()) for name, value in losses.items()}


def one_hot(labels: Tensor, classes: int) -> Tensor:
    """Masks of a label map.

    Args:
        labels: int64 B,H,W; ids below `classes`, anything above (void) belongs to no class.
        classes: K+1.

    Returns:
        float32 B,K+1,H,W.
    """
    return F.one_hot(labels.clamp(max=classes), classes + 1)[..., :classes].permute(0, 3, 1, 2).float()


def _averaging(network: DSTM, device: torch.device, processes: Processes) -> nn.Module:
    """The network whose gradients are averaged over all processes."""
    if processes.count == 1:
        return network
    return DistributedDataParallel(network, device_ids=[device.index] if device.type == "cuda" else None)


def _make_optimizer(network: DSTM, config: TrainingConfig) -> torch.optim.Optimizer:
    parameters = [p for p in network.parameters() if p.requires_grad]
    kind = torch.optim.AdamW if config.optimizer == "adamw" else torch.optim.Adam
    return kind(parameters, lr=config.lr, betas=(config.beta1, config.beta2), weight_decay=config.weight_decay)


def _draw(dataset: ClipDataset, seed: int, step: int, place: int, skip: int) -> Clip:
    return dataset.sample(np.random.default_rng(np.random.SeedSequence((seed, step, place))), skip)


def _first_batch(dataset: ClipDataset, config: TrainingConfig, seed: int) -> Batch:
    clips = [_draw(dataset, seed, 0, place, max_skip(config, 0)) for place in range(config.batch)]
    return collate(clips, config.clips.max_objects)


def _calibrate(network: DSTM, batch: Batch, device: torch.device, config: TrainingConfig) -> None:
    batch = _to(batch, device)
    masks = one_hot(batch.labels[:, 0], batch.objects.shape[1] + 1)
    network.calibrate_keys(batch.frames[:, 0], batch.depth[:, 0], masks, batch.objects)


def _prefetch(
    dataset: ClipDataset,
    config: TrainingConfig,
    seed: int,
    workers: int,
    steps: range,
    steps_per_epoch: int,
    processes: Processes,
    ahead: int = 3,
) -> Iterator[tuple[int, Batch]]:
    """Prepare this process' part of each batch in threads, `ahead` batches before they are needed, in order."""
    places = processes.share(config.batch)
    with ThreadPoolExecutor(max(1, workers)) as pool:
        waiting: deque[tuple[int, list[Future[Clip]]]] = deque()
        try:
            for step in steps:
                skip = max_skip(config, step // steps_per_epoch)
                waiting.append((step, [pool.submit(_draw, dataset, seed, step, place, skip) for place in places]))
                if len(waiting) > ahead:
                    yield _collect(waiting.popleft(), config)
            while waiting:
                yield _collect(waiting.popleft(), config)
        finally:
            for _, futures in waiting:
                for future in futures:
                    future.cancel()


def _collect(item: tuple[int, list[Future[Clip]]], config: TrainingConfig) -> tuple[int, Batch]:
    step, futures = item
    return step, collate([future.result() for future in futures], config.clips.max_objects)


def _to(batch: Batch, device: torch.device) -> Batch:
    if device.type == "cuda":
        batch = Batch(*(x.pin_memory() for x in (batch.frames, batch.depth, batch.labels, batch.objects)))
    return Batch(*(x.to(device, non_blocking=True) for x in (batch.frames, batch.depth, batch.labels, batch.objects)))


def _restore(
    path: Path, network: DSTM, optimizer: torch.optim.Optimizer
) -> tuple[int, list[dict[str, float]], dict[str, float]]:
    state: dict[str, Any] = load_checkpoint(path, STATE_KIND)
    network.load_state_dict(state["state_dict"])
    optimizer.load_state_dict(state["optimizer"])
    return state["step"], state["history"], state["sums"]


def _report(row: dict[str, float], config: TrainingConfig, seconds: float, processes: Processes) -> None:
    if processes.first:
        terms = ", ".join(f"{k} {v:.4f}" for k, v in row.items() if k not in ("epoch", "step", "lr", "max_skip"))
        log(f"epoch {row['epoch']:.0f}/{config.epochs} step {row['step']:.0f}: {terms} ({seconds:.2f} s/step)")


@contextmanager
def _stop_on_signal() -> Iterator[Callable[[], bool]]:
    """Turn the first SIGINT or SIGTERM into a wish to stop after the step; a second one stops at once."""
    asked: list[int] = []

    def ask(number: int, frame: FrameType | None) -> None:
        if asked:
            raise KeyboardInterrupt
        asked.append(number)

    try:
        before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    except ValueError:  # not in the main thread (a test, a notebook): signals stay as they are
        before = {}
    try:
        yield lambda: bool(asked)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
