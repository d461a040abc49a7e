"""Segment any frames: networks, estimated depth, masks."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from itertools import chain, count, islice
from typing import Literal, overload

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pipeline.core.errors import UserError
from pipeline.dstm.network import DSTM
from pipeline.hourglass.normalise import DepthRange
from pipeline.inference.arrays import checked_frame, checked_mask
from pipeline.inference.config import InferConfig, InferSwitches
from pipeline.inference.directions import (
    Blend,
    Clip,
    Direction,
    FrameList,
    ProbabilityStore,
    check_direction,
    frames_backward,
)
from pipeline.inference.frame_depth import FrameDepth
from pipeline.inference.frames import Found, Frame, Known, shrink, working_size
from pipeline.inference.given import Given
from pipeline.inference.prepared import prepare
from pipeline.inference.propagate import Pass
from pipeline.inference.soft_masks import SoftMask, full_probabilities

_RANGE_FRAMES = 16  # number of frames of a stream that give the range of its depth

Rgb = NDArray[np.uint8]
Ids = NDArray[np.generic]


class Segmenter:
    """Segments videos frame by frame.

    Args:
        network: D-STM, in evaluation mode, on `device`.
        depth: provides depth; None for a network without depth.
        switches: `tta`.
        config: memory, precision, scales and the size at which the network works.
        device: of the network.

    Attributes:
        depth: as given; None if the network takes none.
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

    @overload
    def propagate(
        self,
        frames: Iterable[Rgb],
        masks: Ids | Mapping[int, Ids],
        depth_range: DepthRange | None = None,
        lookahead: int | None = None,
        gone: Mapping[int, Iterable[int]] | None = None,
        direction: Direction = "forward",
        probabilities: Literal[False] = False,
    ) -> Generator[NDArray[np.uint8], None, None]: ...

    @overload
    def propagate(
        self,
        frames: Iterable[Rgb],
        masks: Ids | Mapping[int, Ids],
        depth_range: DepthRange | None = None,
        lookahead: int | None = None,
        gone: Mapping[int, Iterable[int]] | None = None,
        direction: Direction = "forward",
        *,
        probabilities: Literal[True],
    ) -> Generator[SoftMask, None, None]: ...

    def propagate(
        self,
        frames: Iterable[Rgb],
        masks: Ids | Mapping[int, Ids],
        depth_range: DepthRange | None = None,
        lookahead: int | None = None,
        gone: Mapping[int, Iterable[int]] | None = None,
        direction: Direction = "forward",
        probabilities: bool = False,
    ) -> Generator[NDArray[np.uint8], None, None] | Generator[SoftMask, None, None]:
        """Yield the masks of a video, frame by frame.

        Frames are read `lookahead` at a time, and their masks are yielded before more are read, so a mask comes at most
        `lookahead` - 1 frames after its frame. If depth is estimated and its range is not given, 16 frames are read
        before the first mask. Of past frames only the memory is kept (`infer.memory_frames`). Closing the generator
        frees everything.

        Args:
            frames: uint8 H,W,3 RGB, all with the same size; any iterable, also an endless one. Several are held at a
                time, so each must be its own array. For directions other than `forward`, a sequence.
            masks: H,W ids of the objects in the first frame; or frame index -> ids of objects that appear in that frame
                or are corrected there, see `propagate.propagate`. Integers or booleans.
            depth_range: inverse depths that become 0 and 1 (`self.depth.range_of` of frames spread over the video);
                if None, from the first frames.
            lookahead: frames processed at a time, instead of `infer.lookahead`; 1 for a camera. Smaller values are
                slower and give the same masks up to rounding.
            gone: frame index -> ids of objects that are absent from that frame on, until a mask shows them again.
            direction: `forward`: from each mask to the end; `auto`: frames before the first mask are also segmented,
                backwards from it; `both`: every mask is propagated in both directions, and between two masks of an
                object the nearer one has more weight. Results of the backward pass are kept in temporary files.
            probabilities: yield `SoftMask` instead of masks.

        Yields:
            uint8 H,W ids for each frame, or a `SoftMask`.

        Raises:
            UserError: invalid arguments, immediately; invalid frames, when they are read.
        """
        check_direction(direction)
        by_frame = {0: masks} if isinstance(masks, np.ndarray) else masks
        given = Given({index: checked_mask(index, mask) for index, mask in by_frame.items()}, gone)
        if direction == "forward" or (direction == "auto" and given.first == 0):
            found = self.forward(frames, given, depth_range, lookahead, soft=probabilities)
        elif isinstance(frames, Sequence | np.ndarray):
            found = self._both(FrameList(frames), given, direction, depth_range, lookahead, probabilities)
        else:
            raise UserError(
                f"the direction is {direction}, but the frames are {type(frames).__name__}; expected a list or another "
                "sequence, because they are read twice; collect them first, or give direction='forward'"
            )
        return self._soft(found, given) if probabilities else self._masks(found)

    def forward(
        self,
        frames: Iterable[Rgb],
        given: Given,
        depth_range: DepthRange | None = None,
        lookahead: int | None = None,
        start: int = 0,
        soft: bool = False,
        known: Known | None = None,
        merge: Callable[[int, Tensor], Tensor] | None = None,
    ) -> Generator[Found, None, None]:
        """Results for the frames of a video from some frame on, in order.

        Args:
            frames: see `propagate`.
            given: statements about the video; frame 0 is the first of `frames`.
            depth_range: see `propagate`.
            lookahead: see `propagate`.
            start: index in the video of the first of `frames`, for messages.
            soft: also return probabilities.
            known: see `Pass`.
            merge: see `Pass`.
        """
        checked = map(checked_frame, count(start), frames)
        first = next(checked, None)
        if first is None:
            given.check_length(0)
            return
        size = (first.shape[0], first.shape[1])
        config = self._config if lookahead is None else replace(self._config, lookahead=lookahead)
        source = self._reduced(chain([first], checked), size, start)
        del first  # so that frames are freed when they are done
        if self.depth is not None and self.depth.estimated and depth_range is None:
            ahead = list(islice(source, _RANGE_FRAMES))
            depth_range = self.depth.range_of(ahead)
            source = chain(ahead, source)
            del ahead
        one_pass = Pass(
            self._network, given, self._switches, config, self._device, soft=soft, known=known, size=size, merge=merge
        )
        with closing(self._with_depth(source, depth_range, config.lookahead)) as with_depth:
            yield from one_pass.run(with_depth)

    def backward(
        self,
        clip: Clip,
        given: Given,
        direction: Direction,
        depth_range: DepthRange | None,
        store: ProbabilityStore,
        stop: int = 0,
        known: Known | None = None,
        soft: bool = False,
    ) -> Generator[tuple[int, Found], None, None]:
        """Results of the backward pass; probabilities of the frames from the first mask on go to a store.

        Args:
            clip: the video.
            given: statements about it.
            direction: `auto` or `both`.
            depth_range: see `propagate`; if None, from the first frames of the pass.
            store: receives what `Blend` needs.
            stop: index of the last frame to segment.
            known: masks that already exist, see `Pass`; frame 0 is the first frame of the pass, `given.first`.
            soft: also return probabilities.

        Yields:
            Index and result of each frame, last one first. Results before the first mask are final.
        """
        begin = given.first if direction == "auto" else given.last
        first = next(clip.frames(begin, begin + 1), None)
        if first is None:
            return  # the forward pass reports the frame that does not exist
        size = (first.shape[0], first.shape[1])
        frames = map(checked_frame, count(begin, -1), frames_backward(_Reduced(clip, self, size), begin, stop))
        if self.depth is not None and self.depth.estimated and depth_range is None:
            depth_range = self.depth.range_of([first])
        del first
        turned, spills = given.backward(begin), begin > given.first
        one_pass = Pass(
            self._network,
            turned,
            self._switches,
            self._config,
            self._device,
            soft=soft or spills,
            known=known,
            size=size,
        )
        with closing(self._with_depth(frames, depth_range, self._config.lookahead)) as with_depth:
            for index, found in zip(range(begin, stop - 1, -1), one_pass.run(with_depth)):
                if (
                    index >= given.first
                    and found.probabilities is not None
                    and given.weights(index, direction)[1].any()
                ):
                    store.write(index, found.probabilities)
                yield index, found

    def _both(
        self,
        clip: Clip,
        given: Given,
        direction: Direction,
        depth_range: DepthRange | None,
        lookahead: int | None,
        soft: bool,
    ) -> Generator[Found, None, None]:
        """Frames in order, after a backward pass whose masks are kept in memory, compressed."""
        begin = given.first
        if self.depth is not None and self.depth.estimated and depth_range is None:
            depth_range = self.depth.range_of(list(clip.frames(0, _RANGE_FRAMES)))
        with ProbabilityStore(None) as store:
            masks: list[tuple[tuple[int, ...], bytes]] = []
            for index, found in self.backward(clip, given, direction, depth_range, store, soft=soft):
                if index >= begin:
                    continue
                masks.append((found.mask.shape, zlib.compress(found.mask.tobytes(), 1)))
                if soft and found.probabilities is not None:
                    store.write(index, found.probabilities)
            for index, (shape, packed) in enumerate(reversed(masks)):
                held = store.read(index)
                mask = np.frombuffer(zlib.decompress(packed), np.uint8).reshape(shape)
                yield Found(mask, None if held is None else held[0])
            blend = Blend(given, direction, store, begin)
            frames, later = clip.frames(begin), given.forward(begin)
            yield from self.forward(frames, later, depth_range, lookahead, begin, soft, merge=blend)

    def _masks(self, found: Generator[Found, None, None]) -> Generator[NDArray[np.uint8], None, None]:
        with closing(found):
            for one in found:
                yield one.mask

    def _soft(self, found: Generator[Found, None, None], given: Given) -> Generator[SoftMask, None, None]:
        with closing(found):
            for one in found:
                yield SoftMask(one.mask, given.ids, full_probabilities(one))

    def _reduced(self, frames: Iterator[Rgb], size: tuple[int, int], start: int = 0) -> Iterator[Rgb]:
        """Frames at the size at which the network works; those whose size is not `size` are left to `Pass`."""
        work = working_size(*size, self._config.short_side)
        return frames if work == size else (shrink(f, work) if f.shape[:2] == size else f for f in frames)

    def _with_depth(
        self, frames: Iterator[Rgb], depth_range: DepthRange | None, lookahead: int
    ) -> Generator[Frame, None, None]:
        maps = None if self.depth is None else self.depth.follow(depth_range)
        while ahead := list(islice(frames, lookahead)):
            if maps is None:
                yield from (Frame(rgb, None) for rgb in ahead)
            else:
                yield from map(Frame, ahead, maps(ahead))


class _Reduced:
    """A `Clip` at the size at which the network works, so that more frames of it fit in memory."""

    def __init__(self, clip: Clip, segmenter: Segmenter, size: tuple[int, int]) -> None:
        self._clip, self._segmenter, self._size = clip, segmenter, size

    def frames(self, start: int = 0, stop: int | None = None) -> Iterator[Rgb]:
        """See `Clip`."""
        return self._segmenter._reduced(self._clip.frames(start, stop), self._size)
