"""One scale of a video, from frame to frame: queries are encoded ahead, and the memory follows."""

from __future__ import annotations

from collections import deque
from typing import NamedTuple

import torch
from torch import Tensor

from pipeline.dstm.network import DSTM, Query
from pipeline.inference.budget import Plan
from pipeline.inference.config import InferConfig
from pipeline.inference.memory_bank import MemoryBank, Schedule
from pipeline.inference.planes import resize


class _Ahead(NamedTuple):
    """A loaded frame that waits."""

    frames: Tensor  # B,3,h,w
    depth: Tensor | None  # B,1,h,w
    query: Query | None  # None for a frame that is only memorized


class _Pending(NamedTuple):
    """A frame that is memorized only if another one follows."""

    frame: int
    ahead: _Ahead
    masks: Tensor  # B,K+1,h,w
    given: bool


class Track:
    """A video at one scale, optionally also mirrored: B = 1 or 2 views that share every pass.

    Args:
        network: in evaluation mode.
        scale: factor on the sides of the frame.
        flip: add the mirrored view.
        config: which frames the memory keeps.
        plan: how much is computed at a time.
        device: of the network.
    """

    def __init__(
        self, network: DSTM, scale: float, flip: bool, config: InferConfig, plan: Plan, device: torch.device
    ) -> None:
        self._network = network
        self._scale = scale
        self._flip = flip
        self._most_rows = config.chunk if device.type == "cpu" else None
        self._plan = plan
        self._schedule = Schedule(config.memory_every, plan.slots)
        self._bank = MemoryBank(self._schedule, plan.slots, doubling=device.type != "cpu")
        self._ahead: deque[_Ahead] = deque()
        self._pending: _Pending | None = None

    @property
    def thinned(self) -> bool:
        """Whether frames were removed from the memory because of its limit."""
        return self._schedule.thinned

    def look_ahead(self, frames: Tensor, depth: Tensor | None, skip: int) -> None:
        """Load the next frames and encode their queries in one pass.

        Args:
            frames: L,3,H,W in [0, 1].
            depth: L,1,H,W in [0, 1], or None for a network without depth.
            skip: number of them, from the start, that need no query.
        """
        length = frames.shape[0]
        frames, b = self._views(frames), 1 + self._flip  # L*B,3,h,w
        depth = None if depth is None else self._views(depth)
        queries = None
        if skip < length:
            queries = self._network.encode_query(frames[skip * b :], None if depth is None else depth[skip * b :])
        for i in range(length):
            part = slice(i * b, (i + 1) * b)
            query = None if queries is None or i < skip else _pick(queries, slice((i - skip) * b, (i - skip + 1) * b))
            self._ahead.append(_Ahead(frames[part], None if depth is None else depth[part], query))

    def segment(self, objects: Tensor | None) -> Tensor:
        """Memorize the previous frame, then segment the next one from the memory.

        Args:
            objects: K bool, which objects have appeared; all if None.

        Returns:
            B,K+1,h,w float32 probabilities of each view, mirrored ones still mirrored.
        """
        self._memorize_pending()
        query = self._ahead[0].query
        assert query is not None
        used = None if objects is None else objects.expand(query.key.shape[0], -1)
        places = query.key.shape[-2] * query.key.shape[-1]
        chunk = self._plan.chunk(self._most_rows or places, len(self._schedule.frames))
        return self._network.segment(query, self._bank.read(), used, chunk, self._plan.batch).softmax(dim=1)

    def finish(self, frame: int, masks: Tensor, given: bool) -> None:
        """Finish the next frame with its masks; it is memorized if another one follows.

        Args:
            frame: its index.
            masks: B,K+1,h,w probabilities of each view.
            given: whether a mask was given for it.
        """
        self._memorize_pending()
        done = self._ahead.popleft()._replace(
            query=None
        )  # a part of a batch of queries, which is freed with its last frame
        self._pending = _Pending(frame, done, masks, given)

    def skip(self) -> None:
        """Drop the next frame; it does not count for the memory."""
        self._memorize_pending()
        self._ahead.popleft()

    def pass_over(self, frame: int, given: bool) -> None:
        """Drop the next frame, but count it for the memory, because a later frame overwrites its slot anyway.

        Args:
            frame: its index.
            given: whether it has a given mask.
        """
        self._memorize_pending()
        self._ahead.popleft()
        self._bank.skip(frame, given)

    def to_views(self, planes: Tensor, nearest: bool) -> Tensor:
        """Resize planes of the original frame (1,C,H,W) to this track's size and views: B,C,h,w."""
        return self._views(planes, nearest)

    def from_views(self, planes: Tensor, height: int, width: int) -> Tensor:
        """Sum of the views of B,C,h,w planes, mirrored back, at the original size: C,H,W."""
        total = planes[0] + planes[1].flip(-1) if self._flip else planes[0]
        return resize(total[None], (height, width), nearest=False)[0]

    def _views(self, planes: Tensor, nearest: bool = False) -> Tensor:
        height, width = planes.shape[-2:]
        size = (max(1, round(height * self._scale)), max(1, round(width * self._scale)))
        planes = resize(planes, size, nearest)
        if self._flip:
            planes = torch.stack([planes, planes.flip(-1)], dim=1).flatten(0, 1)  # view after view
        return planes.contiguous(memory_format=torch.channels_last)

    def _memorize_pending(self) -> None:
        if self._pending is None:
            return
        frame, ahead, masks, given = self._pending
        key, value = self._network.memorize(ahead.frames, ahead.depth, masks, batch=self._plan.batch)
        self._bank.write(frame, key, value, given)
        self._pending = None


def _pick(query: Query, part: slice) -> Query:
    return Query(query.key[part], query.value[part], query.skip8[part], query.skip4[part], query.height, query.width)
