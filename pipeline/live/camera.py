"""Effects of a camera on the frames of a clip: drift of exposure and colour, softness, compression."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from pipeline.live.config import LiveConfig

_LEVELS = np.linspace(0, 1, 256)


@dataclass(frozen=True)
class Camera:
    """Camera effects, drawn once per clip.

    Attributes:
        gain: float64 2,3, of the first and the last frame, for each colour.
        gamma: of the first and the last frame.
        shrink: the frame is reduced by this factor and enlarged again; 1: it stays sharp.
        quality: of the JPEG compression; 0: none.
    """

    gain: NDArray[np.float64]
    gamma: tuple[float, float]
    shrink: float
    quality: int

    def shoot(self, frames: Sequence[NDArray[np.uint8]]) -> list[NDArray[np.uint8]]:
        """The frames, uint8 H,W,3, as this camera records them."""
        shots = []
        for t, frame in enumerate(frames):
            at = t / max(1, len(frames) - 1)
            gain = (1 - at) * self.gain[0] + at * self.gain[1]
            gamma = (1 - at) * self.gamma[0] + at * self.gamma[1]
            table = np.clip(_LEVELS[:, None] ** gamma * gain * 255 + 0.5, 0, 255).astype(np.uint8)[None]
            shot = cv2.LUT(frame, table)
            if self.shrink > 1:
                height, width, _ = shot.shape
                small = (round(width / self.shrink), round(height / self.shrink))
                shot = cv2.resize(cv2.resize(shot, small, interpolation=cv2.INTER_AREA), (width, height))
            if self.quality:
                data = cv2.imencode(".jpg", shot, [cv2.IMWRITE_JPEG_QUALITY, self.quality])[1]
                shot = np.asarray(cv2.imdecode(data, cv2.IMREAD_COLOR), np.uint8)
            shots.append(np.asarray(shot, np.uint8))
        return shots


def draw_camera(rng: np.random.Generator, config: LiveConfig) -> Camera:
    """Draw the camera effects of a clip.

    Args:
        rng: source of all randomness.
        config: their frequency and strength.
    """
    level, drift = rng.normal(0, config.exposure, (2, 1)), rng.normal(0, config.exposure, 2)
    tint = rng.normal(0, config.exposure / 3, (2, 3))
    start = np.exp(level[0] + tint[0])
    gain = np.stack([start, start * np.exp(drift[0] + tint[1])])
    gamma = float(np.exp(level[1, 0])), float(np.exp(level[1, 0] + drift[1]))
    shrink = rng.uniform(1.2, 2.5) if rng.random() < config.soft else 1.0
    quality = int(rng.integers(30, 81)) if rng.random() < config.jpeg else 0
    return Camera(gain, gamma, float(shrink), quality)


def jitter(rng: np.random.Generator, rgb: NDArray[np.uint8], strength: float) -> NDArray[np.uint8]:
    """Change saturation, contrast and brightness of an image by factors in [1 - strength, 1 + strength].

    Args:
        rng: source of all randomness.
        rgb: uint8 h,w,3 or h,w,4; opacity stays.
        strength: 0: the image is returned unchanged.
    """
    if strength == 0:
        return rgb
    saturation, contrast, brightness = rng.uniform(1 - strength, 1 + strength, 3)
    grey = np.tile([[0.299, 0.587, 0.114]], (3, 1))
    mix = contrast * brightness * (saturation * np.eye(3) + (1 - saturation) * grey)
    channels = rgb.shape[2]
    matrix = np.eye(channels, channels + 1)
    matrix[:3, :3], matrix[:3, -1] = mix, 127.5 * (1 - contrast) * brightness
    return np.asarray(cv2.transform(rgb, matrix), np.uint8)
