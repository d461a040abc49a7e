"""Frames of inference: inputs and results."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray
from torch import Tensor


class Frame(NamedTuple):
    """A frame of the video.

    Attributes:
        rgb: uint8 H,W,3.
        depth: float32 normalised inverse depth in [0, 1], of the frame's size or of the size at which the network works
            (`working_size`); None for a network without depth.
    """

    rgb: NDArray[np.uint8]
    depth: NDArray[np.float32] | None


class Found(NamedTuple):
    """The result for a frame.

    Attributes:
        mask: uint8 H,W ids.
        probabilities: K+1,h,w float32 on the pass' device, background at index 0, at the size at which the network
            works; None if they were not requested, nothing was segmented, or the mask was already known.
    """

    mask: NDArray[np.uint8]
    probabilities: Tensor | None


class Known(NamedTuple):
    """Frames at the start of a pass whose masks already exist, from an earlier run.

    Attributes:
        end: index of the first frame that is not known.
        mask: returns the mask of a frame before it, uint8 H,W ids.
    """

    end: int
    mask: Callable[[int], NDArray[np.uint8]]


def working_size(height: int, width: int, short_side: int) -> tuple[int, int]:
    """The size at which the network works: H, W, or smaller so that the short side is `short_side` (0: as it is)."""
    short = min(height, width)
    if short_side == 0 or short <= short_side:
        return height, width
    return max(1, round(height * short_side / short)), max(1, round(width * short_side / short))


def shrink(image: NDArray[Any], size: tuple[int, int]) -> NDArray[Any]:
    """A frame or depth map at a smaller size H, W; each pixel is the mean of the area that it covers."""
    return cv2.resize(image, (size[1], size[0]), interpolation=cv2.INTER_AREA)
