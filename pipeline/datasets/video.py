"""The interface of a source of annotated videos."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from pipeline.core.kinds import KINDS, Kind

_KIND = re.compile(rf"({'|'.join(KINDS)})-\d+")


class FirstSeen(Mapping[int, str]):
    """Object id -> frame id of its first mask, computed at first access: opening a set decodes no mask."""

    def __init__(self, load: Callable[[], dict[int, str]]) -> None:
        self._load = load

    @cached_property
    def _seen(self) -> dict[int, str]:
        return self._load()

    def __getitem__(self, object_id: int) -> str:
        return self._seen[object_id]

    def __iter__(self) -> Iterator[int]:
        return iter(self._seen)

    def __len__(self) -> int:
        return len(self._seen)

    def __repr__(self) -> str:
        return repr(self._seen)


@dataclass(frozen=True)
class Video:
    """One video of a set.

    Attributes:
        name: the sequence's name.
        frames: frame ids ("00000") in temporal order.
        annotated: ids of the frames that have a mask.
        first_seen: object id -> id of the frame of its first mask (in ascending order of object ids).
    """

    name: str
    frames: tuple[str, ...]
    annotated: tuple[str, ...]
    first_seen: Mapping[int, str] = field(hash=False, compare=False)

    @property
    def kind(self) -> Kind:
        """Kind of video: from the sample's names ("lookalike-003"); with any other name, from the number of objects."""
        named = _KIND.fullmatch(self.name)
        if named:
            return named[1]  # type: ignore[return-value]  # the pattern matches only these three
        return "multi" if len(self.first_seen) > 1 else "single"


class VideoSource(Protocol):
    """A set of annotated videos; reading is safe across threads and forks."""

    @property
    def name(self) -> str:
        """Name of the set, for messages."""
        ...

    @property
    def videos(self) -> tuple[Video, ...]:
        """The videos, in the order of the split."""
        ...

    def frame(self, video: Video, frame_id: str) -> NDArray[np.uint8]:
        """A frame, uint8 H,W,3 RGB."""
        ...

    def mask(self, video: Video, frame_id: str) -> NDArray[np.uint8]:
        """An id mask, uint8 H,W: 0 background, 1.. objects, 255 void; of the frame's height and width."""
        ...
