"""Masks with their probabilities."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pipeline.inference.frames import Found
from pipeline.inference.planes import resize


class SoftMask(NamedTuple):
    """A mask and its probabilities.

    Attributes:
        mask: uint8 H,W ids.
        ids: uint8 K+1; 0 and the ids of the objects, ascending.
        probabilities: float32 K+1,H,W in [0, 1], in the order of `ids`.
    """

    mask: NDArray[np.uint8]
    ids: NDArray[np.uint8]
    probabilities: NDArray[np.float32]


def full_probabilities(found: Found) -> NDArray[np.float32]:
    """Probabilities of a frame at its own size, float32 K+1,H,W.

    Raises:
        ValueError: it has none.
    """
    if found.probabilities is None:
        raise ValueError("the frame was segmented without probabilities")
    height, width = found.mask.shape
    return np.asarray(resize(found.probabilities[None], (height, width))[0].cpu().numpy())
