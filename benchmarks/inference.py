"""Speed and peak memory of inference on whole videos, from decoding to PNG.

    python -m benchmarks.inference
    python -m benchmarks.inference --network lite --precision fp32
    python -m benchmarks.inference --video frames/ --mask first.png --length 20 --weights stm.pt
    python -m benchmarks.inference --height 144 --width 256 --objects 2 --network sample --tta
    python -m benchmarks.inference --height 144 --width 256 --objects 2 --network sample --length 10000 --watch
    python -m benchmarks.inference --height 1080 --width 1920 --objects 44 --length 12 --precision bf16

Without --weights the weights are random, which takes the same time. Without --video a synthetic one of the given size
is used. Each setting runs in a separate process, so that its peak memory is its own. Compare only results of one
machine and one run; if other programs are running, CPU seconds are more reliable than frames per second.
"""

from __future__ import annotations

import argparse
import math
import multiprocessing
import platform
import resource
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Literal

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from pipeline import segment
from pipeline.core.images import encode_jpeg
from pipeline.core.runtime import pick_device
from pipeline.dstm.checkpoint import load_dstm
from pipeline.dstm.network import DSTM
from pipeline.footage.drawings import DrawingOptions
from pipeline.footage.footage import Footage, Shot, open_footage
from pipeline.footage.mask_files import read_masks
from pipeline.inference.config import InferSwitches
from pipeline.inference.segmenter import FrameDepth, Segmenter
from pipeline.settings import load_settings


@dataclass(frozen=True)
class Setting:
    """One line of the table."""

    network: Literal["sample", "paper", "lite"]
    precision: Literal["bf16", "fp32"]
    tta: bool
    resnest: bool
    device: str
    memory_frames: int | None
    weights: Path | None
    watch: bool
    cold: bool


class FirstFrames:
    """The beginning of some footage.

    Args:
        footage: the footage.
        length: frames of it.
        watch: print the speed since, and the memory at, every tenth of them.
    """

    def __init__(self, footage: Footage, length: int, watch: bool = False) -> None:
        self._footage = footage
        self.length: int | None = min(length, footage.length or length)
        self._watch = watch

    @property
    def broken_off(self) -> str | None:
        """See `Footage`."""
        return self._footage.broken_off

    def name_of(self, index: int) -> str:
        """See `Footage`."""
        return self._footage.name_of(index)

    def shots(self, start: int = 0, stop: int | None = None) -> Iterator[Shot]:
        """See `Footage`."""
        assert self.length is not None
        if start or stop is not None:
            yield from self._footage.shots(start, self.length if stop is None else min(stop, self.length))
            return
        step, start = max(1, self.length // 10), time.perf_counter()
        for i, shot in enumerate(islice(self._footage.shots(), self.length), start=1):
            yield shot
            if self._watch and i % step == 0:
                rate, start = step / (time.perf_counter() - start), time.perf_counter()
                print(f"  frame {i}: {rate:.2f} frames/s, {resident():.3f} GiB resident", flush=True)

    def spread(self, count: int) -> Iterator[NDArray[np.uint8]]:
        """See `Footage`."""
        return self._footage.spread(count)


def resident() -> float:
    """Memory of this process in GiB."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() / 2**30


def draw(folder: Path, length: int, height: int, width: int, n_objects: int) -> NDArray[np.uint8]:
    """Write JPEGs of discs in rows that move over noise; returns the first mask."""
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 256, (height // 8, width // 8, 3), np.uint8)
    ground = np.asarray(cv2.resize(coarse, (width, height)), np.uint8)
    first = np.zeros((height, width), np.uint8)
    columns = math.ceil(math.sqrt(n_objects * width / height))
    rows = math.ceil(n_objects / columns)
    radius = min(height // 8, height // rows // 3, width // columns // 3)
    for t in range(length):
        frame = ground.copy()
        for k in range(n_objects):
            at_x, at_y = width * (k % columns + 0.5) / columns + 3 * t, height * (k // columns + 0.5) / rows
            place = (int(at_x) % width, int(at_y))
            colour = tuple(int(c) for c in np.random.default_rng(k).integers(0, 256, 3))
            cv2.circle(frame, place, radius, colour, -1)
            if t == 0:
                cv2.circle(first, place, radius, k + 1, -1)
        (folder / f"{t:05d}.jpg").write_bytes(encode_jpeg(frame))
    return first


def measure(setting: Setting, footage: Footage, mask: NDArray[np.uint8]) -> tuple[float, float, float]:
    """Frames per second, CPU seconds per frame, peak memory in GiB; with constant depth, so only D-STM is measured."""
    settings = load_settings()
    params = settings.profiles[setting.network]
    device = pick_device(setting.device)
    torch.manual_seed(0)
    if setting.weights is not None:
        network = load_dstm(setting.weights, device)
    else:
        depth_too = setting.network != "lite"  # the lite weights are trained without
        switches = replace(settings.model, resnest=setting.resnest, depth=depth_too)
        network = DSTM(switches, params.network, awaits_weights=True).to(device).eval()
    frames = params.infer.memory_frames if setting.memory_frames is None else setting.memory_frames
    config = replace(params.infer, precision=setting.precision, memory_frames=frames)
    depth = FrameDepth("constant", None, 2.0, 98.0, 0.0)
    segmenter = Segmenter(network, depth, InferSwitches(setting.tta), config, device)
    with tempfile.TemporaryDirectory() as out:
        if not setting.cold:
            segment.run(segmenter, FirstFrames(footage, 3), {0: mask}, Path(out), DrawingOptions())
        start, start_cpu = time.perf_counter(), time.process_time()
        segment.run(segmenter, footage, {0: mask}, Path(out), DrawingOptions())
        seconds, cpu = time.perf_counter() - start, time.process_time() - start_cpu
    if device.type == "cuda":
        peak = torch.cuda.max_memory_allocated() / 2**30
    else:
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    assert footage.length is not None
    return footage.length / seconds, cpu / footage.length, peak


def _measure_into(setting: Setting, source: str, length: int, mask: NDArray[np.uint8], answers: object) -> None:
    answers.put(measure(setting, FirstFrames(open_footage(source), length, setting.watch), mask))  # type: ignore[attr-defined]


def main() -> None:
    """Measure what the command line asks for."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.inference", description="Speed of inference.")
    parser.add_argument("--video", help="a video file, a folder of images or a glob (default: a drawn one)")
    parser.add_argument("--mask", help="its first mask")
    parser.add_argument("--length", type=int, default=16, help="frames (default: %(default)s)")
    parser.add_argument("--height", type=int, default=480)
    parser.add_argument("--width", type=int, default=854)
    parser.add_argument("--objects", type=int, nargs="+", default=[1, 5], help="in the drawn video")
    parser.add_argument(
        "--network", choices=("sample", "paper", "lite"), default="paper", help="profile of the network"
    )
    parser.add_argument("--weights", type=Path, help="a D-STM checkpoint; it says what network it is")
    parser.add_argument("--watch", action="store_true", help="print speed and memory on the way")
    parser.add_argument("--cold", action="store_true", help="time the first run in the process")
    parser.add_argument("--resnet", action="store_true", help="ResNet instead of ResNeSt")
    parser.add_argument("--precision", nargs="+", choices=("bf16", "fp32"), default=["bf16", "fp32"])
    parser.add_argument("--memory-frames", type=int, help="in the memory (default: of the profile; 0: no limit)")
    parser.add_argument("--tta", action="store_true")
    parser.add_argument("--device", default="auto")
    options = parser.parse_args()
    print(f"{platform.processor() or platform.machine()}, {torch.get_num_threads()} threads, torch {torch.__version__}")
    context = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory() as folder:
        if options.video:
            videos = [(options.video, read_masks([options.mask], open_footage(options.video)).ids[0])]
        else:
            videos = []
            for n_objects in options.objects:
                source = Path(folder) / str(n_objects)
                source.mkdir()
                videos.append((str(source), draw(source, options.length, options.height, options.width, n_objects)))
        for source, mask in videos:
            for precision in options.precision:
                setting = Setting(
                    options.network,
                    precision,
                    options.tta,
                    not options.resnet,
                    options.device,
                    options.memory_frames,
                    options.weights,
                    options.watch,
                    options.cold,
                )
                answers = context.Queue()
                process = context.Process(target=_measure_into, args=(setting, source, options.length, mask, answers))
                process.start()
                process.join()
                if process.exitcode:
                    raise SystemExit(process.exitcode)
                rate, cpu, peak = answers.get()
                size = f"{mask.shape[1]}x{mask.shape[0]}"
                print(
                    f"{size}, {len(np.unique(mask)) - 1} objects, {options.network} {precision}"
                    f"{', tta' if options.tta else ''}: {rate:.2f} frames/s, {cpu:.2f} CPU s per frame, "
                    f"peak {peak:.2f} GiB",
                    flush=True,
                )


if __name__ == "__main__":
    main()
