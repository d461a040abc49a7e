"""Means over seeds, and differences between two rows with a paired bootstrap over objects and seeds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev

import numpy as np
from numpy.typing import NDArray

from pipeline.core.errors import UserError
from pipeline.core.kinds import KINDS
from pipeline.experiments.results import Scores, common_objects

RESAMPLES, LEVEL, _SEED = 10_000, 0.95, 0
GROUPS = ("all", *KINDS)


@dataclass(frozen=True)
class Spread:
    """Mean and standard deviation over seeds; `sd` is None for a single seed."""

    mean: float
    sd: float | None


@dataclass(frozen=True)
class Difference:
    """A mean difference of J&F and the ends of its 95% interval."""

    mean: float
    low: float
    high: float

    @property
    def resolved(self) -> bool:
        """Whether the interval excludes 0."""
        return self.low > 0 or self.high < 0


def means(scores: Scores) -> dict[str, float]:
    """J&F of one run: group ("all" and each kind that occurs) -> mean over objects."""
    return {
        group: fmean(scores.values[key] for key in keys)
        for group in GROUPS
        if (keys := _members(scores, list(scores.values), group))
    }


def spreads(runs: Sequence[Scores]) -> dict[str, Spread]:
    """Group -> mean and standard deviation of J&F over runs that differ in their seeds.

    Args:
        runs: at least one; a group that is not in all of them is left out.
    """
    of_runs = [means(run) for run in runs]
    found = {}
    for group in GROUPS:
        if all(group in one for one in of_runs):
            values = [one[group] for one in of_runs]
            found[group] = Spread(fmean(values), stdev(values) if len(values) > 1 else None)
    return found


def differences(before: Mapping[int, Scores], after: Mapping[int, Scores]) -> dict[str, Difference]:
    """Group -> `after` minus `before`, paired by seed and object, with a bootstrap interval.

    Seeds and objects are both drawn anew, with replacement, in each resample; the interval holds the central 95% of
    the resampled means. With few seeds such an interval is somewhat too narrow.

    Args:
        before: seed -> scores.
        after: seed -> scores; only seeds and objects that are on both sides count.

    Returns:
        Empty if no seed is on both sides.

    Raises:
        UserError: the two sides have no object in common.
    """
    seeds = sorted(set(before) & set(after))
    if not seeds:
        return {}
    runs = [side[seed] for side in (before, after) for seed in seeds]
    objects = common_objects(runs)
    if not objects:
        raise UserError("two rows have no object in common; expected scores of the same videos; run both on one split")
    found = {}
    for group in GROUPS:
        keys = _members(runs[0], objects, group)
        if keys:
            table = np.array([[after[s].values[key] - before[s].values[key] for key in keys] for s in seeds])
            found[group] = bootstrap(table)
    return found


def bootstrap(table: NDArray[np.float64]) -> Difference:
    """Mean of a table of paired differences, and the interval from resampling its rows and columns.

    Args:
        table: seeds, objects.
    """
    n_seeds, n_objects = table.shape
    generator = np.random.default_rng(_SEED)  # fixed: the same scores give the same interval
    of_seeds = generator.multinomial(n_seeds, np.full(n_seeds, 1 / n_seeds), RESAMPLES) / n_seeds
    of_objects = generator.multinomial(n_objects, np.full(n_objects, 1 / n_objects), RESAMPLES) / n_objects
    resampled = ((of_seeds @ table) * of_objects).sum(1)
    low, high = np.quantile(resampled, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Difference(float(table.mean()), float(low), float(high))


def _members(scores: Scores, keys: Sequence[tuple[str, str]], group: str) -> list[tuple[str, str]]:
    return [key for key in keys if group in ("all", scores.kinds[key])]
