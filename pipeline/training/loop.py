"""The training loop: steps, epochs, and state that survives a kill."""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from pipeline.core.errors import UserError
from pipeline.core.processes import Processes
from pipeline.core.runtime import log
from pipeline.core.signals import stop_on_signal
from pipeline.datasets.clips import Batch, ClipDataset
from pipeline.dstm.network import DSTM
from pipeline.training.batches import batches, first_batch
from pipeline.training.config import RunOptions, TrainingConfig
from pipeline.training.curriculum import learning_rate, max_skip
from pipeline.training.losses import Objective
from pipeline.training.plan import Plan
from pipeline.training.precision import training_dtype
from pipeline.training.state import State, make_state
from pipeline.training.step import TrainingStep, one_hot
from pipeline.training.validation import Validation
from pipeline.training.watch import Watch


@dataclass(frozen=True)
class Files:
    """What a training writes on the way.

    Attributes:
        state: file of the resume state; the caller removes its folder when the result is written.
        curves: CSV file that grows with every epoch.
        events: folder for TensorBoard's event files, if they are wanted.
        kept: folder for the best and the last weights of a training that is validated.
    """

    state: Path
    curves: Path
    events: Path
    kept: Path


def fit(
    network: DSTM,
    dataset: ClipDataset,
    objective: Objective,
    config: TrainingConfig,
    options: RunOptions,
    *,
    seed: int,
    device: torch.device,
    files: Files,
    processes: Processes,
    calibrates: bool = True,
) -> list[dict[str, float]]:
    """Train `network` in place; at the end it has the averaged weights with `ema_decay`, or the best with `keep`.

    A clip is drawn from a generator seeded by (seed, step, index in the batch), so workers, processes and interruptions
    do not change the clips.

    Args:
        network: on `device`.
        dataset: source of the clips.
        objective: the losses.
        config: of the stage.
        options: how it is run.
        seed: of the clips.
        device: of the computation.
        files: what is written on the way.
        processes: rank and number of the processes that share the batch.
        calibrates: scale the keys on the first batch if `network.key_std` says so.

    Returns:
        One row per epoch: epoch, step, lr, max_skip and the mean of every loss and of J.

    Raises:
        UserError: a loss is not finite, the batch is too small for batch norm, or the run stops as `stop_after` says.
        KeyboardInterrupt: interrupted; the state is saved.
    """
    indices = processes.share(config.batch)
    _check_batch(network, config, options, len(indices), processes)
    steps_per_epoch = config.steps_per_epoch or max(1, -(-dataset.count // config.batch))
    dtype = training_dtype(config.precision, device)
    model = _averaging(network, device, processes)
    state = make_state(network, config, device, dtype)
    resumes = state.restore(files.state)
    _check_same_step(state, processes)
    plan = Plan(config, options, steps_per_epoch, state.step, device.type == "cpu")
    if calibrates and not resumes and network.config.key_std:
        _calibrate(network, first_batch(dataset, config, seed).to(device))
    if device.type == "cuda":
        torch.set_float32_matmul_precision("high")
    if processes.first:
        log(f"resuming at step {state.step} of {plan.total}" if resumes else f"{plan.total} steps")
        log(f"training in {str(dtype).removeprefix('torch.')} on {device}")
    network.train()
    step = TrainingStep(model, state, objective, config, options.clips_per_pass, dtype, processes)
    feed = batches(
        dataset,
        config,
        seed,
        range(plan.first, plan.total),
        indices=indices,
        steps_per_epoch=steps_per_epoch,
        workers=options.workers,
        pinned=device.type == "cuda",
    )
    events = files.events if options.tensorboard else None
    watch = Watch(config, plan.total, plan.first, device, files.curves if processes.first else None, events)
    validation = Validation(config, files.state.parent, files.kept, processes)
    with stop_on_signal() as asked, closing(watch):
        for number, batch in watch.feed(feed):
            done = number + 1
            lr, skip = learning_rate(config, number, steps_per_epoch), max_skip(config, number // steps_per_epoch)
            reading = step(batch.to(device), lr, plan.reads(done), asked())
            if reading is not None:
                watch.step(done, lr, skip, reading.losses)
            if plan.ends_epoch(done):
                state.end_epoch(lr, skip, steps_per_epoch)
                validation.after_epoch(state)
                watch.epoch(state.history)
            stop = reading is not None and reading.stop and done < plan.total
            if (stop or plan.saves(done)) and processes.first:
                state.save(files.state)
            if stop:
                raise KeyboardInterrupt
            if plan.ends_run(done):
                raise UserError(
                    f"stopped after step {done} of {plan.total}, as runtime.stop_after {options.stop_after} asks; "
                    "expected 0 for the whole training; set it to 0 and rerun to continue from here"
                )
    validation.finish(state)
    return state.history


def _check_batch(network: DSTM, config: TrainingConfig, options: RunOptions, share: int, processes: Processes) -> None:
    if network.config.norm != "batch":
        return
    if share < 2:
        raise UserError(
            f"batch is {config.batch} over {processes.count} processes with network.norm batch; expected at least 2 "
            "clips per process, whose statistics normalise them; raise batch or set norm to group or frozen"
        )
    if 0 < options.clips_per_pass < share:
        raise UserError(
            f"runtime.clips_per_pass is {options.clips_per_pass} with network.norm batch and {share} clips per "
            "process; expected 0, because statistics of fewer clips would change the result; set it to 0, or norm to "
            "group or frozen"
        )


def _check_same_step(state: State, processes: Processes) -> None:
    """Several machines must read the state that the first process wrote."""
    steps = set(processes.gather([state.step]))
    if len(steps) > 1:
        raise UserError(
            f"processes resume at the steps {', '.join(map(str, sorted(steps)))}; expected one; put .scratch on a disk "
            "that all machines share"
        )


def _averaging(network: DSTM, device: torch.device, processes: Processes) -> nn.Module:
    """The network with gradients, and on GPUs also batch statistics, averaged over all processes."""
    if processes.count == 1:
        return network
    batch_norm = network.config.norm == "batch"
    if device.type == "cuda":
        nn.SyncBatchNorm.convert_sync_batchnorm(network)  # replaces the layers inside the network
    elif batch_norm and processes.first:
        log("batch norm: on a CPU each process uses its own clips, so the result depends on the number of processes")
    # without device_ids inputs stay where they are: the object slots on the CPU, the rest on the device already
    return DistributedDataParallel(network, broadcast_buffers=batch_norm, gradient_as_bucket_view=True)


@torch.no_grad()
def _calibrate(network: DSTM, batch: Batch) -> None:
    masks = one_hot(batch.labels[:, 0], batch.objects.shape[1] + 1)
    depth = None if batch.depth is None else batch.depth[:, 0]
    network.calibrate_keys(batch.frames[:, 0], depth, masks, batch.objects)
