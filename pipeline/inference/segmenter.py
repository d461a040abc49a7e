"""Segmentation of any frames: networks, depth on the way, masks out."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from contextlib import closing
from dataclasses import replace
from itertools import chain, count, islice

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from pipeline.core.errors import UserError
from pipeline.core.images import VOID
from pipeline.dstm.network import DSTM
from pipeline.hourglass.estimator import DepthEstimator
from pipeline.hourglass.normalise import DepthRange, invert, normalise, robust_range
from pipeline.hourglass.scale_smoothing import ScaleSmoother
from pipeline.inference.config import InferConfig, InferSwitches
from pipeline.inference.given import Given
from pipeline.inference.prepared import prepare
from pipeline.inference.propagate import Frame, Pass

_RANGE_FRAMES = 16  # frames of a stream from which the range of its depth is taken


class FrameDepth:
    """The depth that a network is given with frames that come without.

    Args:
        kind: `model.depth_input` the network was trained with.
        estimator: of depth; None where `kind` needs none.
        low: percentile of a video's inverse depth that becomes 0.
        high: percentile that becomes 1.
        steady: how long the jitter of a video's scale is held back, see `pipeline/hourglass/scale_smoothing.py`.

    Attributes:
        estimated: whether depth is estimated, so that its range is to be found first.

    Raises:
        UserError: the network was trained with a control that other frames do not have, or there is no estimator.
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
        """Range of depth over some frames of a video, one for all of it; None where depth is not estimated."""
        if not self.estimated:
            return None
        inverse = [one for frame in frames for one in self._inverse([frame])]
        return robust_range(inverse, self._low, self._high)

    def follow(self, depth_range: DepthRange | None) -> Callable[[list[NDArray[np.uint8]]], list[NDArray[np.float32]]]:
        """Depth of one video, some frames at a time and in order.

        Args:
            depth_range: inverse depths that become 0 and 1; None where depth is not estimated.

        Returns:
            Maps uint8 H,W,3 frames to float32 H,W in [0, 1].
        """
        smooth = ScaleSmoother(self._steady)

        def maps(frames: list[NDArray[np.uint8]]) -> list[NDArray[np.float32]]:
            if self._kind == "constant":
                return [np.full(frame.shape[:2], 0.5, np.float32) for frame in frames]
            if self._kind == "luminance":
                return [cv2.cvtColor(f, cv2.COLOR_RGB2GRAY).astype(np.float32) / np.float32(255) for f in frames]
            assert depth_range is not None
            steady = map(smooth, frames, self._inverse(frames))
            return [normalise(one, depth_range, *frame.shape[:2]) for one, frame in zip(steady, frames)]

        return maps

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

    Attributes:
        depth: as given; None where the network takes none.
    """

    def __init__(
        self,
        network: DSTM,
        depth: FrameDepth | None,
        switches: InferSwitches,
        config: InferConfig,
        device: torch.device,
    ) -> None:
        self._network = prepare(network, config.precision)
        self.depth = depth if network.switches.depth else None
        self._switches, self._config, self._device = switches, config, device

    def propagate(
        self,
        frames: Iterable[NDArray[np.uint8]],
        masks: NDArray[np.generic] | Mapping[int, NDArray[np.generic]],
        depth_range: DepthRange | None = None,
        lookahead: int | None = None,
        gone: Mapping[int, Iterable[int]] | None = None,
    ) -> Generator[NDArray[np.uint8], None, None]:
        """Masks of a video as its frames come.

        Frames are taken `lookahead` at a time, and their masks are given before more are taken: a mask lags at most
        `lookahead` - 1 frames behind its frame. Where depth is estimated and its range not given, 16 frames are taken
        before the first mask comes. Of the past nothing is held but the memory (`infer.memory_frames`). Closing the
        generator frees everything.

        Args:
            frames: uint8 H,W,3 RGB, all of one size; any iterable, also one without end. Several wait at a time, so
                each is to be an array of its own.
            masks: H,W ids of the objects in the first frame; or frame index -> ids of objects that appear in that frame
                or are corrected there, see `propagate.propagate`. Integers or booleans.
            depth_range: inverse depths that become 0 and 1 (`self.depth.range_of` of frames from all over the video);
                if None, those of the first frames.
            lookahead: frames taken at a time, in place of `infer.lookahead`; 1 for a camera. Less is slower and gives
                the same masks up to rounding.
            gone: frame index -> ids of objects that are absent from that frame on, until a mask shows them again.

        Yields:
            uint8 H,W ids for each frame.

        Raises:
            UserError: unfit masks, at once; unfit frames, when their turn comes.
        """
        config = self._config if lookahead is None else replace(self._config, lookahead=lookahead)
        given = {0: masks} if isinstance(masks, np.ndarray) else masks
        ids = {index: _checked_mask(index, mask) for index, mask in given.items()}
        return self._propagate(map(_checked_frame, count(), frames), Given(ids, gone), depth_range, config)

    def _propagate(
        self,
        frames: Iterator[NDArray[np.uint8]],
        given: Given,
        depth_range: DepthRange | None,
        config: InferConfig,
    ) -> Generator[NDArray[np.uint8], None, None]:
        if self.depth is not None and self.depth.estimated and depth_range is None:
            first = list(islice(frames, _RANGE_FRAMES))
            depth_range = self.depth.range_of(first) if first else None
            frames = chain(first, frames)
            del first  # so that the frames go when they are done
        one_pass = Pass(self._network, given, self._switches, config, self._device)
        with closing(self._with_depth(frames, depth_range, config.lookahead)) as with_depth:
            for found in one_pass.run(with_depth):
                yield found.mask

    def _with_depth(
        self, frames: Iterator[NDArray[np.uint8]], depth_range: DepthRange | None, lookahead: int
    ) -> Generator[Frame, None, None]:
        maps = None if self.depth is None else self.depth.follow(depth_range)
        while ahead := list(islice(frames, lookahead)):
            if maps is None:
                yield from (Frame(rgb, None) for rgb in ahead)
            else:
                yield from map(Frame, ahead, maps(ahead))


def _checked_mask(index: int, mask: NDArray[np.generic]) -> NDArray[np.uint8]:
    ids = np.asarray(mask)
    if ids.ndim != 2 or ids.dtype.kind not in "iub":
        raise UserError(
            f"the mask of frame {index} is {ids.dtype} of shape {ids.shape}; expected H,W whole numbers, the objects' "
            "ids; give one plane of ids"
        )
    if index < 0 or (ids.size and not 0 <= int(ids.min()) <= int(ids.max()) <= VOID):
        raise UserError(
            f"the mask of frame {index} holds {ids.min()} to {ids.max()}; expected frames from 0 on and ids from 0 to "
            f"{VOID}; number them anew"
        )
    return np.ascontiguousarray(ids, np.uint8)


def _checked_frame(index: int, frame: NDArray[np.uint8]) -> NDArray[np.uint8]:
    rgb = np.asarray(frame)
    if rgb.ndim != 3 or rgb.shape[2] != 3 or rgb.dtype != np.uint8 or not rgb.size:
        raise UserError(
            f"frame {index} is {rgb.dtype} of shape {rgb.shape}; expected uint8 of shape H,W,3, RGB; convert it"
        )
    return np.ascontiguousarray(rgb)  # OpenCV takes no array that runs backwards, as BGR turned to RGB does
