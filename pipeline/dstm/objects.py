"""Which objects belong to which videos: between a batch of videos with object slots and a batch of objects."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product

import torch
from torch import Tensor


class Objects:
    """The N objects of B videos with K slots each, of which some may be unused.

    Positions are plain numbers, so that no operation waits for the device. Everything is made of slices, which keep the
    channels-last layout, and whose gradients are slices again.

    Args:
        videos: B.
        slots: K.
        used: B,K bool, which slots hold an object; all if None. On a GPU reading it waits once, here.

    Attributes:
        count: N.
    """

    def __init__(self, videos: int, slots: int, used: Tensor | None = None) -> None:
        every = list(product(range(videos), range(slots)))
        if used is not None:
            flags = used.tolist()
            every = [(video, slot) for video, slot in every if flags[video][slot]]
        self._videos, self._slots, self._every = videos, slots, every

    @property
    def count(self) -> int:
        """N."""
        return len(self._every)

    def parts(self, batch: int | None) -> Iterator[Objects]:
        """The objects, `batch` at a time; all at once if None."""
        step = batch or max(1, self.count)
        for start in range(0, max(1, self.count), step):
            part = Objects(self._videos, self._slots)
            part._every = self._every[start : start + step]
            yield part

    def of_video(self, x: Tensor) -> Tensor:
        """B,... to N,...: what each object's video has. Of a single video a view."""
        return x.expand(self.count, *x.shape[1:]) if x.shape[0] == 1 else self.shared(x)

    def shared(self, x: Tensor) -> Tensor:
        """As `of_video`, but of a single video a batch of 1: what follows is computed once and then broadcast."""
        if x.shape[0] == 1:
            return x
        return _joined([x[video : video + 1] for video, _ in self._every], x)

    def pick(self, x: Tensor) -> Tensor:
        """B,K,... to N,...: what each object has. A view where the objects are neighbours."""
        positions = [video * self._slots + slot for video, slot in self._every]
        first, flat = positions[0] if positions else 0, x.flatten(0, 1)
        if positions == list(range(first, first + self.count)):
            return flat[first : first + self.count]
        return _joined([flat[i : i + 1] for i in positions], flat)

    def spread(self, x: Tensor) -> Tensor:
        """N,... to B,K,... with zeros in unused slots."""
        if self.count == self._videos * self._slots:
            return x.view(self._videos, self._slots, *x.shape[1:])
        place = {position: i for i, position in enumerate(self._every)}
        nothing = torch.zeros_like(x[:1]) if self.count else x.new_zeros(1, *x.shape[1:])
        rows = [
            x[place[position] : place[position] + 1] if position in place else nothing
            for position in product(range(self._videos), range(self._slots))
        ]
        return torch.cat(rows).view(self._videos, self._slots, *x.shape[1:])


def _joined(rows: list[Tensor], like: Tensor) -> Tensor:
    return torch.cat(rows) if rows else like[:0]
