"""Remove the flicker of scale from a video's depth."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

_STILL = 0.03  # a pixel is at rest if the mean change of its channels is below this share of full scale
_LEAST = 0.05  # share of a frame that must be at rest to compare its depth with the previous frame's
_STEP = 2  # every second row and column is compared


class ScaleSmoother:
    """Gives the frames of one video a common scale of depth, one after the other.

    The network estimates the depth of a frame up to a factor, and that factor jitters from frame to frame. Pixels at
    rest show by how much: the median ratio of their inverse depths in two successive frames. A leaky sum of these
    factors is divided out. So jitter disappears, a lasting change of scale remains after about 1 / (1 - keep) frames,
    and errors do not add up. The log factors that remain are an exponential moving average of the original ones.

    Args:
        keep: share of the correction that is kept for the next frame, in [0, 1); 0 corrects nothing.
    """

    def __init__(self, keep: float) -> None:
        self._keep = keep
        self._before: tuple[NDArray[np.int16], NDArray[np.float32]] | None = None
        self._shift = 0.0

    def __call__(self, rgb: NDArray[np.uint8], inverse: NDArray[np.floating]) -> NDArray[np.floating]:
        """Correct the next frame.

        Args:
            rgb: uint8 H,W,3.
            inverse: h,w inverse depth of any scale.

        Returns:
            h,w inverse depth, of the same type.
        """
        if self._keep == 0:
            return inverse
        height, width = inverse.shape
        small = cv2.resize(rgb, (width, height), interpolation=cv2.INTER_AREA)[::_STEP, ::_STEP].astype(np.int16)
        log_inverse = np.log(np.maximum(inverse[::_STEP, ::_STEP], 1e-6, dtype=np.float32))
        jump = 0.0
        if self._before is not None and self._before[0].shape == small.shape:
            still = np.abs(small - self._before[0]).mean(2) < 255 * _STILL
            if still.mean() >= _LEAST:
                jump = float(np.median((log_inverse - self._before[1])[still]))
        self._before = small, log_inverse
        self._shift = self._keep * (self._shift + jump)
        steadied = inverse * np.float32(np.exp(-self._shift))
        return np.minimum(steadied, np.finfo(inverse.dtype).max).astype(inverse.dtype)
