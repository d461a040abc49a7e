"""Frames for the network: resized to its input, augmented, collected into batches in advance."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pipeline.core.threads import read_ahead
from pipeline.hourglass.config import DepthAugmentConfig, HourglassConfig

_AHEAD = 3  # batches in preparation while one is computed


class DepthSample(NamedTuple):
    """One frame and its depth, resized.

    Attributes:
        rgb: uint8 H,W,3 at the network's input resolution.
        depth: float32 h,w at its output resolution; 0 if unknown.
    """

    rgb: NDArray[np.uint8]
    depth: NDArray[np.float32]


class DepthBatch(NamedTuple):
    """A training batch.

    Attributes:
        frames: float32 B,3,H,W in [0, 1], at the network's input resolution.
        depth: float32 B,h,w at its output resolution; 0 if unknown.
    """

    frames: Tensor
    depth: Tensor


def input_sides(height: int, width: int, config: HourglassConfig) -> tuple[int, int]:
    """Sides of the network's input for a frame: its aspect ratio, the configured area, allowed multiples.

    Args:
        height: Height of the frame in pixels.
        width: Width of the frame.
        config: Gives the area and the multiple.

    Returns:
        Height and width; 480x854 gives the published 288x512.
    """
    scale = (config.input_height * config.input_width / (height * width)) ** 0.5
    unit = config.multiple
    return max(1, round(height * scale / unit)) * unit, max(1, round(width * scale / unit)) * unit


def resize_rgb(rgb: NDArray[np.uint8], height: int, width: int) -> NDArray[np.uint8]:
    """Resize uint8 H,W,3: by area averaging if made smaller, otherwise bilinear."""
    if rgb.shape[:2] == (height, width):
        return rgb
    smaller = height * width < rgb.shape[0] * rgb.shape[1]
    method = cv2.INTER_AREA if smaller else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(rgb, (width, height), interpolation=method), np.uint8)


def to_tensor(frames: list[NDArray[np.uint8]], device: torch.device | str = "cpu") -> Tensor:
    """Equally large uint8 H,W,3 -> float32 B,3,H,W in [0, 1] on the device, channels last in memory."""
    return torch.from_numpy(np.stack(frames)).to(device).permute(0, 3, 1, 2).float().div_(255)


def augment(
    rgb: NDArray[np.uint8],
    depth: NDArray[np.float32],
    network: HourglassConfig,
    config: DepthAugmentConfig,
    rng: np.random.Generator,
) -> DepthSample:
    """Crop, resize and augment one training frame; depth by nearest neighbour, because it must not mix across edges.

    Args:
        rgb: uint8 H,W,3.
        depth: float32 H,W, 0 if unknown.
        network: Resolution of the network's input and output.
        config: The augmentation.
        rng: Source of all randomness.
    """
    height, width = depth.shape
    zoom = rng.uniform(1, config.zoom)
    rows, columns = max(1, round(height / zoom)), max(1, round(width / zoom))
    top, left = rng.integers(height - rows + 1), rng.integers(width - columns + 1)
    rgb = resize_rgb(rgb[top : top + rows, left : left + columns], network.input_height, network.input_width)
    out = (network.input_width // network.stem_stride, network.input_height // network.stem_stride)
    cut = cv2.resize(depth[top : top + rows, left : left + columns], out, interpolation=cv2.INTER_NEAREST)
    if config.jitter:
        gain, shift = rng.uniform(1 - config.jitter, 1 + config.jitter, 2)
        mean = rgb.mean()
        rgb = np.clip(np.rint(((rgb - mean) * gain + mean) * shift), 0, 255).astype(np.uint8)
    if config.flip and rng.random() < 0.5:
        rgb, cut = rgb[:, ::-1], cut[:, ::-1]
    return DepthSample(np.ascontiguousarray(rgb), np.ascontiguousarray(cut, dtype=np.float32))


def epoch_batches(
    load: Callable[[int, np.random.Generator], DepthSample],
    n_samples: int,
    batch: int,
    seed: int,
    epoch: int,
    workers: int,
    first: int = 0,
) -> Iterator[DepthBatch]:
    """Batches of one epoch in an order that depends only on `seed` and `epoch`, read in advance by threads.

    Args:
        load: Returns sample i, using the given generator.
        n_samples: Number of samples.
        batch: Samples in a batch; samples that do not fill a batch are left out of this epoch (each epoch has another
            order).
        seed: Seed of the run.
        epoch: Number of the epoch.
        workers: Threads that read.
        first: Batches at the start of the epoch that are left out.
    """
    order = np.random.default_rng([seed, epoch]).permutation(n_samples)

    def read(start: int) -> DepthBatch:
        places = range(start, start + batch)
        return _gather([load(order[place], np.random.default_rng([seed, epoch, place])) for place in places])

    return read_ahead(range(first * batch, n_samples - batch + 1, batch), read, _AHEAD, max(1, workers))


def _gather(samples: list[DepthSample]) -> DepthBatch:
    return DepthBatch(to_tensor([s.rgb for s in samples]), torch.from_numpy(np.stack([s.depth for s in samples])))
