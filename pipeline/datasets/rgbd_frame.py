"""One frame with depth, and what every layout on disk gives of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pipeline.core.errors import UserError


class RgbdFrame(NamedTuple):
    """One frame.

    Attributes:
        rgb: uint8 H,W,3.
        depth: float32 H,W, distance in scene units (large is far); 0 if unknown.
        instances: uint8 H,W object ids, or None if the data set has none.
    """

    rgb: NDArray[np.uint8]
    depth: NDArray[np.float32]
    instances: NDArray[np.uint8] | None


Videos = dict[str, dict[str, Callable[[], RgbdFrame]]]
"""Video -> frame id -> a function that reads the frame; frames in temporal order."""

Splits = dict[str, Videos]
"""`train`, `val`, or `""` if the data names no split -> its videos."""


def of_one_size(name: str, frame: RgbdFrame, depth_name: str, ids_name: str) -> RgbdFrame:
    """Check that depth and instances have the size of the RGB image, and return the frame.

    Args:
        name: The archive, for the error.
        frame: The frame.
        depth_name: Name of the depth there, for the error.
        ids_name: Name of the instances there, for the error.

    Raises:
        UserError: They have another size.
    """
    height, width = frame.rgb.shape[:2]
    for part, image in ((depth_name, frame.depth), (ids_name, frame.instances)):
        if image is not None and image.shape != (height, width):
            raise UserError(
                f"{name}: {part} is {image.shape[1]}x{image.shape[0]}, its frame {width}x{height}; expected the same "
                "size; replace one of them"
            )
    return frame
