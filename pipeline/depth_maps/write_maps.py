"""Encoded depth maps of videos: estimated ones, or a user's own in the same form."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from pipeline.core.images import encode_depth
from pipeline.hourglass.config import DepthConfig
from pipeline.hourglass.estimator import DepthEstimator
from pipeline.hourglass.normalise import invert, normalise, robust_range
from pipeline.hourglass.scale_smoothing import ScaleSmoother


class FrameRef(NamedTuple):
    """One frame of one video.

    Attributes:
        video: Name of the video; all its frames share one range of depth.
        frame: Frame id.
        read: Returns the frame, uint8 H,W,3.
    """

    video: str
    frame: str
    read: Callable[[], NDArray[np.uint8]]


class InverseDepth(Protocol):
    """Anything that returns the inverse depth of frames, up to a factor."""

    def __call__(self, refs: Sequence[FrameRef], frames: Sequence[NDArray[np.uint8]]) -> list[NDArray[np.floating]]:
        """Inverse depth h,w of each frame."""


def estimated(estimator: DepthEstimator) -> InverseDepth:
    """Inverse depth from the network, float16 so that a long video fits in memory."""

    def inverse(refs: Sequence[FrameRef], frames: Sequence[NDArray[np.uint8]]) -> list[NDArray[np.floating]]:
        return [invert(log_depth) for log_depth in estimator.log_depth(frames)]

    return inverse


def depth_maps(
    videos: Sequence[Sequence[FrameRef]], inverse: InverseDepth, config: DepthConfig
) -> list[tuple[str, bytes]]:
    """Depth maps of some videos.

    Args:
        videos: All frames of each video.
        inverse: Source of inverse depth.
        config: Frames processed together (across videos), the smoothing of scale, and the percentiles.

    Returns:
        `<video>/<frame>.png` and the 16-bit PNG of each frame, in order, of the size that `depth.store` says.
    """
    refs = [ref for video in videos for ref in video]
    sizes: list[tuple[int, int]] = []
    raw: list[NDArray[np.floating]] = []
    steadiers = {
        video[0].video: ScaleSmoother(config.steady if config.estimator == "hourglass" else 0.0) for video in videos
    }
    for start in range(0, len(refs), config.batch):
        part = refs[start : start + config.batch]
        frames = [ref.read() for ref in part]
        sizes += [(frame.shape[0], frame.shape[1]) for frame in frames]
        raw += [
            steadiers[ref.video](frame, one)
            for ref, frame, one in zip(part, frames, inverse(part, frames), strict=True)
        ]
    files: list[tuple[str, bytes]] = []
    for video in videos:
        span = robust_range(raw[len(files) : len(files) + len(video)], config.percentile_low, config.percentile_high)
        for ref in video:
            size = _stored_size(raw[len(files)], sizes[len(files)], config)
            depth = normalise(raw[len(files)], span, *size)
            files.append((f"{ref.video}/{ref.frame}.png", encode_depth(depth, config.bits)))
    return files


def _stored_size(inverse: NDArray[np.floating], frame: tuple[int, int], config: DepthConfig) -> tuple[int, int]:
    """Height and width of a stored map: of the estimate if that is smaller and `depth.store` is `network`."""
    height, width = inverse.shape
    smaller = height * width < frame[0] * frame[1]
    return (height, width) if config.store == "network" and smaller else frame
