"""Speed of depth estimation at the published size, compared with the published network on the same weights and frames.

    python -m benchmarks.depth                                    # only ours, synthetic frames
    python -m benchmarks.depth --official mannequinchallenge      # a checkout of google/mannequinchallenge

Frames are 480x854 JPEGs, the network's input is 288x512. A run goes from the bytes of the JPEG to those of the 16-bit
PNG. The published network runs eagerly in fp32, with all cores on one batch, and decodes and encodes in between, as its
code does; ours processes several videos in parallel. Its weights are random, with statistics from a few batches, and
ours are loaded from its state dict. Both take turns `--repeat` times, and the smallest time of each counts. On a busy
machine the ratio of CPU times is more reliable.
"""

from __future__ import annotations

import argparse
import importlib.util
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from pipeline.core.images import decode_rgb, encode_depth, encode_jpeg
from pipeline.depth_maps.write_maps import FrameRef, depth_maps, estimated
from pipeline.hourglass.batches import resize_rgb, to_tensor
from pipeline.hourglass.checkpoint import PUBLISHED
from pipeline.hourglass.config import DepthConfig, Precision
from pipeline.hourglass.estimator import DepthEstimator
from pipeline.hourglass.network import Hourglass
from pipeline.hourglass.normalise import invert, normalise, robust_range

HEIGHT, WIDTH = 480, 854
BATCH = 4


@dataclass
class Measured:
    """Smallest times of one implementation, in seconds for all frames."""

    name: str
    work: Callable[[], object]
    wall: float = float("inf")
    cpu: float = float("inf")


def draw_frames(count: int) -> list[bytes]:
    """JPEGs of smooth colour and texture."""
    rng = np.random.default_rng(0)
    frames = []
    for _ in range(count):
        coarse = cv2.resize(rng.integers(0, 255, (6, 9, 3), np.uint8), (WIDTH, HEIGHT), interpolation=cv2.INTER_CUBIC)
        fine = cv2.resize(rng.integers(0, 60, (120, 214, 3), np.uint8), (WIDTH, HEIGHT))
        frames.append(encode_jpeg(np.asarray(cv2.addWeighted(coarse, 0.8, fine, 0.7, 0), np.uint8)))
    return frames


def official_network(checkout: Path) -> nn.Module:
    """The network of `models/hourglass.py` in a checkout of google/mannequinchallenge."""
    spec = importlib.util.spec_from_file_location("official_hourglass", checkout / "models" / "hourglass.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    network: nn.Module = module.HourglassModel(3)
    return network


def calibrate(network: nn.Module, frames: Tensor) -> None:
    """Give random weights plausible statistics, so that features neither vanish nor explode."""
    network.train()
    with torch.no_grad():
        for _ in range(3):
            network(frames)
    network.eval()


def eager_chain(network: nn.Module, jpegs: list[bytes]) -> list[bytes]:
    """Decode, compute and encode one after the other, in fp32."""
    inverse = []
    with torch.inference_mode():
        for start in range(0, len(jpegs), BATCH):
            frames = [resize_rgb(decode_rgb(data, "frame"), 288, 512) for data in jpegs[start : start + BATCH]]
            inverse += list(invert(network(to_tensor(frames).contiguous())[0][:, 0].numpy()))
    span = robust_range(inverse, 2, 98)
    return [encode_depth(normalise(one, span, HEIGHT, WIDTH)) for one in inverse]


def our_chain(estimator: DepthEstimator, videos: list[list[FrameRef]], precision: Precision) -> None:
    """Like the depth stage: one video per thread, on a CPU with one core each."""
    config = DepthConfig("hourglass", "none", "inverse_depth", BATCH, precision, 0.9, 2.0, 98.0, "frame", 16, 1000)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        for files in pool.map(lambda video: depth_maps([video], estimated(estimator), config), videos):
            assert len(files) == len(videos[0])
    torch.set_num_threads(threads)


def difference(one: list[NDArray[np.float32]], other: list[NDArray[np.float32]]) -> str:
    """Largest and mean absolute difference of log-depth."""
    gap = np.abs(np.stack(one) - np.stack(other))
    return (
        f"log-depth differs by {gap.max():.2e} at most, {gap.mean():.2e} on average (spread {np.stack(one).std():.2f})"
    )


def measure(ways: list[Measured], repeat: int) -> None:
    """Run everything in turn and keep the smallest times."""
    for _ in range(repeat):
        for way in ways:
            wall, cpu = time.perf_counter(), time.process_time()
            way.work()
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            way.wall, way.cpu = (
                min(way.wall, time.perf_counter() - wall),
                min(way.cpu, time.process_time() - cpu),
            )


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.depth", description="Speed of depth estimation.")
    parser.add_argument("--official", type=Path, help="checkout of google/mannequinchallenge")
    parser.add_argument("--frames", type=int, default=32, help="frames of each run")
    parser.add_argument("--repeat", type=int, default=2, help="runs of each implementation")
    arguments = parser.parse_args()

    torch.manual_seed(0)
    jpegs = draw_frames(arguments.frames)
    pictures = [decode_rgb(data, "frame") for data in jpegs[:BATCH]]
    sample = to_tensor([resize_rgb(picture, 288, 512) for picture in pictures]).contiguous()
    network = official_network(arguments.official) if arguments.official else Hourglass(PUBLISHED)
    calibrate(network, sample)
    ours = Hourglass(PUBLISHED)
    ours.load_state_dict(network.state_dict())
    refs = [FrameRef(f"video {i // 8}", f"{i:05d}", partial(decode_rgb, data, "frame")) for i, data in enumerate(jpegs)]
    videos = [refs[start : start + 8] for start in range(0, len(refs), 8)]

    name = "published network" if arguments.official else "the network, not prepared for inference"
    ways = [Measured(f"{name}, cpu eager fp32", partial(eager_chain, network, jpegs))]
    with torch.inference_mode():
        exact = list(network(sample)[0][:, 0].numpy())
    devices = [torch.device("cpu")] + ([torch.device("cuda")] if torch.cuda.is_available() else [])
    precisions: tuple[Precision, ...] = ("fp32", "bf16")
    for device in devices:
        for precision in precisions:
            estimator = DepthEstimator(ours, device, precision)
            print(f"ours, {device} {precision}: {difference(exact, estimator.log_depth(pictures))}")
            ways.append(Measured(f"ours, {device} {precision}", partial(our_chain, estimator, videos, precision)))
    measure(ways, arguments.repeat)
    print(f"{'JPEG to depth PNG, 288x512':<48} {'frames/s':>9} {'ratio':>6} {'CPU ratio':>9}")
    for way in ways:
        rate = len(jpegs) / way.wall
        print(f"{way.name:<48} {rate:>9.2f} {ways[0].wall / way.wall:>6.2f} {ways[0].cpu / way.cpu:>9.2f}")


if __name__ == "__main__":
    main()
