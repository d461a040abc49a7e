"""From the network's log-depth to the pipeline's depth maps: inverse depth, with one range per video."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

_SAMPLES = 1 << 21
"""Approximate number of values from which the percentiles of a video are computed."""

MAX_LOG = 10.0
"""Log-depths are clipped to this magnitude, whose exp still fits in float16."""


class DepthRange(NamedTuple):
    """Inverse depths that become 0 and 1."""

    far: float
    near: float


def invert(log_depth: NDArray[np.float32]) -> NDArray[np.float16]:
    """Inverse depth exp(-log_depth), float16: its step, 0.05% of the value, is far below the estimate's error."""
    return np.exp(-np.clip(log_depth, -MAX_LOG, MAX_LOG)).astype(np.float16)


def robust_range(inverse: Sequence[NDArray[np.floating]], low: float, high: float) -> DepthRange:
    """Percentiles of the inverse depth over all frames of a video.

    With one range for the video, a static point keeps its value from frame to frame; a range per frame flickers
    whenever something near or far enters or leaves.

    Args:
        inverse: Inverse depth of each frame, H,W; frames may differ in size.
        low: Percentile that becomes 0.
        high: Percentile that becomes 1.
    """
    total = sum(frame.size for frame in inverse)
    step = max(1, total // _SAMPLES)
    while any(math.gcd(step, width) > 1 for width in {frame.shape[-1] for frame in inverse}):
        step += 1  # otherwise only some columns would be used
    values = np.concatenate([np.asarray(frame, np.float32).ravel()[::step] for frame in inverse])
    far, near = np.percentile(values, [low, high])
    return DepthRange(float(far), float(near))


def normalise(inverse: NDArray[np.floating], depth_range: DepthRange, height: int, width: int) -> NDArray[np.float32]:
    """Depth map of one frame.

    Args:
        inverse: h,w inverse depth.
        depth_range: Of its video. If it is empty (a video of constant depth), everything becomes 0.5.
        height: Height of the frame in pixels.
        width: Width of the frame.

    Returns:
        float32 height,width in [0, 1]: 1 near, 0 far; bilinear from h,w.
    """
    span = depth_range.near - depth_range.far
    values = np.asarray(inverse, np.float32)
    if not span > 1e-6 * abs(depth_range.near):
        return np.full((height, width), 0.5, np.float32)
    values = np.clip((values - depth_range.far) / span, 0, 1)
    if values.shape != (height, width):
        values = cv2.resize(values, (width, height), interpolation=cv2.INTER_LINEAR)
    return np.asarray(values, np.float32)
