"""Metrics of a depth network on frames with known depth."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import groupby, pairwise
from typing import Any, Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from pipeline.depth_training.quality import Counted, ordered_pairs, si_rmse, static_change, static_pixels
from pipeline.hourglass.config import DepthValidationConfig
from pipeline.hourglass.estimator import DepthEstimator
from pipeline.hourglass.normalise import invert, normalise, robust_range
from pipeline.hourglass.scale_smoothing import ScaleSmoother

_BATCH = 8  # frames estimated together


class Frame(Protocol):
    """A frame with depth."""

    @property
    def rgb(self) -> NDArray[np.uint8]:
        """uint8 H,W,3."""

    @property
    def depth(self) -> NDArray[np.float32]:
        """float32 H,W, 0 if unknown."""

    @property
    def instances(self) -> NDArray[np.uint8] | None:
        """uint8 H,W object ids, or None."""


def validate(
    estimator: DepthEstimator,
    frames: Sequence[tuple[str, str]],
    read: Callable[[str, str], Frame],
    config: DepthValidationConfig,
    seed: int,
) -> dict[str, Any]:
    """Evaluate a network on videos.

    Args:
        estimator: The network.
        frames: Video and frame id of each frame, in order.
        read: Returns a frame.
        config: Settings of the metrics.
        seed: Of the pairs of points.

    Returns:
        `frames`: number of them. `si_rmse`: mean over the frames. `ordered_pairs`: share of pairs of points of
        different objects in the right order, over all frames (null without instances); `pairs`: how many of them;
        `ordered_points`: that share for points anywhere. `static_change`: mean absolute change of the depth maps
        in [0, 1] between successive frames over pixels at rest: `per_video` as the depth stage makes them (scale
        jitter removed, one range per video), `unsteadied` with only one range per video, `per_frame` with a separate
        range for each frame.
    """
    rng = np.random.default_rng(seed)
    errors: list[float] = []
    objects, points = Counted(), Counted()
    changes = {way: Counted() for way in ("per_video", "unsteadied", "per_frame")}
    for _, ids in groupby(frames, key=lambda pair: pair[0]):
        video = [read(*pair) for pair in ids]
        rgb = [frame.rgb for frame in video]
        estimates = [one for i in range(0, len(rgb), _BATCH) for one in estimator.log_depth(rgb[i : i + _BATCH])]
        for frame, estimate in zip(video, estimates):
            height, width = frame.depth.shape
            enlarged = np.asarray(cv2.resize(estimate, (width, height), interpolation=cv2.INTER_LINEAR), np.float32)
            error = si_rmse(enlarged, frame.depth)
            errors += [] if error is None else [error]
            if frame.instances is not None:
                objects += ordered_pairs(enlarged, frame.depth, frame.instances, config.pairs, config.min_ratio, rng)
            points += ordered_pairs(enlarged, frame.depth, None, config.pairs, config.min_ratio, rng)
        for way, change in _static_changes(video, estimates, config).items():
            changes[way] += change
    return {
        "frames": len(frames),
        "si_rmse": _rounded(float(np.mean(errors)) if errors else None),
        "ordered_pairs": _rounded(objects.mean),
        "pairs": objects.count,
        "ordered_points": _rounded(points.mean),
        "static_change": {way: _rounded(change.mean) for way, change in changes.items()},
    }


def warnings(figures: dict[str, Any], config: DepthValidationConfig) -> list[str]:
    """Warn if a metric is far outside the range that the recipe usually reaches.

    Args:
        figures: the result of `validate`.
        config: the limits.

    Returns:
        One line, or an empty list. Such a depth network makes all later results worse, and nothing else detects it.
    """
    si_rmse, ordered = figures["si_rmse"], figures["ordered_pairs"]
    found: list[str] = []
    if config.warn_si_rmse and si_rmse is not None and si_rmse > config.warn_si_rmse:
        found.append(f"si_rmse is {si_rmse:.3f}, expected at most {config.warn_si_rmse}")
    if config.warn_ordered_pairs and ordered is not None and ordered < config.warn_ordered_pairs:
        found.append(f"ordered_pairs is {ordered:.3f}, expected at least {config.warn_ordered_pairs}")
    if not found:
        return []
    return [
        f"warning: the depth network is poor on its validation frames ({'; '.join(found)}); later results suffer; "
        "change train_depth.seed or train for more epochs (train_depth.epochs)"
    ]


def _static_changes(
    video: list[Frame], estimates: list[NDArray[np.float32]], config: DepthValidationConfig
) -> dict[str, Counted]:
    """Change of pixels at rest between successive frames, for each kind of normalisation."""
    low, high = config.percentile_low, config.percentile_high
    smooth = ScaleSmoother(config.steady)
    plain = [invert(estimate) for estimate in estimates]
    steadied = [smooth(frame.rgb, one) for frame, one in zip(video, plain)]
    ways = {
        "per_video": (steadied, [robust_range(steadied, low, high)] * len(video)),
        "unsteadied": (plain, [robust_range(plain, low, high)] * len(video)),
        "per_frame": (plain, [robust_range([one], low, high) for one in plain]),
    }
    maps = {
        way: [normalise(one, scale, *frame.depth.shape) for one, scale, frame in zip(inverse, scales, video)]
        for way, (inverse, scales) in ways.items()
    }
    changes = {way: Counted() for way in ways}
    for i, (before, after) in enumerate(pairwise(video)):
        if before.depth.shape == after.depth.shape:
            still = static_pixels((before.rgb, after.rgb), (before.depth, after.depth), config.still_change)
            for way, of_way in maps.items():
                changes[way] += static_change(of_way[i], of_way[i + 1], still)
    return changes


def _rounded(value: float | None) -> float | None:
    """Six decimals: enough for any comparison, and the last bits do not change a file that is kept in git."""
    return None if value is None else round(value, 6)
