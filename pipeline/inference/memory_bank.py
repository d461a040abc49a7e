"""The memory of a video: which frames it holds, and their keys and values in one preallocated block."""

from __future__ import annotations

from torch import Tensor

from pipeline.dstm.memory import Memory

_FIRST_CAPACITY = 8  # slots of the first block, if blocks double when full


class Schedule:
    """Which frames are in the memory: the first, the previous one, every n-th, and those with a given mask.

    If the number of frames is limited, the first and the previous one stay and the others are thinned: every second
    kept frame is removed, oldest first, then every second one of the rest, so neighbouring gaps never differ by more
    than a factor of two. Frames with a given mask are removed last.

    Args:
        every: one frame in so many is kept, counted from the first.
        limit: largest number of frames, at least 2; 0: no limit.
    """

    def __init__(self, every: int, limit: int) -> None:
        self._step = every
        self._limit = limit
        self._slots: list[int] = []  # frame by slot
        self._kept: list[int] = []  # ascending; the previous frame is in the memory but not kept
        self._given: set[int] = set()
        self._free: int | None = None  # slot that the next frame overwrites; None: a new one
        self.thinned = False  # whether a frame was removed because of the limit

    @property
    def frames(self) -> tuple[int, ...]:
        """The frames in the memory, by slot."""
        return tuple(self._slots)

    def add(self, frame: int, given: bool) -> int:
        """Add the newest frame.

        Args:
            frame: its index; larger than all previous ones.
            given: whether it has a given mask. The first frame always counts as such.

        Returns:
            The slot to which it is written, an existing one or the next one.
        """
        slot = len(self._slots) if self._free is None else self._free
        self._slots[slot : slot + 1] = [frame]
        self._free = slot
        if given or not self._kept:
            self._given.add(frame)
        elif (frame - self._kept[0]) % self._step:
            return slot
        self._kept.append(frame)
        full = self._limit and len(self._kept) > self._limit - 1
        self._free = self._slots.index(self._drop()) if full else None
        return slot

    def _drop(self) -> int:
        """Remove one kept frame and return it."""
        self.thinned = True
        first = self._kept[0]
        regular = [frame for frame in self._kept if frame not in self._given]
        victim = self._kept[1]  # the oldest one with a given mask, unless a regular one is left
        while regular:
            odd = [frame for frame in regular if (frame - first) // self._step % 2]
            if odd:
                victim = odd[0]
                break
            self._step *= 2
        self._kept.remove(victim)
        return victim


class MemoryBank:
    """Keys and values of the frames a `Schedule` holds, written in place.

    Args:
        schedule: decides the slot of each frame.
        max_slots: slots at the end of the video.
        doubling: grow by doubling, which suits a GPU's allocator. Otherwise the block is exactly as large as needed: on
            a CPU only contiguous rows are multiplied fast, and a copy every few frames is cheap in comparison.
    """

    def __init__(self, schedule: Schedule, max_slots: int, doubling: bool) -> None:
        self._schedule, self._max_slots, self._doubling = schedule, max_slots, doubling
        self._key: Tensor | None = None
        self._value: Tensor | None = None

    def write(self, frame: int, key: Tensor, value: Tensor, given: bool) -> None:
        """Write a frame to the memory.

        Args:
            frame: its index.
            key: B,K,Ck,h,w.
            value: B,K,Cv,h,w.
            given: see `Schedule.add`.
        """
        slot = self._schedule.add(frame, given)
        self._key = self._put(self._key, slot, key, channels_last=True)
        self._value = self._put(self._value, slot, value, channels_last=False)

    def skip(self, frame: int, given: bool) -> None:
        """Count a frame whose slot will be overwritten before the next read.

        Args:
            frame: its index.
            given: see `Schedule.add`.
        """
        self._schedule.add(frame, given)

    def read(self) -> Memory:
        """All slots, as views of the block: key B,K,Ck,T,h,w and value B,K,Cv,T,h,w, in any order."""
        assert self._key is not None and self._value is not None
        t = len(self._schedule.frames)
        return Memory(self._key[:, :, :, :t], self._value[:, :, :, :t])

    def _put(self, block: Tensor | None, slot: int, x: Tensor, channels_last: bool) -> Tensor:
        """Write x B,K,C,h,w to a slot of the block B,K,C,T,h,w, which is created or enlarged if necessary.

        Its memory layout is that of the read: keys as rows of C, values as rows of T,h,w.
        """
        if block is None or slot >= block.shape[3]:
            b, k, c, h, w = x.shape
            held = 0 if block is None else block.shape[3]
            capacity = min(self._max_slots, max(_FIRST_CAPACITY, 2 * held)) if self._doubling else slot + 1
            if channels_last:
                grown = x.new_empty(b, k, capacity, h, w, c).permute(0, 1, 5, 2, 3, 4)
            else:
                grown = x.new_empty(b, k, c, capacity, h, w)
            if block is not None:
                grown[:, :, :, :held] = block
            block = grown
        block[:, :, :, slot] = x
        return block
