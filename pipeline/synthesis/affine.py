"""The motion of a layer: one affine map for each frame."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline.synthesis.config import SynthesisConfig


@dataclass(frozen=True)
class Affine:
    """The motion of a layer in one frame, relative to its position.

    Attributes:
        rotation: degrees, positive from x to y (clockwise in an image).
        scale: factor of both sides.
        shear: degrees by which the y axis is tilted along x.
        shift_x: shift to the right, as a share of the frame's width.
        shift_y: shift down, as a share of the frame's height.
    """

    rotation: float
    scale: float
    shear: float
    shift_x: float
    shift_y: float


def draw_motion(config: SynthesisConfig, rng: np.random.Generator) -> list[Affine]:
    """Draw the affine of each frame of a clip, every parameter uniform within its range.

    Args:
        config: ranges, number of frames and kind of motion.
        rng: source of all randomness.

    Returns:
        `n_frames` affines: drawn one by one (`independent`), or in equal steps from one drawn affine to another
        (`smooth`), which stay in the ranges because these are intervals.
    """
    reach = np.array([config.rotation, 0.0, config.shear, config.translation, config.translation])
    low, high = -reach, reach.copy()
    low[1], high[1] = config.scale_min, config.scale_max
    if config.motion == "independent":
        values = rng.uniform(low, high, (config.n_frames, 5))
    else:
        first, last = rng.uniform(low, high, (2, 5))
        steps = np.linspace(0.0, 1.0, config.n_frames)[:, None]
        values = (1 - steps) * first + steps * last
    return [Affine(*map(float, row)) for row in values]


def to_matrix(
    affine: Affine, pivot: tuple[float, float], place: tuple[float, float], frame: tuple[int, int]
) -> NDArray[np.float64]:
    """The map from a layer's pixels to the frame's.

    Args:
        affine: turned, scaled and sheared about the pivot, then shifted.
        pivot: x, y of a point of the layer.
        place: x, y of that point in the frame, without the shift.
        frame: height and width of the frame, in which the shift is measured.

    Returns:
        float64 2,3, for pixel coordinates x, y with integers at pixel centres (as in OpenCV).
    """
    height, width = frame
    angle, lean = math.radians(affine.rotation), math.tan(math.radians(affine.shear))
    turn = np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    linear = affine.scale * turn @ np.array([[1.0, lean], [0.0, 1.0]])
    target = np.array([place[0] + affine.shift_x * width, place[1] + affine.shift_y * height])
    return np.column_stack([linear, target - linear @ np.array(pivot)])
