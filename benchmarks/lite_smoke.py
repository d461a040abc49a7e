"""Speed and memory of training profile lite, for some batch sizes and numbers of processes; see lite_gpu.py."""

from __future__ import annotations

import multiprocessing
import os
import shutil
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from benchmarks import lite_gpu
from pipeline.core.kernels.onednn import arithmetic
from pipeline.core.layout import Layout
from pipeline.core.processes import Processes
from pipeline.core.runtime import pick_device
from pipeline.datasets.clips import ClipDataset
from pipeline.settings import Settings, load_settings
from pipeline.train import open_real_clips
from pipeline.training.batches import batches
from pipeline.training.loop import _Step
from pipeline.training.losses import Objective
from pipeline.training.stage import Job, make_network
from pipeline.training.state import make_state


def smoke(work: Path, device: str, changes: dict[str, Any]) -> None:
    """Print clips/s of the data alone, steps/s and memory by batch size, and clips/s of several processes at once."""
    folder = work / "smoke"
    (folder / "data" / "lite").mkdir(parents=True, exist_ok=True)
    raw = folder / "data" / "lite" / "raw"
    if not raw.exists():
        raw.symlink_to(work / "data" / "lite" / "raw")
    cores = os.cpu_count() or 1
    plan = lite_gpu.Plan("smoke", 0, changes, (10, 10), (), max(1, cores - 1), device, "", "", False, False)
    lite_gpu.write_params(folder, plan)
    os.chdir(folder)
    usage = shutil.disk_usage("/dev/shm")
    print(f"{cores} cores, /dev/shm {usage.total / 2**30:.1f} GiB, torch {torch.__version__}", flush=True)
    settings, layout = load_settings(), Layout(folder, "lite")
    sizes = (8, 16, 32) if device == "cuda" else (2,)
    print(f"data alone: {_data_rate(settings, layout, cores - 1 or 1, sizes[0]):.1f} clips/s", flush=True)
    for size in sizes:
        _report(f"batch {size}", _train(settings, layout, size, max(1, cores - 1), 24 if device == "cuda" else 3))
    if device == "cuda":
        context = multiprocessing.get_context("spawn")
        for count in (2, 3):
            with ProcessPoolExecutor(count, mp_context=context) as pool:  # its processes may have workers of their own
                share = max(1, (cores - count) // count)
                futures = [pool.submit(_in_process, folder, 16, share, 40) for _ in range(count)]
                found = [future.result() for future in futures]
            total = sum(result["clips_per_s"] for result in found)
            print(f"{count} processes, batch 16 each: {total:.1f} clips/s together; one of them:", flush=True)
            _report("  ", found[0])


def _in_process(folder: Path, size: int, workers: int, steps: int) -> dict[str, float]:
    os.chdir(folder)
    torch.set_num_threads(2)
    return _train(load_settings(), Layout(folder, "lite"), size, workers, steps)


def _report(name: str, found: dict[str, float]) -> None:
    print(
        f"{name}: {found['steps_per_s']:.2f} steps/s, {found['clips_per_s']:.1f} clips/s, waiting for data "
        f"{found['waiting']:.0%}, {found['gib']:.1f} GiB, loss {found['first_loss']:.3f} to {found['last_loss']:.3f}",
        flush=True,
    )


def _data_rate(settings: Settings, layout: Layout, workers: int, size: int) -> float:
    dataset, config = _dataset(settings, layout, size)
    feed = batches(
        dataset, config, 0, range(200), indices=range(size), steps_per_epoch=100, workers=workers, pinned=False
    )
    for _ in range(max(3, workers)):
        next(feed)
    start, n = time.monotonic(), 0
    while time.monotonic() - start < 3:
        next(feed)
        n += size
    rate = n / (time.monotonic() - start)
    feed.close()  # type: ignore[attr-defined]
    return rate


def _dataset(settings: Settings, layout: Layout, size: int) -> tuple[ClipDataset, Any]:
    params = settings.profile_params
    config = replace(params.train, batch=size)
    return ClipDataset(open_real_clips(layout, settings.model, config, params.live), config.clips), config


def _train(settings: Settings, layout: Layout, size: int, workers: int, steps: int) -> dict[str, float]:
    """Train some steps; the first third warms up."""
    dataset, config = _dataset(settings, layout, size)
    params, device = settings.profile_params, pick_device(settings.runtime.device)
    if device.type == "cuda":
        torch.set_float32_matmul_precision("high")
        torch.cuda.reset_peak_memory_stats()
    job = Job(
        "smoke", settings.model, params.network, settings.loss, config, 0, device, workers, (), layout.root,
        layout.root / "m.pt", layout.root / "c.csv",
    )  # fmt: skip
    network = make_network(job)
    network.train()
    state = make_state(network, config, device)
    dtype = arithmetic(config.precision, device)
    step = _Step(network, state, Objective(settings.loss, config), config, dtype, Processes(0, 1))
    feed = batches(
        dataset,
        config,
        0,
        range(steps),
        indices=range(size),
        steps_per_epoch=1000,
        workers=workers,
        pinned=device.type == "cuda",
    )
    losses, waited, warm = [], 0.0, steps // 3
    start = time.monotonic()
    for number in range(steps):
        before = time.monotonic()
        if number == warm:
            if device.type == "cuda":
                torch.cuda.synchronize()
            start, waited, before = time.monotonic(), 0.0, time.monotonic()
        _, batch = next(feed)
        waited += time.monotonic() - before
        step(batch.to(device), config.lr * min(1.0, number / 10 + 0.1))
        if number in (0, steps - 1):
            step.read()
            losses.append(state._sums["loss"] / state.counted)
    if device.type == "cuda":
        torch.cuda.synchronize()
    seconds = time.monotonic() - start
    rate = (steps - warm) / seconds
    memory = torch.cuda.max_memory_allocated() / 2**30 if device.type == "cuda" else 0.0
    return {
        "steps_per_s": rate,
        "clips_per_s": rate * size,
        "waiting": waited / seconds,
        "gib": memory,
        "first_loss": losses[0],
        "last_loss": losses[-1],
    }
