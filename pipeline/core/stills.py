"""The interface of a source of segmented still images, as used to simulate videos."""

from __future__ import annotations

from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray


class Instances(NamedTuple):
    """Objects of one image.

    Attributes:
        masks: bool N,H,W, one for each object; N may be 0. Masks may overlap, as in the data set.
        void: bool H,W, pixels that are neither object nor background (borders, crowds); never inside a mask.
    """

    masks: NDArray[np.bool_]
    void: NDArray[np.bool_]


class StillSource(Protocol):
    """A set of segmented images; reading is safe across threads and forks."""

    @property
    def name(self) -> str:
        """Name of the set, for messages."""
        ...

    @property
    def images(self) -> tuple[str, ...]:
        """Ids of the usable images, sorted."""
        ...

    @property
    def counts(self) -> dict[str, int]:
        """How much was used and left out when the data set was opened, for metrics."""
        ...

    def image(self, image_id: str) -> NDArray[np.uint8]:
        """An image, uint8 H,W,3 RGB."""
        ...

    def instances(self, image_id: str) -> Instances:
        """The objects of an image, of its height and width."""
        ...
