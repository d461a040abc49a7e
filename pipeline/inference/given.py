"""What a user states about a video: masks of some frames, and which objects have left from which frame on."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pipeline.core.errors import UserError
from pipeline.core.images import object_ids


class Statement(NamedTuple):
    """The statement about one frame.

    Attributes:
        mask: uint8 H,W ids; None if only objects have left.
        named: K bool, the objects that the mask shows. In this frame they are exactly as in the mask.
        gone: K bool, the objects that are absent from this frame on, until a mask shows them again.
    """

    mask: NDArray[np.uint8] | None
    named: NDArray[np.bool_]
    gone: NDArray[np.bool_]


class Given:
    """The statements about one video.

    An object's *slot* is its index among all ids in ascending order, from 0 on. In label maps of slots, 0 is the
    background and slot k has the number k + 1.

    Args:
        masks: frame index -> uint8 H,W ids: 0 background, 255 void (no statement), other values objects.
        gone: frame index -> ids of the objects that are absent from this frame on.
        ids: 0 and the ids that have a slot, ascending, at least those of the masks; only those if None.

        start: index in the video of the frame that is 0 here, for messages.

    Attributes:
        ids: uint8 K+1; 0 and the ids of all objects, ascending.

    Raises:
        UserError: no mask has an object, or an object that leaves is in no mask or in the mask of the same frame.
    """

    def __init__(
        self,
        masks: Mapping[int, NDArray[np.uint8]],
        gone: Mapping[int, Iterable[int]] | None = None,
        ids: NDArray[np.uint8] | None = None,
        start: int = 0,
    ) -> None:
        shown = {index: object_ids(np.ascontiguousarray(mask)) for index, mask in masks.items()}
        left = {index: sorted(set(leaving)) for index, leaving in (gone or {}).items()}
        objects = sorted(set().union(*shown.values()))
        if not objects:
            raise UserError(
                "the masks have no object; expected at least one id from 1 to 254; draw the objects in the mask"
            )
        for index, leaving in left.items():
            unknown, both = set(leaving) - set(objects), set(leaving) & set(shown.get(index, ()))
            if unknown or index < 0:
                raise UserError(
                    f"object {min(unknown, default=leaving[0])} is stated to be gone from frame {index} on; expected a "
                    f"frame from 0 on and an id of the masks ({', '.join(map(str, objects))}); correct it"
                )
            if both:
                raise UserError(
                    f"object {min(both)} is stated to be gone from frame {index} on, and the mask of that frame shows "
                    "it; expected one of the two; take it out of the mask or correct the frame"
                )
        self.ids = np.array([0, *objects], np.uint8) if ids is None else ids
        self._masks = dict(masks)
        self._shown, self._left = shown, left
        self._start = start
        self._frames = sorted(self._masks.keys() | left.keys())

    @property
    def frames(self) -> tuple[int, ...]:
        """Indices of all frames with a statement, ascending."""
        return tuple(self._frames)

    @property
    def first(self) -> int:
        """Index of the first frame whose mask shows an object."""
        return min(index for index, ids in self._shown.items() if ids)

    @property
    def last(self) -> int:
        """Index of the last frame whose mask shows an object."""
        return max(index for index, ids in self._shown.items() if ids)

    def at(self, index: int) -> Statement | None:
        """The statement about a frame; None if there is none."""
        if index not in self._masks and index not in self._left:
            return None
        shown, left = self._shown.get(index, []), self._left.get(index, [])
        return Statement(self._masks.get(index), np.isin(self.ids[1:], shown), np.isin(self.ids[1:], left))

    def seen(self, before: NDArray[np.bool_], statement: Statement) -> NDArray[np.bool_]:
        """K bool, the objects that are present after a statement, from those that were present before."""
        return np.asarray((before | statement.named) & ~statement.gone)

    def check(self, height: int, width: int) -> None:
        """Compare the masks with the size of the frames.

        Raises:
            UserError: a mask has another size.
        """
        for index, mask in sorted(self._masks.items()):
            if mask.shape != (height, width):
                raise UserError(
                    f"the mask of frame {index} is {mask.shape[1]}x{mask.shape[0]}, its frame {width}x{height}; "
                    "expected the same size; resize the mask without smoothing"
                )

    def check_length(self, length: int) -> None:
        """Compare the indices with the length of the video, once it is known.

        Raises:
            UserError: there is a statement about a frame after the end.
        """
        late = [index for index in self._frames if index >= length]
        if late:
            what = "a mask is given" if late[0] in self._masks else "an object is stated to be gone"
            raise UserError(
                f"{what} for frame {self._start + late[0]}, but the video has {self._start + length} frames (0 to "
                f"{self._start + length - 1}); give the index of one of them"
            )

    def forward(self, start: int) -> Given:
        """The same statements for a pass that starts with frame `start`; no mask before it shows an object."""
        masks = {index - start: mask for index, mask in self._masks.items() if index >= start}
        left = {index - start: ids for index, ids in self._left.items() if index >= start}
        return Given(masks, left, self.ids, start)

    def backward(self, start: int) -> Given:
        """The same statements for a pass from frame `start` down to 0.

        Backwards, an object is absent from the frame before the mask that brings it back, and unknown once the pass is
        before its first mask. Frame i of the video is frame `start` - i of the pass.

        Args:
            start: index of the first frame of the pass; a mask shows an object in it.
        """
        masks = {start - index: mask for index, mask in self._masks.items() if index <= start}
        gone: dict[int, list[int]] = {}
        for index, ids in self._left.items():
            for one in ids:
                back = next((i for i in self._anchors(one) if i > index), None)
                if back is not None and back <= start:
                    gone.setdefault(start - (back - 1), []).append(one)
        return Given(masks, gone, self.ids)

    def weights(self, index: int, direction: str) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Weight of each direction for each object of a frame.

        Forwards counts from the last mask that shows the object, backwards from the next one. Between two masks, each
        direction has more weight the nearer its mask is. If an object has left, neither counts.

        Args:
            index: of the frame.
            direction: `forward`: never backwards; `auto`: backwards only before the first mask; `both`.

        Returns:
            K float32 weights of the forward and of the backward pass; they sum to 1, or to 0 if the object is absent
            or unknown.
        """
        count = len(self.ids) - 1
        forward, backward = np.zeros(count, np.float32), np.zeros(count, np.float32)
        backwards = direction == "both" or (direction == "auto" and index < self.first)
        for slot, one in enumerate(self.ids[1:].tolist()):
            events = [(i, True) for i in self._anchors(one)] + [
                (i, False) for i, ids in self._left.items() if one in ids
            ]
            events.sort()
            place = bisect_right(events, (index, True))
            before, known = events[place - 1] if place else (0, False)
            after, returns = events[place] if place < len(events) and backwards else (0, False)
            if place and not known:  # it has left
                continue
            backward[slot] = ((index - before) / (after - before) if known else 1.0) if returns else 0.0
            forward[slot] = 1 - backward[slot] if known else 0.0
        return forward, backward

    def _anchors(self, one: int) -> list[int]:
        """Frames whose masks show an object, ascending."""
        return [index for index, ids in sorted(self._shown.items()) if one in ids]
