"""Layers of a clip drawn in training: the background and cut-outs, each warped only inside its box."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np
from numpy.typing import NDArray

from pipeline.core.images import VOID
from pipeline.live.trajectories import Elastic, Trajectory

_OBJECT = 1  # the object that stays in the background has id 1
_MARGIN = 4  # pixels around a cut-out, for its soft edge
_LONGEST = 24.0  # motion blur, pixels
_SOLID = 128  # opacity from which a pixel of a cut-out is the object


@dataclass(frozen=True)
class Sprite:
    """A cut-out and its motion through the clip.

    Attributes:
        rgba: uint8 h,w,4; opacity 255 on the object.
        identity: object id in the masks; 0 without a label.
        area: the object's pixels in `rgba`.
        scale: pixels of the frame per pixel of `rgba`.
        start: x, y of its centre in the first frame, pixels.
        path: its motion.
        elastic: its deformation.
        blur: length of the motion blur as a share of the movement between two frames.
    """

    rgba: NDArray[np.uint8]
    identity: int
    area: int
    scale: float
    start: tuple[float, float]
    path: Trajectory
    elastic: Elastic | None
    blur: float

    def matrix(self, t: int, side: int) -> NDArray[np.float64]:
        """From its pixels to those of the scene, float64 2,3."""
        linear = self.scale * self.path.linear(t)
        height, width, _ = self.rgba.shape
        centre = np.array([(width - 1) / 2, (height - 1) / 2])
        target = np.array(self.start) + self.path.shift[t] * side
        return np.column_stack([linear, target - linear @ centre])


@dataclass(frozen=True)
class Backdrop:
    """The background image, with the object that stays in it.

    Attributes:
        rgb: uint8 h,w,3.
        labels: uint8 h,w: 0, 1 the object, 255 void; None if it has no object.
        matrix: float64 2,3 from its pixels to those of the scene.
        elastic: its deformation.
    """

    rgb: NDArray[np.uint8]
    labels: NDArray[np.uint8] | None
    matrix: NDArray[np.float64]
    elastic: Elastic | None


def cut_sprite(rgb: NDArray[np.uint8], target: NDArray[np.bool_]) -> tuple[NDArray[np.uint8], int]:
    """Cut an object out of its image.

    Args:
        rgb: uint8 h,w,3.
        target: bool h,w, the object; not empty.

    Returns:
        uint8 h,w,4 of its surroundings, and its number of pixels.
    """
    opacity = target.astype(np.uint8) * np.uint8(255)
    left, top, width, height = cv2.boundingRect(opacity)
    rows = slice(max(0, top - _MARGIN), top + height + _MARGIN)
    columns = slice(max(0, left - _MARGIN), left + width + _MARGIN)
    rgba = np.dstack([rgb[rows, columns], opacity[rows, columns]])
    for edge in (rgba[0, :, 3], rgba[-1, :, 3], rgba[:, 0, 3], rgba[:, -1, 3]):
        edge[:] = 0  # the object ends at the image's edge; otherwise the edge would be stretched
    return rgba, int((rgba[..., 3] > 0).sum())


def paint_backdrop(
    backdrop: Backdrop, camera: NDArray[np.float64], side: int, t: int
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """The colours and the mask of the background alone.

    Beyond its edge the image is mirrored; a mirrored object is void, because it looks like the object but is not it.

    Args:
        backdrop: the background.
        camera: float64 2,3 from the scene's to the frame's pixels.
        side: of the square frame.
        t: number of the frame.

    Returns:
        uint8 side,side,3 and uint8 side,side.
    """
    columns, rows = _maps(_chain(camera, backdrop.matrix), (0, 0, side, side), backdrop.elastic, t)
    rgb = cv2.remap(backdrop.rgb, columns, rows, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101)
    mask = np.zeros((side, side), np.uint8)
    if backdrop.labels is not None:
        mirrored = cv2.remap(backdrop.labels, columns, rows, cv2.INTER_NEAREST, borderMode=cv2.BORDER_REFLECT_101)
        height, width = backdrop.labels.shape
        inside = (columns > -0.5) & (columns < width - 0.5) & (rows > -0.5) & (rows < height - 0.5)
        mask = np.where(inside | (mirrored == 0), mirrored, np.uint8(VOID))
    return rgb.astype(np.uint8, copy=False), mask.astype(np.uint8, copy=False)


def paint_sprite(
    sprite: Sprite, camera: NDArray[np.float64], rgb: NDArray[np.uint8], mask: NDArray[np.uint8], t: int
) -> None:
    """Draw a cut-out over a frame, in place.

    Args:
        sprite: the cut-out.
        camera: float64 2,3 from the scene's to the frame's pixels.
        rgb: uint8 side,side,3.
        mask: uint8 side,side.
        t: number of the frame.
    """
    side = rgb.shape[0]
    matrix = _chain(camera, sprite.matrix(t, side))
    box = _box(matrix, sprite, side)
    if box is None:
        return
    left, top, right, bottom = box
    columns, rows = _maps(matrix, box, sprite.elastic, t)
    warped = np.asarray(cv2.remap(sprite.rgba, columns, rows, cv2.INTER_LINEAR), np.uint8)
    solid = warped[..., 3] >= _SOLID
    if sprite.blur:
        step = sprite.path.shift[t] - sprite.path.shift[t - 1] if t else sprite.path.shift[1] - sprite.path.shift[0]
        warped = smear(warped, step * side * sprite.blur)
    opacity = cv2.GaussianBlur(cv2.extractChannel(warped, 3), (3, 3), 0.7).astype(np.float32) * np.float32(1 / 255)
    window = rgb[top:bottom, left:right]
    window[:] = cv2.blendLinear(cv2.cvtColor(warped, cv2.COLOR_RGBA2RGB), window, opacity, 1 - opacity)
    mask[top:bottom, left:right][solid] = sprite.identity


def smear(image: NDArray[np.uint8], step: NDArray[np.float64]) -> NDArray[np.uint8]:
    """Motion blur along `step` (x, y in pixels); steps below one pixel have no effect."""
    length = float(np.hypot(*step))
    if length < 1:
        return image
    step = step * min(1.0, _LONGEST / length)
    height, width = image.shape[:2]
    for part in (4, 8, 16):  # three times the mean of two copies is the mean of eight evenly spaced ones
        across, down = (round(float(v)) for v in step / part)
        pad = max(abs(across), abs(down))
        if pad == 0:
            continue
        wide = cv2.copyMakeBorder(image, pad, pad, pad, pad, cv2.BORDER_REPLICATE)
        one, two = (
            wide[pad + sign * down : pad + sign * down + height, pad + sign * across : pad + sign * across + width]
            for sign in (-1, 1)
        )
        image = np.asarray(cv2.addWeighted(one, 0.5, two, 0.5, 0), np.uint8)
    return image


def _chain(outer: NDArray[np.float64], inner: NDArray[np.float64]) -> NDArray[np.float64]:
    """The map that applies `inner`, then `outer`; float64 2,3."""
    return np.column_stack([outer[:, :2] @ inner[:, :2], outer[:, :2] @ inner[:, 2] + outer[:, 2]])


def _box(matrix: NDArray[np.float64], sprite: Sprite, side: int) -> tuple[int, int, int, int] | None:
    """Left, top, right and bottom of the part of the frame that a cut-out covers; None if it is outside."""
    height, width, _ = sprite.rgba.shape
    corners = np.array([[0, 0, 1], [width - 1, 0, 1], [0, height - 1, 1], [width - 1, height - 1, 1]])
    points = corners @ matrix.T
    margin = 2 + (sprite.elastic is not None) * 0.1 * float(np.ptp(points, axis=0).max())
    left, top = np.maximum(np.floor(points.min(axis=0) - margin), 0).astype(int)
    right, bottom = np.minimum(np.ceil(points.max(axis=0) + margin) + 1, side).astype(int)
    return (int(left), int(top), int(right), int(bottom)) if right - left > 1 and bottom - top > 1 else None


def _maps(
    matrix: NDArray[np.float64], box: tuple[int, int, int, int], elastic: Elastic | None, t: int
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """For each pixel of a box of the frame, its position in the layer: columns and rows, float32."""
    left, top, right, bottom = box
    inverse = cv2.invertAffineTransform(matrix).astype(np.float32)
    x, y = _ramp(max(right, bottom))[left:right], _ramp(max(right, bottom))[top:bottom]
    maps = []
    for row in inverse:
        maps.append((row[0] * x)[None] + (row[1] * y + row[2])[:, None])
    if elastic is not None:
        reach = max(right - left, bottom - top)
        moved = elastic.at(t) * reach @ inverse[:, :2].T  # displaced in the frame, then mapped to the layer
        fine = cv2.resize(moved, (right - left, bottom - top), interpolation=cv2.INTER_CUBIC)
        for axis, map_ in enumerate(maps):
            map_ += fine[..., axis]
    return maps[0], maps[1]


@lru_cache(maxsize=8)
def _ramp(length: int) -> NDArray[np.float32]:
    return np.arange(length, dtype=np.float32)


def labelled(labels: NDArray[np.bool_], void: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """Labels of a background in which an object stays: uint8 h,w with 1 on the object and 255 on void."""
    return np.where(labels, _OBJECT, np.where(void, VOID, 0)).astype(np.uint8)
