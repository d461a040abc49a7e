"""Joint augmentation: one view is drawn per clip and applied to its frames, depth maps and masks."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from pipeline.datasets.config import AugmentConfig

_TO_BYTES = np.array([1, 1, 1, 255], np.float32)  # a colour matrix for [0, 1] applied to 8-bit values
_LUMA = np.array([0.299, 0.587, 0.114], np.float32)  # Rec. 601, the weights behind JPEG's luminance


@dataclass(frozen=True)
class View:
    """The augmentation drawn for one clip.

    Attributes:
        top, left, side: the square window of the original frame, in its pixels.
        crop: side of the result in pixels.
        flip: mirrored horizontally.
        color: float32 3,4; a colour in [0, 1] goes to color[:, :3] @ rgb + color[:, 3].
        affines: a float64 3,3 for each frame, from result to result pixels, or None if there is no affine.
    """

    top: int
    left: int
    side: int
    crop: int
    flip: bool
    color: NDArray[np.float32]
    affines: tuple[NDArray[np.float64], ...] | None

    def frame(self, rgb: NDArray[np.uint8], index: int) -> NDArray[np.uint8]:
        """Frame number `index` of the clip: uint8 H,W,3 to uint8 3,crop,crop."""
        smaller = self.side > self.crop and self.affines is None
        view = self._resample(rgb, index, cv2.INTER_AREA if smaller else cv2.INTER_LINEAR)
        if not self.plain:
            view = cv2.transform(np.ascontiguousarray(view), self.color * _TO_BYTES)  # rounds and saturates
        return np.ascontiguousarray(view.transpose(2, 0, 1), dtype=np.uint8)

    @property
    def plain(self) -> bool:
        """Whether the colours stay unchanged."""
        return bool(np.allclose(self.color, np.eye(3, 4), atol=1e-6))

    def depth(self, depth: NDArray[np.float32], index: int) -> NDArray[np.float32]:
        """Depth of frame `index`: float32 H,W to 1,crop,crop; zooming does not change its values."""
        return np.ascontiguousarray(self._resample(depth, index, cv2.INTER_LINEAR)[None], dtype=np.float32)

    def mask(self, mask: NDArray[np.uint8], index: int) -> NDArray[np.uint8]:
        """Mask of frame `index`: uint8 H,W to crop,crop, by nearest neighbour; void stays void."""
        # NEAREST_EXACT samples at pixel centres as LINEAR and AREA do; plain NEAREST is half a pixel off
        nearest = cv2.INTER_NEAREST_EXACT if self.affines is None else cv2.INTER_NEAREST
        return np.ascontiguousarray(self._resample(mask, index, nearest), dtype=np.uint8)

    def _resample(self, image: NDArray[Any], index: int, interpolation: int) -> NDArray[Any]:
        if self.affines is None:
            window = image[self.top : self.top + self.side, self.left : self.left + self.side]
            same = self.side == self.crop
            view = window if same else cv2.resize(window, (self.crop, self.crop), interpolation=interpolation)
        else:
            # beyond the frame all three are mirrored, so that they stay consistent
            view = cv2.warpAffine(
                image,
                (self._to_original() @ self.affines[index])[:2],
                (self.crop, self.crop),
                flags=interpolation | cv2.WARP_INVERSE_MAP,
                borderMode=cv2.BORDER_REFLECT_101,
            )
        return view[:, ::-1] if self.flip else view

    def _to_original(self) -> NDArray[np.float64]:
        """From result to original pixels; pixel centres are at integers."""
        zoom = self.side / self.crop
        return np.array(
            [[zoom, 0, 0.5 * zoom - 0.5 + self.left], [0, zoom, 0.5 * zoom - 0.5 + self.top], [0, 0, 1]], np.float64
        )


def draw_view(
    rng: np.random.Generator, config: AugmentConfig, mask: NDArray[np.uint8], objects: list[int], n_frames: int
) -> View:
    """Draw the augmentation of one clip.

    The window contains a random pixel of one of the objects in the clip's first frame. Frames whose short side is below
    the crop are scaled up to it.

    Args:
        rng: source of all randomness.
        config: the settings.
        mask: id mask of the clip's first frame, uint8 H,W.
        objects: ids to choose from, all of which occur in `mask`.
        n_frames: frames of the clip.
    """
    height, width = mask.shape
    short = min(height, width)
    target = rng.uniform(config.crop, max(config.crop, config.max_scale * short))  # short side after scaling
    side = min(short, max(1, round(config.crop * short / target)))

    anchor = objects[rng.integers(len(objects))]
    pixels = np.flatnonzero(mask == anchor)
    row, column = divmod(int(pixels[rng.integers(len(pixels))]), width)
    return View(
        top=_place(rng, row, side, height),
        left=_place(rng, column, side, width),
        side=side,
        crop=config.crop,
        flip=bool(rng.random() < 0.5) and config.flip,
        color=_draw_color(rng, config.color_jitter),
        affines=_draw_affines(rng, config, n_frames),
    )


def _place(rng: np.random.Generator, at: int, side: int, length: int) -> int:
    """Start of a window of `side` within [0, length) that covers position `at`."""
    return int(rng.integers(max(0, at - side + 1), min(at, length - side) + 1))


def _draw_color(rng: np.random.Generator, jitter: float) -> NDArray[np.float32]:
    """Saturation, contrast about mid-grey and brightness, composed to one 3,4 matrix."""
    saturation, contrast, brightness = rng.uniform(1 - jitter, 1 + jitter, 3).astype(np.float32)
    mix = saturation * np.eye(3, dtype=np.float32) + (1 - saturation) * np.broadcast_to(_LUMA, (3, 3))
    offset = np.full((3, 1), 0.5 * (1 - contrast) * brightness, np.float32)
    return np.concatenate([contrast * brightness * mix, offset], axis=1).astype(np.float32)


def _draw_affines(
    rng: np.random.Generator, config: AugmentConfig, n_frames: int
) -> tuple[NDArray[np.float64], ...] | None:
    """A rotation, zoom and shear about the centre of the crop for each frame."""
    if config.affine_degrees == config.affine_scale == config.affine_shear == 0:
        return None
    middle = (config.crop - 1) / 2
    to_middle = np.array([[1, 0, -middle], [0, 1, -middle], [0, 0, 1]], np.float64)
    affines = []
    for _ in range(n_frames):
        angle = math.radians(rng.uniform(-config.affine_degrees, config.affine_degrees))
        zoom = rng.uniform(1 - config.affine_scale, 1 + config.affine_scale)
        shear = math.tan(math.radians(rng.uniform(-config.affine_shear, config.affine_shear)))
        cos, sin = math.cos(angle) / zoom, math.sin(angle) / zoom
        turn = np.array([[cos, -sin, 0], [sin, cos, 0], [0, 0, 1]], np.float64)
        slant = np.array([[1, shear, 0], [0, 1, 0], [0, 0, 1]], np.float64)
        affines.append(np.linalg.inv(to_middle) @ turn @ slant @ to_middle)
    return tuple(affines)
