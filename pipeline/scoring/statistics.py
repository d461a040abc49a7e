"""Mean, recall and decay of a measure over the frames of one object."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Statistics:
    """Statistics of one measure (J or F).

    Attributes:
        mean: mean over frames, in [0, 1].
        recall: share of frames above 0.5.
        decay: mean over the first quarter of frames minus mean over the last, in [-1, 1].
    """

    mean: float
    recall: float
    decay: float


def frame_statistics(values: Sequence[float]) -> Statistics:
    """Statistics over the frames of one object, in temporal order.

    The quarters are those of DAVIS: four bins between rounded, shared end points; a frame on an end point counts in
    both.

    Raises:
        ValueError: there are no values.
    """
    if not len(values):
        raise ValueError("no frame to average over")
    per_frame = np.asarray(values, dtype=np.float64)
    # 1e-10: halves are rounded up, not to the even number
    ends = np.round(np.linspace(1, len(per_frame), 5) + 1e-10).astype(np.int64) - 1
    first, last = per_frame[: ends[1] + 1], per_frame[ends[3] : ends[4] + 1]
    return Statistics(
        mean=float(per_frame.mean()),
        recall=float((per_frame > 0.5).mean()),
        decay=float(first.mean() - last.mean()),
    )


def mean_statistics(figures: Sequence[Statistics]) -> Statistics:
    """Mean of each statistic over objects.

    Raises:
        ValueError: there are no objects.
    """
    if not figures:
        raise ValueError("no object to average over")
    means = np.mean([(f.mean, f.recall, f.decay) for f in figures], axis=0)
    return Statistics(*(float(m) for m in means))
