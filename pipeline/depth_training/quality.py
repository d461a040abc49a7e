"""Quality of depth estimates: scale-invariant error, order of pairs of points, stability over time."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Counted:
    """A sum and a count, from which a mean follows.

    Attributes:
        total: Sum of the values.
        count: Number of values.
    """

    total: float = 0.0
    count: int = 0

    def __add__(self, other: Counted) -> Counted:
        return Counted(self.total + other.total, self.count + other.count)

    @property
    def mean(self) -> float | None:
        """The mean; None if there are no values."""
        return self.total / self.count if self.count else None


def si_rmse(log_depth: NDArray[np.floating], depth: NDArray[np.floating]) -> float | None:
    """Scale-invariant error of one frame: root mean square, over all pairs of pixels, of the difference of log errors.

    Args:
        log_depth: H,W estimate.
        depth: H,W true depth, 0 if unknown.

    Returns:
        sqrt(2 Var(log_depth - log depth)) over the known pixels; None if there are none.
    """
    known = depth > 0
    if not known.any():
        return None
    residual = np.asarray(log_depth, np.float64)[known] - np.log(np.asarray(depth, np.float64)[known])
    return float(np.sqrt(2 * residual.var()))


def ordered_pairs(
    log_depth: NDArray[np.floating],
    depth: NDArray[np.floating],
    instances: NDArray[np.uint8] | None,
    n_pairs: int,
    min_ratio: float,
    rng: np.random.Generator,
) -> Counted:
    """Pairs of points that the estimate puts in the right order of depth.

    Args:
        log_depth: H,W estimate.
        depth: H,W true depth, 0 if unknown.
        instances: H,W object ids, 0 background: each pair has points on two different objects, and every pair of
            objects is equally likely. None: points anywhere.
        n_pairs: Pairs to draw.
        min_ratio: Pairs whose true depths differ by less than this factor are left out.
        rng: Source of all randomness.

    Returns:
        Correct pairs among those left; no pairs if the frame shows fewer than two objects.
    """
    known = depth > 0
    groups = _objects(instances, known) if instances is not None else [np.flatnonzero(known)]
    if len(groups) < (2 if instances is not None else 1) or not groups[0].size:
        return Counted()
    one = rng.integers(len(groups), size=n_pairs)
    other = one if instances is None else (one + rng.integers(1, len(groups), size=n_pairs)) % len(groups)
    first, second = (_draw(groups, of, rng) for of in (one, other))
    truth = np.log(np.asarray(depth, np.float64).ravel()[np.stack([first, second])])
    estimate = np.asarray(log_depth, np.float64).ravel()[np.stack([first, second])]
    gap = truth[0] - truth[1]
    counted = (np.abs(gap) >= np.log(min_ratio)) & (gap != 0)
    right = np.sign(estimate[0] - estimate[1]) == np.sign(gap)
    return Counted(float((right & counted).sum()), int(counted.sum()))


def _draw(groups: list[NDArray[np.int64]], of: NDArray[np.int64], rng: np.random.Generator) -> NDArray[np.int64]:
    """A random pixel from each of the groups given by `of`."""
    sizes = np.array([group.size for group in groups])
    starts = np.cumsum(sizes) - sizes
    return np.concatenate(groups)[starts[of] + np.floor(rng.random(len(of)) * sizes[of]).astype(np.int64)]


def _objects(instances: NDArray[np.uint8], known: NDArray[np.bool_]) -> list[NDArray[np.int64]]:
    """Flat positions of the known pixels of each object."""
    groups = [np.flatnonzero((instances == i) & known) for i in np.unique(instances) if 0 < i < 255]
    return [group for group in groups if group.size]


def static_change(before: NDArray[np.floating], after: NDArray[np.floating], static: NDArray[np.bool_]) -> Counted:
    """Absolute change of a depth map in [0, 1] from one frame to the next, summed over static pixels."""
    return Counted(float(np.abs(after - before, dtype=np.float64)[static].sum()), int(static.sum()))


def static_pixels(
    rgb: tuple[NDArray[np.uint8], NDArray[np.uint8]],
    depth: tuple[NDArray[np.floating], NDArray[np.floating]],
    still_change: float,
) -> NDArray[np.bool_]:
    """Pixels that show the same point of the scene, at rest, in two successive frames.

    Args:
        rgb: The frames, uint8 H,W,3.
        depth: Their true depths, H,W, 0 if unknown.
        still_change: Largest mean change of the channels, as a share of full scale.

    Returns:
        bool H,W: colour changes by less than that, and true depth by less than 1%.
    """
    change = np.abs(rgb[0].astype(np.int16) - rgb[1].astype(np.int16)).mean(2) / 255
    known = (depth[0] > 0) & (depth[1] > 0)
    return known & (change < still_change) & (np.abs(depth[1] - depth[0]) < 0.01 * depth[0])
