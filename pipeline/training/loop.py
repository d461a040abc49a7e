"""The training loop: one step, one log line per epoch, averaged weights, state that survives a kill."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from pipeline.core.errors import UserError
from pipeline.core.kernels.onednn import arithmetic
from pipeline.core.processes import Processes
from pipeline.core.runtime import log
from pipeline.datasets.clips import Batch, ClipDataset
from pipeline.dstm.network import DSTM
from pipeline.training.batches import batches, first_batch
from pipeline.training.config import TrainingConfig
from pipeline.training.curriculum import learning_rate, max_skip
from pipeline.training.losses import Objective
from pipeline.training.state import State, make_state

_READ_EVERY = 20  # on a GPU the losses are read every so many steps, because reading waits for the GPU


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
    """Train `network` in place; with `ema_decay`, it has the averaged weights at the end.

    A clip is drawn from a generator seeded by (seed, step, index in the batch), so workers, processes and interruptions
    do not change the clips.

    Args:
        network: on `device`.
        dataset: source of the clips.
        objective: the losses.
        config: of the stage.
        seed: of the clips.
        device: of the computation.
        workers: processes that prepare clips.
        state_path: file of the resume state; the caller removes it when the result is written.
        processes: rank and number of the processes that share the batch.

    Returns:
        One row per epoch: epoch, step, lr, max_skip and the mean of every loss.

    Raises:
        UserError: a loss is not finite, the batch is too small for batch norm, or `state_path` belongs to another
            network.
        KeyboardInterrupt: interrupted; the state is saved.
    """
    indices = processes.share(config.batch)
    _check_batch(network, config, len(indices), processes)
    steps_per_epoch = config.steps_per_epoch or max(1, -(-dataset.count // config.batch))
    total = config.epochs * steps_per_epoch
    model = _averaging(network, device, processes)
    state = make_state(network, config, device)
    if state_path.exists():
        state.restore(state_path)
        log(f"resuming at step {state.step} of {total}")
    elif network.config.key_std:
        _calibrate(network, first_batch(dataset, config, seed).to(device))
    if device.type == "cuda":
        torch.set_float32_matmul_precision("high")
    dtype = arithmetic(config.precision, device)
    if processes.first:
        log(f"training in {str(dtype).removeprefix('torch.')} on {device}")
    network.train()
    step = _Step(model, state, objective, config, dtype, processes)
    start, first = time.monotonic(), state.step
    feed = batches(
        dataset,
        config,
        seed,
        range(first, total),
        indices=indices,
        steps_per_epoch=steps_per_epoch,
        workers=workers,
        pinned=device.type == "cuda",
    )
    with _stop_on_signal() as stopping:
        for number, batch in feed:
            lr = learning_rate(config, number, steps_per_epoch)
            step(batch.to(device), lr)
            ends_epoch = (number + 1) % steps_per_epoch == 0
            if ends_epoch:
                step.read()
                state.end_epoch(lr, max_skip(config, number // steps_per_epoch), steps_per_epoch)
                _report(state.history[-1], config, (time.monotonic() - start) / (number + 1 - first), processes)
            if ends_epoch or stopping():
                step.read()
                if processes.first:
                    state.save(state_path)
            if stopping():
                raise KeyboardInterrupt
    state.take_average()
    return state.history


class _Step:
    """Forward, backward and update; the losses are read immediately on a CPU, every few steps on a GPU.

    Args:
        model: the network, or a wrapper that averages its gradients over processes.
        state: network, optimizer and position.
        objective: the losses.
        config: of the stage.
        dtype: type of the arithmetic.
        processes: the processes that share the batch.
    """

    def __init__(
        self,
        model: nn.Module,
        state: State,
        objective: Objective,
        config: TrainingConfig,
        dtype: torch.dtype,
        processes: Processes,
    ) -> None:
        self._model, self._state, self._objective = model, state, objective
        self._config, self._dtype, self._processes = config, dtype, processes
        self._unread: list[Tensor] = []
        self._names: list[str] = []

    def __call__(self, batch: Batch, lr: float) -> None:
        """Do one step.

        Args:
            batch: on the network's device.
            lr: learning rate.

        Raises:
            UserError: a loss is not finite; no optimizer step was made with it.
        """
        state, device = self._state, batch.frames.device
        for group in state.optimizer.param_groups:
            group["lr"] = lr
        classes = batch.objects.shape[1] + 1
        with torch.autocast(device.type, torch.bfloat16, enabled=self._dtype == torch.bfloat16):
            outcome = self._model(batch.frames, batch.depth, one_hot(batch.labels[:, 0], classes), batch.objects)
        losses = self._objective(outcome, batch)
        self._names = list(losses)
        self._unread.append(torch.stack([value.detach() for value in losses.values()]))
        if device.type == "cpu" or len(self._unread) >= _READ_EVERY:
            self.read()
        state.optimizer.zero_grad(set_to_none=True)
        losses["loss"].backward()
        if device.type == "cuda":  # if this is not 0, the optimizer skips the step on the device
            state.optimizer.found_inf = (~torch.isfinite(losses["loss"].detach())).float()
        if self._config.clip_norm:
            nn.utils.clip_grad_norm_(state.network.parameters(), self._config.clip_norm)
        state.update()

    def read(self) -> None:
        """Read the losses of the last steps, averaged over all processes.

        Raises:
            UserError: a loss is not finite.
        """
        rows = torch.stack(self._unread).cpu().double().tolist() if self._unread else []
        first = self._state.counted
        self._unread = []
        for number, row in enumerate(rows, start=first):
            losses = self._processes.mean(dict(zip(self._names, row, strict=True)))
            if not abs(losses["loss"]) < float("inf"):  # also true for NaN
                raise UserError(
                    f"the loss is {losses['loss']} at step {number}; expected a finite number; lower lr or clip_norm"
                )
            self._state.count(losses)


def one_hot(labels: Tensor, classes: int) -> Tensor:
    """Masks of a label map.

    Args:
        labels: int64 B,H,W; ids below `classes`; higher values (void) belong to no class.
        classes: K+1.

    Returns:
        float32 B,K+1,H,W.
    """
    return F.one_hot(labels.clamp(max=classes), classes + 1)[..., :classes].permute(0, 3, 1, 2).float()


def _check_batch(network: DSTM, config: TrainingConfig, share: int, processes: Processes) -> None:
    if network.config.norm == "batch" and share < 2:
        raise UserError(
            f"batch is {config.batch} over {processes.count} processes with network.norm batch; expected at least 2 "
            "clips per process, whose statistics normalise them; raise batch or set norm to group or frozen"
        )


def _averaging(network: DSTM, device: torch.device, processes: Processes) -> nn.Module:
    """The network with gradients, and on GPUs also batch statistics, averaged over all processes."""
    if processes.count == 1:
        return network
    if device.type == "cuda":
        nn.SyncBatchNorm.convert_sync_batchnorm(network)  # replaces the layers inside the network
        return DistributedDataParallel(network, device_ids=[device.index])
    if network.config.norm == "batch" and processes.first:
        log("batch norm: on a CPU each process uses its own clips, so the result depends on the number of processes")
    return DistributedDataParallel(network)


@torch.no_grad()
def _calibrate(network: DSTM, batch: Batch) -> None:
    masks = one_hot(batch.labels[:, 0], batch.objects.shape[1] + 1)
    depth = None if batch.depth is None else batch.depth[:, 0]
    network.calibrate_keys(batch.frames[:, 0], depth, masks, batch.objects)


def _report(row: dict[str, float], config: TrainingConfig, seconds: float, processes: Processes) -> None:
    if processes.first:
        terms = ", ".join(f"{k} {v:.4f}" for k, v in row.items() if k not in ("epoch", "step", "lr", "max_skip"))
        log(f"epoch {row['epoch']:.0f}/{config.epochs} step {row['step']:.0f}: {terms} ({seconds:.2f} s/step)")


@contextmanager
def _stop_on_signal() -> Iterator[Callable[[], bool]]:
    """Turn the first SIGINT or SIGTERM into a request to stop after the step; a second one stops immediately."""
    asked: list[int] = []

    def ask(number: int, frame: FrameType | None) -> None:
        if asked:
            raise KeyboardInterrupt
        asked.append(number)

    try:
        before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    except ValueError:  # not in the main thread (a test, a notebook): signal handlers do not change
        before = {}
    try:
        yield lambda: bool(asked)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
