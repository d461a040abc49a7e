"""The layers of a clip: a background and cut-out objects, each with its labels."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import cv2
import numpy as np
from numpy.typing import NDArray

VOID = 255
OBJECT = 1  # label of the target in a layer; a frame gives it the object's id
_MARGIN = 3  # pixels around a cut-out, for its soft edge
_VOID_REACH = (
    0.02  # void pixels within this share of the image's short side belong to an object's border (VOC draws 5 pixels)
)
_MAX_ASPECT = 2.0  # of a frame; longer images are cropped


@dataclass(frozen=True)
class Layer:
    """One image that moves as a unit.

    Attributes:
        rgb: uint8 h,w,3.
        labels: uint8 h,w: 0 none, 1 the target, 255 void.
        pivot: x, y about which it turns.
        place: x, y of the pivot in the frame.
    """

    rgb: NDArray[np.uint8]
    labels: NDArray[np.uint8]
    pivot: tuple[float, float]
    place: tuple[float, float]

    @cached_property
    def area(self) -> int:
        """Pixels of the target before any warp."""
        return int(np.count_nonzero(self.labels == OBJECT))

    @cached_property
    def solid(self) -> NDArray[np.float32]:
        """Where the layer covers what is below it, float32 h,w: 1 at the target and its void border, else 0."""
        return (self.labels > 0).astype(np.float32)

    @cached_property
    def is_empty(self) -> bool:
        """Whether there is no label at all."""
        return not self.labels.any()


def frame_shape(height: int, width: int, short_side: int) -> tuple[int, int]:
    """Height and width of the frames that show an image of the given sides; at most twice as long as short."""
    aspect = min(max(width / height, 1 / _MAX_ASPECT), _MAX_ASPECT)
    return (short_side, round(short_side * aspect)) if aspect >= 1 else (round(short_side / aspect), short_side)


def _resize(
    rgb: NDArray[np.uint8], labels: NDArray[np.uint8], factor: float
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Resize colours (averaged when shrinking) and labels (nearest pixel centre) alike."""
    sides = (max(1, round(rgb.shape[1] * factor)), max(1, round(rgb.shape[0] * factor)))
    colours = cv2.resize(rgb, sides, interpolation=cv2.INTER_AREA if factor < 1 else cv2.INTER_LINEAR)
    nearest = cv2.resize(labels, sides, interpolation=cv2.INTER_NEAREST_EXACT)
    return colours.astype(np.uint8, copy=False), nearest.astype(np.uint8, copy=False)


def cover(
    rgb: NDArray[np.uint8],
    labels: NDArray[np.uint8],
    frame: tuple[int, int],
    crop_min: float,
    rng: np.random.Generator,
) -> Layer:
    """Make an image the background: a random crop of it fills the frame.

    Args:
        rgb: uint8 h,w,3.
        labels: uint8 h,w as in `Layer`.
        frame: height and width of the frame.
        crop_min: the crop's sides are at least this share of the largest crop of the frame's shape.
        rng: draws the crop.
    """
    height, width = frame
    share = rng.uniform(crop_min, 1.0)
    across, down = rng.uniform(size=2)
    factor = max(height / rgb.shape[0], width / rgb.shape[1]) / share
    colours, resized = _resize(rgb, labels, factor)
    place = ((width - 1) / 2, (height - 1) / 2)
    pivot = (
        place[0] + across * max(0, colours.shape[1] - width),
        place[1] + down * max(0, colours.shape[0] - height),
    )
    return Layer(colours, resized, pivot, place)


def cut_out(
    rgb: NDArray[np.uint8],
    target: NDArray[np.bool_],
    void: NDArray[np.bool_],
    frame: tuple[int, int],
    max_area: float,
    rng: np.random.Generator,
) -> Layer:
    """Cut an object out of its image and put it somewhere in the frame.

    The object is scaled like its image, whose short side becomes the frame's, and further if it is too large. Void
    pixels along its border are cut out with it, because the true border is somewhere in them.

    Args:
        rgb: uint8 h,w,3.
        target: bool h,w, the object; not empty.
        void: bool h,w.
        frame: height and width of the frame.
        max_area: largest share of the frame that the object may cover.
        rng: draws the position.
    """
    height, width = frame
    short = min(rgb.shape[:2])
    reach = max(1, round(_VOID_REACH * short))
    labels = np.where(target, OBJECT, 0).astype(np.uint8)
    if void.any():
        near = cv2.dilate(labels, np.ones((2 * reach + 1, 2 * reach + 1), np.uint8)) > 0
        labels[void & near & ~target] = VOID
    left, top, across, down = cv2.boundingRect((labels > 0).astype(np.uint8))
    rows = slice(max(0, top - _MARGIN), top + down + _MARGIN)
    columns = slice(max(0, left - _MARGIN), left + across + _MARGIN)
    factor = min(height, width) / short
    factor *= min(1.0, (max_area * height * width / (target.sum() * factor**2)) ** 0.5)
    colours, resized = _resize(rgb[rows, columns], labels[rows, columns], factor)
    pivot = ((colours.shape[1] - 1) / 2, (colours.shape[0] - 1) / 2)
    across_share, down_share = rng.uniform(size=2)
    return Layer(colours, resized, pivot, (across_share * (width - 1), down_share * (height - 1)))
