"""Outlines of objects that change with time: smooth blobs and articulated walkers."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Family = Literal["blob", "flower", "box", "walker"]
FAMILIES: tuple[Family, ...] = ("blob", "flower", "box", "walker")
_POINTS = 48
_ORDERS = np.arange(2, 6)  # Fourier orders of the changing part


@dataclass(frozen=True)
class Outline:
    """A closed shape of radius about 1 around the origin, y pointing down.

    Attributes:
        family: how the shape at rest is made.
        aspect: height over width.
        petals: number of lobes of a flower, or of legs of a walker.
        rest: amplitudes of the Fourier orders 2..5 at rest.
        rest_phase: their phases.
        swing: amplitudes of the changing part (legs: of the step, in radians).
        rate: speed of change of each order, radians per DAVIS frame.
        phase: phases of the change at time 0.
    """

    family: Family
    aspect: float
    petals: int
    rest: tuple[float, ...]
    rest_phase: tuple[float, ...]
    swing: tuple[float, ...]
    rate: tuple[float, ...]
    phase: tuple[float, ...]

    def parts(self, time: float) -> list[NDArray[np.float64]]:
        """The polygons whose union is the shape at `time` (DAVIS frames): float P,2 of x, y in radii."""
        angle = np.linspace(0, 2 * np.pi, _POINTS, endpoint=False)
        waves = np.cos(_ORDERS[:, None] * angle + np.array(self.rest_phase)[:, None])
        change = np.cos(_ORDERS[:, None] * angle + (np.array(self.phase) + np.array(self.rate) * time)[:, None])
        radius = 1 + np.array(self.rest) @ waves + np.array(self.swing) @ change
        if self.family == "flower":
            radius = radius * (0.82 + 0.22 * np.cos(self.petals * angle))
        elif self.family == "box":
            radius = radius * 0.92 / (np.abs(np.cos(angle)) ** 6 + np.abs(np.sin(angle)) ** 6) ** (1 / 6)
        tall = np.sqrt(self.aspect)
        body = np.stack([radius * np.cos(angle) / tall, radius * np.sin(angle) * tall], axis=1)
        if self.family != "walker":
            return [body]
        return self._walker(body, time)

    def _walker(self, body: NDArray[np.float64], time: float) -> list[NDArray[np.float64]]:
        """A trunk with a head and swinging legs."""
        trunk = body * (0.85, 0.5) + (0.0, -0.1)
        head = body * (0.36, 0.36) + (0.7, -0.62)
        legs = []
        for leg in range(self.petals):
            hip = -0.55 + 1.1 * leg / (self.petals - 1)
            swing = 0.15 + 2.0 * self.swing[0]
            lean = swing * np.sin(self.phase[0] + self.rate[0] * 2 * time + np.pi * leg)
            foot = hip + 0.8 * np.sin(lean)
            legs.append(np.array([(hip - 0.17, 0.1), (hip + 0.17, 0.1), (foot + 0.13, 0.9), (foot - 0.13, 0.9)]))
        return [*legs, trunk, head]


def draw_outline(rng: np.random.Generator, deformation: float) -> Outline:
    """Draw a random outline whose changing part has the amplitude `deformation` (radii)."""
    family = FAMILIES[int(rng.integers(len(FAMILIES)))]
    calm = {"blob": 0.16, "flower": 0.05, "box": 0.04, "walker": 0.04}[family]
    petals = int(rng.integers(2, 5)) if family == "walker" else int(rng.integers(3, 6))
    shares = rng.dirichlet(np.ones(len(_ORDERS)))
    return Outline(
        family=family,
        aspect=float(rng.uniform(0.75, 1.3)),
        petals=petals,
        rest=tuple((calm * rng.uniform(0.4, 1.0, len(_ORDERS)) / (_ORDERS - 1)).tolist()),
        rest_phase=tuple(rng.uniform(0, 2 * np.pi, len(_ORDERS)).tolist()),
        swing=tuple((deformation * shares).tolist()),
        rate=tuple(rng.uniform(0.1, 0.35, len(_ORDERS)).tolist()),
        phase=tuple(rng.uniform(0, 2 * np.pi, len(_ORDERS)).tolist()),
    )


def another_phase(outline: Outline, rng: np.random.Generator) -> Outline:
    """The same shape at another moment of its change; used for look-alikes."""
    return replace(outline, phase=tuple(rng.uniform(0, 2 * np.pi, len(_ORDERS)).tolist()))
