"""Paths of layers and of the camera through a clip drawn in training."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline.live.config import LiveConfig

_UNSTEADY = 0.35  # standard deviation of a step's change, as a share of the step


@dataclass(frozen=True)
class Trajectory:
    """Where a layer is in each of T frames.

    Attributes:
        shift: float64 T,2, x and y in shares of the frame's side.
        rotation: float64 T, degrees.
        zoom: float64 T, logarithm of the scale.
        shear: float64 T, degrees.
    """

    shift: NDArray[np.float64]
    rotation: NDArray[np.float64]
    zoom: NDArray[np.float64]
    shear: NDArray[np.float64]

    def linear(self, t: int) -> NDArray[np.float64]:
        """Rotation, zoom and shear of frame `t` as a 2,2 matrix."""
        angle, lean = math.radians(self.rotation[t]), math.tan(math.radians(self.shear[t]))
        turn = np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
        return np.asarray(math.exp(self.zoom[t]) * turn @ np.array([[1.0, lean], [0.0, 1.0]]))


def draw_trajectory(
    rng: np.random.Generator, config: LiveConfig, n_frames: int, share: float, towards: float
) -> Trajectory:
    """Draw the path of a layer.

    Slow paths are frequent, as in videos: the speed is the largest one times the square of a uniform number.

    Args:
        rng: source of all randomness.
        config: largest changes between two frames.
        n_frames: T.
        share: of the largest changes.
        towards: direction of the movement, radians.
    """
    reach = share * np.array([config.translation, config.rotation, config.zoom, config.shear])
    if config.motion == "independent":
        values = rng.uniform(-1, 1, (n_frames, 5)) * reach[[0, 0, 1, 2, 3]]
        return Trajectory(values[:, :2], values[:, 2], values[:, 3], values[:, 4])
    speeds = rng.uniform(0, 1, 4) ** 2 * rng.choice([-1.0, 1.0], 4) * reach
    steps = speeds * (1 + _UNSTEADY * rng.standard_normal((n_frames, 4)))
    steps[0] = 0
    way, rotation, zoom, shear = np.cumsum(steps, axis=0).T
    rotation, shear = rotation + rng.uniform(-1, 1) * reach[1], shear + rng.uniform(-1, 1) * reach[3]
    angle = towards + rng.normal(0, 0.3) + rng.normal(0, 0.15) * np.arange(n_frames)  # a slight curve
    shift = np.abs(way)[:, None] * np.stack([np.cos(angle), np.sin(angle)], axis=1)
    return Trajectory(shift, rotation, zoom, shear)


@dataclass(frozen=True)
class Elastic:
    """A deformation that comes and goes along the clip.

    Attributes:
        waves: float32 2,g,g,2, displacements on a coarse grid, in shares of the deformed area's side.
        phase: radians at the first frame.
        speed: radians per frame.
    """

    waves: NDArray[np.float32]
    phase: float
    speed: float

    def at(self, t: int) -> NDArray[np.float32]:
        """Displacements of frame `t`, float32 g,g,2; the corners of the grid are those of the deformed area."""
        angle = self.phase + self.speed * t
        return (math.cos(angle) * self.waves[0] + math.sin(angle) * self.waves[1]).astype(np.float32)


def draw_elastic(rng: np.random.Generator, amplitude: float, grid: int = 5) -> Elastic | None:
    """Draw a deformation of up to `amplitude`; None if that is 0."""
    if amplitude == 0:
        return None
    waves = rng.uniform(-1, 1, (2, grid, grid, 2)) * amplitude * rng.uniform(0, 1)
    return Elastic(waves.astype(np.float32), rng.uniform(0, 2 * math.pi), rng.uniform(0.2, 1.0))
