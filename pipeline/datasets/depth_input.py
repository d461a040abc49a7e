"""The depth that the network gets: the estimate, or a control that keeps the input channel but not the depth."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, get_args

import cv2
import numpy as np
from numpy.typing import NDArray

from pipeline.core.errors import UserError
from pipeline.datasets.depth_maps import DepthMaps
from pipeline.datasets.video import Video

DepthKind = Literal["estimated", "constant", "shuffled", "other_video", "luminance"]


class DepthInput:
    """Depth as the network gets it (`model.depth_input`).

    `estimated` is the depth stage's map. The controls keep the input channel but remove the depth: `constant`
    is 0.5 everywhere; `shuffled` is the frame's own map with its pixels in random order, which keeps its histogram but
    not its geometry; `other_video` is the map of the same moment in the next video of the data set, plausible depth of
    another scene; `luminance` is the frame's own brightness, which adds nothing to RGB.

    Args:
        maps: the depth maps of the data set; may be None if `kind` needs none.
        kind: which of them.
        videos: of the data set, for `other_video`.
    """

    def __init__(self, maps: DepthMaps | None, kind: DepthKind, videos: Sequence[Video]) -> None:
        self._maps = maps
        self._kind = kind
        self._next = dict(zip((v.name for v in videos), [*videos[1:], *videos[:1]], strict=True))
        if kind == "other_video" and len(videos) < 2:
            raise UserError(
                f"model.depth_input is other_video, but the data set has {len(videos)} video; expected at least 2; "
                f"choose another of {', '.join(get_args(DepthKind))}"
            )

    def read(self, video: Video, frame_id: str, rgb: NDArray[np.uint8]) -> NDArray[np.float32]:
        """The depth of a frame.

        Args:
            video: the video.
            frame_id: the frame.
            rgb: uint8 H,W,3, the frame itself.

        Returns:
            float32 H,W in [0, 1], of the frame's size; a smaller map is enlarged, bilinearly.

        Raises:
            UserError: no map of the frame, or an unreadable one.
        """
        height, width, _ = rgb.shape
        simple = simple_depth(self._kind, rgb)
        if simple is not None:
            return simple
        assert self._maps is not None
        if self._kind == "other_video":
            other = self._next[video.name]
            at = min(video.frames.index(frame_id), len(other.frames) - 1)
            return _enlarged(self._maps.read(other.name, other.frames[at]), height, width)
        depth = _enlarged(self._maps.read(video.name, frame_id), height, width)
        if self._kind == "shuffled":
            rng = np.random.default_rng(zlib.crc32(f"{video.name}/{frame_id}".encode()))
            return rng.permutation(depth.ravel()).reshape(depth.shape)
        return depth


def _enlarged(depth: NDArray[np.float32], height: int, width: int) -> NDArray[np.float32]:
    if depth.shape == (height, width):
        return depth
    return cv2.resize(depth, (width, height), interpolation=cv2.INTER_LINEAR).astype(np.float32, copy=False)


def simple_depth(kind: str, rgb: NDArray[np.uint8]) -> NDArray[np.float32] | None:
    """Depth that needs no depth map, the same in training and in use.

    Args:
        kind: `model.depth_input`.
        rgb: uint8 H,W,3, the frame.

    Returns:
        float32 H,W in [0, 1]: 0.5 for `constant`, the brightness for `luminance`; None for other kinds.
    """
    if kind == "constant":
        return np.full(rgb.shape[:2], 0.5, np.float32)
    if kind == "luminance":
        return cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY).astype(np.float32) / np.float32(255)
    return None


def open_depth_input(folder: Path, kind: DepthKind, videos: Sequence[Video]) -> DepthInput:
    """Depth for the videos of a data set; the depth stage's shards are opened only if `kind` needs them.

    Args:
        folder: the data set's shards of depth maps.
        kind: `model.depth_input`.
        videos: of the data set.
    """
    return DepthInput(None if kind in ("constant", "luminance") else DepthMaps(folder), kind, videos)
