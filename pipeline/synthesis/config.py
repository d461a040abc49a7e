"""Settings of the simulated videos: `shared.synthesis` and `profiles.<p>.synthesis`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from pipeline.core.params import require


def _require(holds: bool, key: str, value: object, accepted: str) -> None:
    require(holds, f"synthesis: {key}", value, accepted)


@dataclass(frozen=True)
class SynthesisConfig:
    """How stills become clips.

    Attributes:
        seed: with the data set's name and the clip's number, it seeds the clip's random numbers.
        n_clips: clips of a data set; 0 means one for each image. Clip i starts from image i mod n of a random order.
            The clips of an image without a usable object are counted and not replaced.
        n_frames: frames of a clip (paper: 3).
        short_side: rows or columns of a frame, whichever are fewer, in pixels.
        crop_min: smallest share of the background image's sides that a frame shows; the rest is cropped.
        rotation: largest rotation of a frame's affine, degrees in both directions (STM: 20).
        scale_min: smallest scale of a frame's affine (STM: 0.9).
        scale_max: largest scale of a frame's affine (STM: 1.1).
        shear: largest shear of a frame's affine, degrees in both directions (STM: 10).
        translation: largest shift of a frame's affine, as a share of the frame's sides, in both directions.
        motion: `independent`: a new affine for each frame (STM); `smooth`: from one drawn affine to another in equal
            steps.
        max_objects: largest number of objects in a clip (STM: 3).
        in_place: share of the clips whose first object stays in its own image, moving with it (STM: all single-object
            ones); in the others it is pasted onto another image.
        min_area: instances that cover a smaller share of their image are skipped.
        max_area: a pasted object that would cover a larger share of the frame is shrunk to this share.
        min_visible: smallest share of an object that must be visible in the first frame, neither hidden nor cut off.
        jpeg_quality: quality of the frames, 1 to 100.
        clips_per_shard: clips of one shard, the unit of work and of resuming.
    """

    seed: int
    n_clips: int
    n_frames: int
    short_side: int
    crop_min: float
    rotation: float
    scale_min: float
    scale_max: float
    shear: float
    translation: float
    motion: Literal["independent", "smooth"]
    max_objects: int
    in_place: float
    min_area: float
    max_area: float
    min_visible: float
    jpeg_quality: int
    clips_per_shard: int

    def __post_init__(self) -> None:
        _require(self.seed >= 0, "seed", self.seed, "0 or more")
        _require(self.n_clips >= 0, "n_clips", self.n_clips, "0 (one for each image) or more")
        _require(self.n_frames >= 1, "n_frames", self.n_frames, "1 or more")
        _require(self.short_side >= 16, "short_side", self.short_side, "at least 16 pixels")
        _require(0.1 <= self.crop_min <= 1, "crop_min", self.crop_min, "a number in [0.1, 1]")
        _require(0 <= self.rotation <= 180, "rotation", self.rotation, "0 to 180 degrees")
        _require(0 < self.scale_min <= self.scale_max, "scale_min", self.scale_min, "a number in (0, scale_max]")
        _require(0 <= self.shear < 90, "shear", self.shear, "degrees in [0, 90)")
        _require(0 <= self.translation <= 1, "translation", self.translation, "a number in [0, 1]")
        _require(1 <= self.max_objects <= 254, "max_objects", self.max_objects, "1 to 254 (ids of an 8-bit mask)")
        _require(0 <= self.in_place <= 1, "in_place", self.in_place, "a number in [0, 1]")
        _require(0 < self.min_area < self.max_area <= 1, "min_area", self.min_area, "a number in (0, max_area)")
        _require(0 <= self.min_visible < 1, "min_visible", self.min_visible, "a number in [0, 1)")
        _require(1 <= self.jpeg_quality <= 100, "jpeg_quality", self.jpeg_quality, "1 to 100")
        _require(self.clips_per_shard >= 1, "clips_per_shard", self.clips_per_shard, "1 or more")
