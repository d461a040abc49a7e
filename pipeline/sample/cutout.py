"""The silhouettes of actors, and how much of each is visible."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from pipeline.sample.scene import Actor, Camera

_SUBPIXEL = 4  # fractional bits of polygon corners


@dataclass(frozen=True)
class Cutout:
    """An actor's box in the image.

    Attributes:
        rows: of the box.
        cols: of the box.
        alpha: uint8, the coverage of each pixel of the box, 0..255.
        centre: x, y of the actor's centre in the box.
        pixels: its radius.
        angle: its turn in radians.
    """

    rows: slice
    cols: slice
    alpha: NDArray[np.uint8]
    centre: NDArray[np.float64]
    pixels: float
    angle: float

    @property
    def inside(self) -> NDArray[np.bool_]:
        """Pixels of the box that belong to the actor's mask."""
        return self.alpha >= 128


def draw_cutout(camera: Camera, actor: Actor, time: float) -> Cutout | None:
    """The actor's silhouette at `time`, or None if it is outside the image."""
    z = actor.depth(time)
    pixels = camera.focal * actor.radius / z
    angle = actor.turn.at(time)
    spin = np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    parts = [part @ spin.T for part in actor.outline.parts(time)]
    corners = np.concatenate(parts)
    # the lowest point touches the ground
    centre = np.array([actor.column(camera, time), camera.foot_row(z) - pixels * corners[:, 1].max()])
    low, high = centre + pixels * corners.min(axis=0) - 3, centre + pixels * corners.max(axis=0) + 3
    box = clip_box(low[0], low[1], high[0], high[1], (camera.height, camera.width))
    if box is None:
        return None
    rows, cols = box
    origin = np.array([cols.start, rows.start])
    alpha = np.zeros((rows.stop - rows.start, cols.stop - cols.start), np.uint8)
    for part in parts:
        points = np.rint((part * pixels + centre - 0.5 - origin) * (1 << _SUBPIXEL)).astype(np.int32)
        cv2.fillPoly(alpha, [points], 255, lineType=cv2.LINE_AA, shift=_SUBPIXEL)
    return Cutout(rows, cols, alpha, centre - 0.5 - origin, pixels, angle)


def visible(camera: Camera, actors: Sequence[Actor], time: float) -> dict[int, tuple[int, int]]:
    """Pixels of each labelled actor at `time`: the visible ones, and those it would have without the other actors."""
    ids = np.zeros((camera.height, camera.width), np.uint8)
    whole: dict[int, int] = {}
    for actor in sorted(actors, key=lambda actor: -actor.depth(time)):
        cutout = draw_cutout(camera, actor, time)
        if cutout is not None:
            ids[cutout.rows, cutout.cols][cutout.inside] = actor.label
            whole[actor.label] = int(cutout.inside.sum())
    labels = [actor.label for actor in actors if actor.label]
    return {label: (int((ids == label).sum()), whole.get(label, 0)) for label in labels}


def clip_box(
    left: float, top: float, right: float, bottom: float, shape: tuple[int, ...]
) -> tuple[slice, slice] | None:
    """Rows and columns of a box inside an image of `shape`, or None if it lies outside."""
    rows = slice(max(math.floor(top), 0), min(math.ceil(bottom), shape[0]))
    cols = slice(max(math.floor(left), 0), min(math.ceil(right), shape[1]))
    return None if rows.start >= rows.stop or cols.start >= cols.stop else (rows, cols)
