"""Depth for frames without depth maps."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np
from numpy.typing import NDArray

from pipeline.core.errors import UserError
from pipeline.datasets.depth_input import simple_depth
from pipeline.hourglass.estimator import DepthEstimator
from pipeline.hourglass.normalise import DepthRange, invert, normalise, robust_range
from pipeline.hourglass.scale_smoothing import ScaleSmoother


class FrameDepth:
    """Provides depth for frames that have none.

    Args:
        kind: the `model.depth_input` with which the network was trained.
        estimator: of depth; None if `kind` needs none.
        low: percentile of a video's inverse depth that becomes 0.
        high: percentile that becomes 1.
        steady: smoothing of a video's jittering scale, see `pipeline/hourglass/scale_smoothing.py`.

    Attributes:
        estimated: whether depth is estimated, so that its range must be found first.

    Raises:
        UserError: the network was trained with a control that is not available here, or there is no estimator.
    """

    def __init__(self, kind: str, estimator: DepthEstimator | None, low: float, high: float, steady: float) -> None:
        if kind not in ("estimated", "constant", "luminance"):
            raise UserError(
                f"the weights were trained with model.depth_input {kind}, a control that a single video does not have; "
                "expected estimated; give other weights"
            )
        if kind == "estimated" and estimator is None:
            raise UserError("the weights take depth, but no depth weights are given; give those of the depth network")
        self._kind = kind
        self._estimator = estimator
        self._low, self._high, self._steady = low, high, steady
        self.estimated = kind == "estimated"

    def range_of(self, frames: Iterable[NDArray[np.uint8]]) -> DepthRange | None:
        """Range of depth over some frames, used for the complete video; None if depth is not estimated."""
        if not self.estimated:
            return None
        inverse = [one for frame in frames for one in self._inverse([frame])]
        return robust_range(inverse, self._low, self._high)

    def follow(self, depth_range: DepthRange | None) -> Callable[[list[NDArray[np.uint8]]], list[NDArray[np.float32]]]:
        """Depth of one video, some frames at a time and in order.

        Args:
            depth_range: inverse depths that become 0 and 1; None if depth is not estimated.

        Returns:
            Maps uint8 H,W,3 frames to float32 H,W in [0, 1].
        """
        smooth = ScaleSmoother(self._steady)

        def maps(frames: list[NDArray[np.uint8]]) -> list[NDArray[np.float32]]:
            simple = [simple_depth(self._kind, frame) for frame in frames]
            if not self.estimated:
                return [one for one in simple if one is not None]
            assert depth_range is not None
            steady = map(smooth, frames, self._inverse(frames))
            return [normalise(one, depth_range, *frame.shape[:2]) for one, frame in zip(steady, frames)]

        return maps

    def _inverse(self, frames: list[NDArray[np.uint8]]) -> list[NDArray[np.float16]]:
        assert self._estimator is not None
        return [invert(log_depth) for log_depth in self._estimator.log_depth(frames)]
