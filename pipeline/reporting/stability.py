"""How steady depth maps are over time, measured without true depth: how much they change in pixels at rest."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from pipeline.core.kinds import KINDS

_WIDEST = 256  # wider frames and maps are compared at this width, so that most of the time goes into decoding
_STILL = 0.03  # a pixel is at rest if the mean change of its channels is below this share of full scale


@dataclass(frozen=True)
class Stability:
    """Counts over pairs of successive frames; the sum of two counts covers both videos.

    Attributes:
        change: sum, over the pixels at rest, of the absolute change of depth in [0, 1].
        static: number of pixels at rest.
        pixels: number of all pixels.
    """

    change: float = 0.0
    static: int = 0
    pixels: int = 0

    def __add__(self, other: Stability) -> Stability:
        return Stability(self.change + other.change, self.static + other.static, self.pixels + other.pixels)

    @property
    def static_change(self) -> float | None:
        """Mean absolute change of depth over the pixels at rest, in [0, 1]; None if no pixel is at rest."""
        return self.change / self.static if self.static else None

    @property
    def static_share(self) -> float | None:
        """Share of pixels at rest, in [0, 1]; None if there are no two successive frames."""
        return self.static / self.pixels if self.pixels else None


def measure_video(frames: Iterable[tuple[NDArray[np.uint8], NDArray[np.float32]]]) -> Stability:
    """Compare each frame of a video with the next one.

    A pixel is at rest if its colour changes by less than 3% of full scale (mean of the channels). This uses only the
    colours, so it also counts some pixels whose depth does change: a plain surface that moves, a slow approach.

    Args:
        frames: uint8 H,W,3 RGB and float32 h,w depth in [0, 1] of each frame, in temporal order; two are held at a
            time. Both are resized by area averaging to the first frame's size, or, if it is wider than 256, to a width
            of 256 with the same aspect ratio. This also removes noise from the comparison of colours.

    Returns:
        Sums over all pairs; zeros for a single frame.
    """
    found = Stability()
    size: tuple[int, int] | None = None
    before: tuple[NDArray[np.uint8], NDArray[np.float32]] | None = None
    for rgb, depth in frames:
        size = size or _compared_size(*rgb.shape[:2])
        after = np.asarray(_fit(rgb, size), np.uint8), np.asarray(_fit(depth, size), np.float32)
        if before is not None:
            still = cv2.absdiff(before[0], after[0]).mean(2) < 255 * _STILL
            change = np.abs(after[1] - before[1], dtype=np.float64)[still]
            found += Stability(float(change.sum()), int(still.sum()), still.size)
        before = after
    return found


def _compared_size(height: int, width: int) -> tuple[int, int]:
    """Width and height, as OpenCV orders them, at which frames of this size are compared."""
    if width <= _WIDEST:
        return width, height
    return _WIDEST, max(1, round(height * _WIDEST / width))


def _fit(image: NDArray[Any], size: tuple[int, int]) -> NDArray[Any]:
    return image if image.shape[1::-1] == size else cv2.resize(image, size, interpolation=cv2.INTER_AREA)


def summarise_stability(found: Sequence[tuple[str, Stability]]) -> dict[str, Any]:
    """Stability over a data set.

    Args:
        found: for each video its kind and its counts.

    Returns:
        `{"static_change", "static_share", "by_kind": {kind: static_change}}`: over all pixels of all videos, so that
        long videos count more; six decimals. A value is None if no pixel is at rest, or, for the share, if there are no
        two successive frames. Only kinds that occur are listed.
    """
    total = sum((one for _, one in found), Stability())
    groups = {kind: [one for of, one in found if of == kind] for kind in KINDS}
    return {
        "static_change": _rounded(total.static_change),
        "static_share": _rounded(total.static_share),
        "by_kind": {kind: _rounded(sum(group, Stability()).static_change) for kind, group in groups.items() if group},
    }


def _rounded(value: float | None) -> float | None:
    """Six decimals: enough for any comparison, and the last bits do not change a file that is kept in git."""
    return None if value is None else round(value, 6)
