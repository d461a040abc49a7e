"""Check frames and masks that a program passes in."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from pipeline.core.errors import UserError
from pipeline.core.images import VOID


def checked_mask(index: int, mask: NDArray[np.generic]) -> NDArray[np.uint8]:
    """The mask of a frame as uint8 H,W ids.

    Raises:
        UserError: it is not a plane of integers or booleans from 0 to 255.
    """
    ids = np.asarray(mask)
    if ids.ndim != 2 or ids.dtype.kind not in "iub":
        raise UserError(
            f"the mask of frame {index} is {ids.dtype} of shape {ids.shape}; expected H,W integers, the objects' "
            "ids; give one plane of ids"
        )
    if index < 0 or (ids.size and not 0 <= int(ids.min()) <= int(ids.max()) <= VOID):
        raise UserError(
            f"the mask of frame {index} holds {ids.min()} to {ids.max()}; expected frames from 0 on and ids from 0 to "
            f"{VOID}; renumber them"
        )
    return np.ascontiguousarray(ids, np.uint8)


def checked_frame(index: int, frame: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """A frame as uint8 H,W,3 without gaps.

    Raises:
        UserError: it has another type or shape.
    """
    rgb = np.asarray(frame)
    if rgb.ndim != 3 or rgb.shape[2] != 3 or rgb.dtype != np.uint8 or not rgb.size:
        raise UserError(
            f"frame {index} is {rgb.dtype} of shape {rgb.shape}; expected uint8 of shape H,W,3, RGB; convert it"
        )
    return np.ascontiguousarray(rgb)  # OpenCV does not accept reversed arrays, such as BGR flipped to RGB
