"""Settings of clip sampling and augmentation, and the names of splits; params.yaml is their only source."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from pipeline.core.params import require

Split = Literal["train", "val", "test-dev", "test-challenge", "youtubevos-valid"]


def _require(holds: bool, key: str, value: object, accepted: str) -> None:
    require(holds, f"clips: {key}", value, accepted)


@dataclass(frozen=True)
class AugmentConfig:
    """Augmentation, drawn once per clip and applied to its frames, depth and masks (the affine: once per frame).

    Attributes:
        crop: side of the square training crop, in pixels (paper: 384).
        max_scale: upper limit of the frame's short side, as a multiple of the original; the lower limit is `crop`
            (1.0: short side uniform in [crop, original]).
        flip: mirror half of the clips horizontally.
        color_jitter: strength of brightness, contrast and saturation changes; factors are in [1 - j, 1 + j].
        affine_degrees: rotation of each frame, uniform in [-d, d] degrees.
        affine_scale: zoom of each frame, uniform in [1 - s, 1 + s].
        affine_shear: shear of each frame, uniform in [-d, d] degrees.
    """

    crop: int
    max_scale: float
    flip: bool
    color_jitter: float
    affine_degrees: float
    affine_scale: float
    affine_shear: float

    def __post_init__(self) -> None:
        _require(self.crop >= 16, "augment.crop", self.crop, "at least 16 pixels")
        _require(self.max_scale >= 1, "augment.max_scale", self.max_scale, "at least 1.0")
        _require(0 <= self.color_jitter < 1, "augment.color_jitter", self.color_jitter, "a number in [0, 1)")
        _require(0 <= self.affine_degrees <= 180, "augment.affine_degrees", self.affine_degrees, "0 to 180 degrees")
        _require(0 <= self.affine_scale < 1, "augment.affine_scale", self.affine_scale, "a number in [0, 1)")
        _require(0 <= self.affine_shear < 90, "augment.affine_shear", self.affine_shear, "degrees in [0, 90)")


@dataclass(frozen=True)
class ClipConfig:
    """One training clip.

    Attributes:
        n_frames: frames in a clip, in temporal order (paper: 3).
        max_objects: largest number of objects in a clip; if there are more, some are drawn and the rest becomes
            background (STM: 3).
        augment: the joint augmentation.
    """

    n_frames: int
    max_objects: int
    augment: AugmentConfig

    def __post_init__(self) -> None:
        _require(self.n_frames >= 2, "n_frames", self.n_frames, "at least 2")
        _require(1 <= self.max_objects <= 254, "max_objects", self.max_objects, "1 to 254 (ids of an 8-bit mask)")
