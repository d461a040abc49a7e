"""An image and the mask drawn for it: the same size, and turned alike."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from pipeline.core.archives import Archive
from pipeline.core.errors import UserError
from pipeline.core.images import decode_rgb, image_size, turns_of


def read_image(archive: Archive, member: str, size: tuple[int, int], what: str) -> NDArray[np.uint8]:
    """An image in the orientation in which its mask was drawn.

    Cameras store a picture lying down and note in its EXIF data how to turn it; a mask has no such note. So a mask of
    the size of the stored pixels belongs to these, also where both orientations have its size (turned by 180 degrees,
    mirrored, or square); one that fits only the turned picture belongs to that.

    Args:
        archive: that holds the image.
        member: its name there.
        size: height and width of the mask.
        what: what has that size, for the error: "its mask", "its annotation".

    Returns:
        uint8 H,W,3 RGB of that height and width.

    Raises:
        UserError: missing, unreadable, or of another size.
    """
    data, name = archive.read(member), f"{archive.path}: {member}"
    stored = image_size(data, name)
    if stored == size:
        return decode_rgb(data, name, upright=False)
    turned = stored[::-1] if turns_of(data) >= 5 else stored  # EXIF orientations 5 to 8 swap the axes
    if turned != size:
        raise UserError(
            f"{name} is {turned[1]}x{turned[0]}; expected {size[1]}x{size[0]}, as {what}; replace one of them"
        )
    return decode_rgb(data, name, upright=True)
