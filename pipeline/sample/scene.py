"""A scene: camera, actors and their movement. Nothing here is random or rendered.

Units: the camera stands 1 above the ground, depth and sideways distance are in that unit, time is in DAVIS frames.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline.sample.outlines import Outline

NEAR, FAR = 1.05, 2.7  # depths of the labelled objects
BACKDROP_DEPTH = 10.0  # hills and sky, the farthest depth of a scene


@dataclass(frozen=True)
class Wave:
    """centre + amplitude * sin(rate * time + phase)."""

    centre: float
    amplitude: float
    rate: float
    phase: float

    def at(self, time: float) -> float:
        """Value at `time`."""
        return self.centre + self.amplitude * math.sin(self.rate * time + self.phase)


@dataclass(frozen=True)
class Camera:
    """A pinhole camera that looks along the ground and moves sideways.

    Attributes:
        height: rows of the image.
        width: columns of the image.
        horizon: row of the horizon.
        focal: pixels of a unit length at depth 1; also the camera height in pixels there.
        path: sideways position in units.
        focus: depth in focus.
    """

    height: int
    width: int
    horizon: float
    focal: float
    path: Wave
    focus: float

    def foot_row(self, depth: float) -> float:
        """Row in which the ground at `depth` appears."""
        return self.horizon + self.focal / depth

    def across(self, column: float, depth: float) -> float:
        """Sideways position, relative to the camera, of a point in `column` at `depth`."""
        return (column - self.width / 2) * depth / self.focal

    def ground_depth(self) -> NDArray[np.float32]:
        """Depth of the ground, or of the backdrop above it, in each row; float32 H."""
        below = np.maximum(np.arange(self.height, dtype=np.float32) + 0.5 - self.horizon, 1e-3)
        return np.minimum(self.focal / below, BACKDROP_DEPTH).astype(np.float32)


@dataclass(frozen=True)
class Actor:
    """A thing that stands on the ground as an upright cut-out.

    Attributes:
        label: id in the mask; 0 for clutter and distractors.
        outline: its shape.
        texture: uint8 S,S,3 RGB, stretched over 3.4 x 3.4 radii.
        radius: in units of the camera height.
        across: sideways position; in the world if `fixed`, otherwise relative to the camera.
        log_depth: natural logarithm of its depth.
        turn: angle in radians.
        fixed: stands still in the world, so it moves in the image when the camera moves.
    """

    label: int
    outline: Outline
    texture: NDArray[np.uint8]
    radius: float
    across: Wave
    log_depth: Wave
    turn: Wave
    fixed: bool

    def depth(self, time: float) -> float:
        """Depth at `time`."""
        return math.exp(self.log_depth.at(time))

    def column(self, camera: Camera, time: float) -> float:
        """Column of its centre at `time`."""
        shift = camera.path.at(time) if self.fixed else 0.0
        return camera.width / 2 + camera.focal * (self.across.at(time) - shift) / self.depth(time)


@dataclass(frozen=True)
class Scenery:
    """Everything around the actors.

    Attributes:
        haze_colour: RGB in [0, 255].
        haze: attenuation per unit of depth.
        defocus: blur at infinity, pixels.
        ground: periodic texture of the ground, uint8 G,G,3.
        ground_units: side of one tile of it in units.
        backdrop: hills and sky, uint8 rows,cols,3, wider than the image; its last row is at the horizon.
        noise: sensor noise, int16 rows,cols, larger than the image.
    """

    haze_colour: NDArray[np.float32]
    haze: float
    defocus: float
    ground: NDArray[np.uint8]
    ground_units: float
    backdrop: NDArray[np.uint8]
    noise: NDArray[np.int16]


@dataclass(frozen=True)
class Scene:
    """Everything that the renderer needs; the actors may be in any order."""

    camera: Camera
    actors: tuple[Actor, ...]
    scenery: Scenery
