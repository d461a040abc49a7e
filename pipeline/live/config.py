"""Settings of the clips that are drawn during training: `profiles.<p>.live`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from pipeline.core.params import require


def _require(holds: bool, key: str, value: object, accepted: str) -> None:
    require(holds, f"live: {key}", value, accepted)


@dataclass(frozen=True)
class LiveConfig:
    """How a clip is composed from stills during training; none of this is in the paper.

    Attributes:
        use: draw new clips from the stills each time, instead of the stored simulated ones.
        motion: `smooth`: steady paths with some acceleration; `independent`: a separate affine is drawn for each frame.
        rotation: largest change of rotation from one frame to the next, degrees.
        zoom: largest change of the logarithm of the scale.
        shear: largest change of the shear, degrees.
        translation: largest movement between two frames, as a share of the frame's side.
        camera: largest movement of the camera, as a share of the above.
        max_zoom: the background's short side is 1 to this many times the frame's.
        in_place: share of the clips whose first object stays in its own image.
        min_area: instances that cover a smaller share of their image are not used.
        area_low: smallest share of the frame that a pasted object covers.
        area_high: largest share.
        min_visible: smallest share of a pasted object that must be visible in the first frame.
        distractors: largest number of cut-outs without a label.
        lookalike: share of the clips with a second copy of the first object, or another instance of its image; it is
            the second object or has no label.
        occluder: share of the clips in which a cut-out without a label passes in front of the first object.
        elastic: largest deformation, as a share of the side of the deformed area.
        blur: share of the clips with motion blur.
        soft: share of the clips out of focus or of low resolution.
        jpeg: share of the clips whose frames are compressed, at qualities from 30 to 80.
        exposure: strength of the drift of brightness, gamma and colour over a clip.
        jitter: strength of the change of a layer's colours.
    """

    use: bool
    motion: Literal["smooth", "independent"]
    rotation: float
    zoom: float
    shear: float
    translation: float
    camera: float
    max_zoom: float
    in_place: float
    min_area: float
    area_low: float
    area_high: float
    min_visible: float
    distractors: int
    lookalike: float
    occluder: float
    elastic: float
    blur: float
    soft: float
    jpeg: float
    exposure: float
    jitter: float

    def __post_init__(self) -> None:
        for key in ("camera", "in_place", "lookalike", "occluder", "blur", "soft", "jpeg"):
            _require(0 <= getattr(self, key) <= 1, key, getattr(self, key), "a number in [0, 1]")
        for key in ("elastic", "exposure", "jitter"):
            _require(0 <= getattr(self, key) <= 0.5, key, getattr(self, key), "a number in [0, 0.5]")
        _require(0 <= self.rotation <= 180, "rotation", self.rotation, "0 to 180 degrees")
        _require(0 <= self.zoom <= 1, "zoom", self.zoom, "a number in [0, 1]")
        _require(0 <= self.shear < 60, "shear", self.shear, "degrees in [0, 60)")
        _require(0 <= self.translation <= 1, "translation", self.translation, "a number in [0, 1]")
        _require(self.max_zoom >= 1, "max_zoom", self.max_zoom, "at least 1.0")
        _require(0 < self.min_area < 1, "min_area", self.min_area, "a number in (0, 1)")
        _require(0 < self.area_low <= self.area_high <= 1, "area_low", self.area_low, "a number in (0, area_high]")
        _require(0 <= self.min_visible < 1, "min_visible", self.min_visible, "a number in [0, 1)")
        _require(self.distractors >= 0, "distractors", self.distractors, "0 or more")
