"""Speed of scoring, compared with other scorers on the same masks in the same run.

    python -m benchmarks.scoring                                     # synthetic masks at 480p, only ours
    python -m benchmarks.scoring --davis DAVIS --results masks       # a real data set (an extracted folder)

Other scorers are measured if they can be imported: `davis2017` (davis2017-evaluation; put its folder on PYTHONPATH) in
one process, `vos_benchmark` (PyPI: vos-benchmark) with each number of processes. Times include reading the PNGs. CPU
time includes worker processes; on a busy machine its ratio is more reliable. The scorers take turns `--repeat` times,
and the smallest time of each counts.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import importlib
import io
import multiprocessing
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from pipeline.core.files import write_bytes, write_text
from pipeline.core.images import encode_jpeg, encode_mask
from pipeline.datasets.davis import open_davis
from pipeline.scoring.davis import score_davis
from pipeline.scoring.evaluation import Protocol, score_set
from pipeline.scoring.result_names import every_frame
from pipeline.scoring.results import Results
from pipeline.scoring.sequence import ObjectScore

HEIGHT, WIDTH = 480, 854


@dataclass
class Measured:
    """Smallest times of one scorer in seconds, and its J and F means over objects."""

    name: str
    wall: float
    cpu: float
    j: float
    f: float


def draw_blobs(rng: np.random.Generator, centres: NDArray[np.float64], reach: float) -> NDArray[np.uint8]:
    """An id mask, uint8 480,854, with one ragged blob at each centre (row, column)."""
    mask = np.zeros((HEIGHT, WIDTH), np.uint8)
    angles = np.linspace(0, 2 * np.pi, 180, endpoint=False)
    for object_id, (row, column) in enumerate(centres, start=1):
        waves = sum(rng.uniform(0, 0.25 / k) * np.sin(k * angles + rng.uniform(0, 6)) for k in range(1, 9))
        radius = reach * (1 + np.asarray(waves))
        outline = np.stack([column + radius * np.cos(angles), row + radius * np.sin(angles)], axis=1)
        cv2.fillPoly(mask, [np.rint(outline).astype(np.int32)], object_id)
    return mask


def draw_set(root: Path, sequences: int, frames: int) -> tuple[Path, Path]:
    """Write a DAVIS folder of synthetic sequences with 1 to 3 objects, and results for it.

    Returns:
        The DAVIS folder and the results folder.
    """
    davis, results = root / "DAVIS", root / "results"
    names = [f"drawn-{i}" for i in range(sequences)]
    write_text(davis / "ImageSets/2017/val.txt", "".join(f"{name}\n" for name in names))
    frame_bytes = encode_jpeg(np.zeros((HEIGHT, WIDTH, 3), np.uint8))
    for number, name in enumerate(names):
        rng = np.random.default_rng(number)
        centres = rng.uniform((120, 150), (360, 700), (1 + number % 3, 2))
        for frame in range(frames):
            centres = centres + rng.normal(0, 4, centres.shape)
            reach = 60 + 20 * np.sin(frame / 9)
            write_bytes(davis / f"JPEGImages/480p/{name}/{frame:05d}.jpg", frame_bytes)
            truth = draw_blobs(rng, centres, reach)
            write_bytes(davis / f"Annotations/480p/{name}/{frame:05d}.png", encode_mask(truth))
            guess = draw_blobs(rng, centres + rng.normal(0, 6, centres.shape), reach)
            write_bytes(results / f"{name}/{frame:05d}.png", encode_mask(guess))
    return davis, results


def ours(davis: Path, results: Path, split: str, jobs: int) -> tuple[float, float]:
    """J and F means by this project."""
    protocol = Protocol(score_davis, every_frame, knows_frames=True)
    scores: list[ObjectScore] = score_set(open_davis(davis, split), Results(results), protocol, jobs)
    return float(np.mean([s.j.mean for s in scores])), float(np.mean([s.f.mean for s in scores]))


def official(package: Any, davis: Path, results: Path, split: str) -> tuple[float, float]:
    """J and F means by davis2017-evaluation."""
    figures = package.DAVISEvaluation(str(davis), "semi-supervised", split).evaluate(str(results))
    return float(np.mean(figures["J"]["M"])), float(np.mean(figures["F"]["M"]))


def vos_benchmark(package: Any, davis: Path, results: Path, jobs: int) -> tuple[float, float]:
    """J and F means by vos-benchmark, which scores every annotated sequence."""
    _, j, f, _ = package.benchmark([str(davis / "Annotations/480p")], [str(results)], num_processes=jobs, verbose=False)
    return float(j[0]) / 100, float(f[0]) / 100


def measure(name: str, score: Callable[[], tuple[float, float]]) -> Measured:
    """Run a scorer once."""
    wall, before = time.perf_counter(), os.times()
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        j, f = score()
    wall = time.perf_counter() - wall
    gc.collect()
    for (
        worker
    ) in multiprocessing.active_children():  # the CPU time of a child process counts only after it has been waited for
        worker.join(timeout=10)
    cpu = sum(os.times()[:4]) - sum(before[:4])
    return Measured(name, wall, cpu, j, f)


def contenders(davis: Path, results: Path, split: str, jobs: Sequence[int]) -> list[tuple[str, Callable[[], Any]]]:
    """Names and calls of the scorers that can be imported; ours first."""
    found: list[tuple[str, Callable[[], Any]]] = []
    for n in jobs:
        found.append((f"ours, {n} process(es)", lambda n=n: ours(davis, results, split, n)))  # type: ignore[misc]
    with contextlib.suppress(ImportError):
        package = importlib.import_module("davis2017.evaluation")
        found.append(("davis2017, 1 process(es)", lambda: official(package, davis, results, split)))
    with contextlib.suppress(ImportError):
        other = importlib.import_module("vos_benchmark.benchmark")
        for n in jobs:
            call = lambda n=n: vos_benchmark(other, davis, results, n)  # noqa: E731
            found.append((f"vos_benchmark, {n} process(es)", call))
    return found


def main(argv: Sequence[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scoring")
    parser.add_argument("--davis", type=Path, help="an extracted DAVIS folder (default: synthetic masks)")
    parser.add_argument("--results", type=Path, help="results for its split")
    parser.add_argument("--split", default="val")
    parser.add_argument("--jobs", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--repeat", type=int, default=2)
    parser.add_argument("--sequences", type=int, default=6, help="synthetic sequences")
    parser.add_argument("--frames", type=int, default=40, help="frames of a synthetic sequence")
    options = parser.parse_args(argv)
    if (options.davis is None) != (options.results is None):
        parser.error("--davis and --results go together")
    with tempfile.TemporaryDirectory() as folder:
        if options.davis:
            davis, results = options.davis, Path(folder, "results")
            shutil.copytree(options.results, results)  # vos_benchmark writes a file into it
        else:
            davis, results = draw_set(Path(folder), options.sequences, options.frames)
        calls = contenders(davis, results, options.split, options.jobs)
        best: dict[str, Measured] = {}
        for _ in range(options.repeat):
            for name, call in calls:
                once = measure(name, call)
                print(f"measured {name}: {once.wall:.2f} s, CPU {once.cpu:.2f} s", flush=True)
                so_far = best.setdefault(name, once)
                so_far.wall, so_far.cpu = min(so_far.wall, once.wall), min(so_far.cpu, once.cpu)
        _report(list(best.values()))


def _report(measured: Sequence[Measured]) -> None:
    """Each scorer's times; for the others also the ratio to ours with the same number of processes."""
    by_name = {m.name: m for m in measured}
    print(f"{'scorer':<32} {'wall s':>8} {'CPU s':>8} {'x wall':>7} {'x CPU':>7}   J       F")
    for m in measured:
        own = by_name["ours" + m.name[m.name.index(",") :]] if not m.name.startswith("ours") else None
        ratio = f"{m.wall / own.wall:7.1f} {m.cpu / own.cpu:7.1f}" if own else " " * 15
        print(f"{m.name:<32} {m.wall:8.2f} {m.cpu:8.2f} {ratio}   {m.j:.5f} {m.f:.5f}")


if __name__ == "__main__":
    main()
