"""Segmentation of any frames: networks, depth on the way, masks out."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import chain, islice

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from pipeline.core.errors import UserError
from pipeline.dstm.network import DSTM
from pipeline.hourglass.estimator import DepthEstimator
from pipeline.hourglass.normalise import DepthRange, invert, normalise, robust_range
from pipeline.inference.config import InferConfig, InferSwitches
from pipeline.inference.fused import fuse
from pipeline.inference.multiscale import Frame, propagate

_RANGE_FRAMES = 16  # frames of a stream from which the range of its depth is taken


class FrameDepth:
    """The depth that a network is given with frames that come without.

    Args:
        kind: `model.depth_input` the network was trained with.
        estimator: of depth; None where `kind` needs none.
        low: percentile of a video's inverse depth that becomes 0.
        high: percentile that becomes 1.

    Raises:
        UserError: the network was trained with a control that other frames do not have, or there is no estimator.
    """

    def __init__(self, kind: str, estimator: DepthEstimator | None, low: float, high: float) -> None:
        if kind not in ("estimated", "constant", "luminance"):
            raise UserError(
                f"the weights were trained with model.depth_input {kind}, a control that a single video does not have; "
                "expected estimated; give other weights"
            )
        if kind == "estimated" and estimator is None:
            raise UserError("the weights take depth, but no depth weights are given; give those of the depth network")
        self._kind = kind
        self._estimator = estimator
        self._low, self._high = low, high

    def range_of(self, frames: Iterable[NDArray[np.uint8]]) -> DepthRange | None:
        """Range of depth over some frames of a video, one for all of it; None where depth is not estimated."""
        if self._kind != "estimated":
            return None
        inverse = [one for frame in frames for one in self._inverse([frame])]
        return robust_range(inverse, self._low, self._high)

    def maps(self, frames: list[NDArray[np.uint8]], depth_range: DepthRange | None) -> list[NDArray[np.float32]]:
        """Depth maps float32 H,W in [0, 1] of uint8 H,W,3 frames."""
        if self._kind == "constant":
            return [np.full(frame.shape[:2], 0.5, np.float32) for frame in frames]
        if self._kind == "luminance":
            return [cv2.cvtColor(f, cv2.COLOR_RGB2GRAY).astype(np.float32) / np.float32(255) for f in frames]
        assert depth_range is not None
        return [normalise(one, depth_range, *frame.shape[:2]) for one, frame in zip(self._inverse(frames), frames)]

    def _inverse(self, frames: list[NDArray[np.uint8]]) -> list[NDArray[np.float16]]:
        assert self._estimator is not None
        return [invert(log_depth) for log_depth in self._estimator.log_depth(frames)]


class Segmenter:
    """Segments videos frame by frame.

    Args:
        network: D-STM, in evaluation mode, on `device`.
        depth: gives it depth; None for a network without.
        switches: `tta`.
        config: memory, precision, scales.
        device: of the network.
    """

    def __init__(
        self,
        network: DSTM,
        depth: FrameDepth | None,
        switches: InferSwitches,
        config: InferConfig,
        device: torch.device,
    ) -> None:
        self._network = fuse(network)
        self.depth = depth if network.switches.depth else None
        self._switches, self._config, self._device = switches, config, device

    def propagate(
        self,
        frames: Iterable[NDArray[np.uint8]],
        masks: Mapping[int, NDArray[np.uint8]],
        depth_range: DepthRange | None = None,
    ) -> Iterator[NDArray[np.uint8]]:
        """Masks of a video as its frames come, a few frames behind.

        Args:
            frames: uint8 H,W,3 RGB, all of one size.
            masks: frame index -> uint8 H,W ids of the objects that appear there; see `multiscale.propagate`.
            depth_range: inverse depths that become 0 and 1 (`self.depth.range_of` of frames from all over the video);
                if None, those of the first frames.

        Yields:
            uint8 H,W ids for each frame.

        Raises:
            UserError: unfit masks or frames.
        """
        source = iter(frames)
        if self.depth is not None and depth_range is None:
            first = list(islice(source, _RANGE_FRAMES))
            depth_range, source = self.depth.range_of(first), chain(first, source)
        given = self._with_depth(source, depth_range)
        yield from propagate(self._network, given, masks, self._switches, self._config, self._device)

    def _with_depth(self, frames: Iterator[NDArray[np.uint8]], depth_range: DepthRange | None) -> Iterator[Frame]:
        while ahead := list(islice(frames, self._config.lookahead)):
            if self.depth is None:
                yield from (Frame(rgb, None) for rgb in ahead)
            else:
                yield from map(Frame, ahead, self.depth.maps(ahead, depth_range))
