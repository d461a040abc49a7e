"""Draw everything around the actors: camera, ground, backdrop, haze and noise."""

from __future__ import annotations

import math

import cv2
import numpy as np
from numpy.typing import NDArray

from pipeline.sample.config import DifficultyConfig, WorldConfig
from pipeline.sample.scene import NEAR, Camera, Scenery, Wave
from pipeline.sample.textures import blend, colour, dull_colour, ground_texture, noise


def draw_camera(world: WorldConfig, rng: np.random.Generator) -> Camera:
    """Draw a camera that focuses on the nearest objects, so that blur grows with depth."""
    height = world.frame_height
    return Camera(
        height=height,
        width=world.frame_width,
        horizon=height * float(rng.uniform(0.37, 0.44)),
        focal=height * 0.48,
        path=Wave(
            centre=0.0,
            amplitude=world.level.camera * float(rng.uniform(0.4, 1.0)),
            rate=float(rng.uniform(0.03, 0.07)),
            phase=float(rng.uniform(0, 2 * math.pi)),
        ),
        focus=float(rng.uniform(NEAR, 1.3 * NEAR)),
    )


def draw_scenery(world: WorldConfig, camera: Camera, rng: np.random.Generator) -> Scenery:
    """Draw everything except camera and actors."""
    level, scale = world.level, world.frame_height / 144
    return Scenery(
        haze_colour=colour(rng.uniform(0.5, 0.68), rng.uniform(0.04, 0.16), rng.uniform(0.75, 0.95)),
        haze=level.haze * float(rng.uniform(0.8, 1.2)),
        defocus=level.defocus * scale * float(rng.uniform(0.8, 1.2)),
        ground=ground_texture(rng, level.background_saturation, level.background_contrast),
        ground_units=float(rng.uniform(1.4, 2.4)),
        backdrop=_draw_backdrop(level, camera, rng),
        noise=_draw_noise(level, camera, rng),
    )


def _draw_backdrop(level: DifficultyConfig, camera: Camera, rng: np.random.Generator) -> NDArray[np.uint8]:
    """Sky and a ridge of hills down to the horizon; uint8 rows,cols,3."""
    rows, cols = math.ceil(camera.horizon), round(1.25 * camera.width)
    side = 128
    height = np.linspace(0, 1, rows, dtype=np.float32)[:, None].repeat(cols, 1)
    sky = blend(height, colour(0.6, 0.3, 0.9), colour(0.6, 0.05, 0.95))
    low, high = dull_colour(rng, level.background_saturation), dull_colour(rng, level.background_saturation)
    strength = np.float32(0.3 + 0.7 * level.background_contrast)
    strength = np.float32(0.5 + 0.5 * level.background_contrast)
    hills = blend(noise(rng, side, 6, 3), low, (low + strength * (high - low)).astype(np.float32))
    wide = cv2.resize(hills, (cols, rows), interpolation=cv2.INTER_AREA)
    ridge = cv2.resize(noise(rng, side, 3, 3)[:1], (cols, 1), interpolation=cv2.INTER_LINEAR)[0]
    top = rows * (0.25 + 0.6 * ridge)
    inside = np.clip(np.arange(rows, dtype=np.float32)[:, None] - top[None], 0, 1)[..., None]
    return np.rint(sky * (1 - inside) + wide * inside).astype(np.uint8)


def _draw_noise(level: DifficultyConfig, camera: Camera, rng: np.random.Generator) -> NDArray[np.int16]:
    """Sensor noise for more than the image, so that every frame takes a different crop; int16 rows,cols."""
    grain = rng.standard_normal((camera.height + 32, camera.width + 32), dtype=np.float32) * np.float32(level.noise)
    return np.rint(grain).astype(np.int16)
