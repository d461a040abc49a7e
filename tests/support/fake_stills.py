"""Drawn stills with known objects and void, and settings to simulate clips from them."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from pipeline.core.stills import Instances
from pipeline.synthesis.config import SynthesisConfig

CONFIG = SynthesisConfig(
    seed=3,
    n_clips=0,
    n_frames=3,
    short_side=48,
    crop_min=0.8,
    rotation=20.0,
    scale_min=0.9,
    scale_max=1.1,
    shear=10.0,
    translation=0.1,
    motion="independent",
    max_objects=3,
    in_place=0.5,
    min_area=0.01,
    max_area=0.25,
    min_visible=0.5,
    jpeg_quality=95,
    clips_per_shard=4,
)
RED, GREEN = (250, 10, 10), (10, 250, 10)


@dataclass
class FakeStills:
    """Drawn images: objects of a colour of their own, each in a void ring of another, on a grey-blue ground."""

    pictures: dict[str, tuple[NDArray[np.uint8], Instances]]
    name: str = "fake"
    counts: dict[str, int] = field(default_factory=lambda: {"images": 1})

    @property
    def images(self) -> tuple[str, ...]:
        return tuple(self.pictures)

    def image(self, image_id: str) -> NDArray[np.uint8]:
        return self.pictures[image_id][0]

    def instances(self, image_id: str) -> Instances:
        return self.pictures[image_id][1]


def disc(height: int, width: int, x: int, y: int, radius: int) -> NDArray[np.bool_]:
    rows, columns = np.mgrid[:height, :width]
    return (columns - x) ** 2 + (rows - y) ** 2 <= radius**2


def make_stills(
    n: int = 6, colour: tuple[int, int, int] | None = RED, ring: int = 2, radius: int = 16, extra_tiny: int = 0
) -> FakeStills:
    """`n` images of 80x120 with one disc each (red unless `colour` is None: then a colour by image)."""
    pictures = {}
    for i in range(n):
        height, width = (80, 120) if i % 2 == 0 else (120, 80)
        rgb = np.empty((height, width, 3), np.uint8)
        rgb[...] = (90, 100 + i, 130)
        x, y = width // 2 + 3 * (i % 3), height // 2 - 2 * (i % 4)
        target = disc(height, width, x, y, radius)
        void = disc(height, width, x, y, radius + ring) & ~target
        rgb[void] = GREEN
        rgb[target] = colour or (250, 10 + 20 * i, 10)
        masks = [target] + [disc(height, width, 2 + 3 * k, 2, 1) for k in range(extra_tiny)]
        pictures[f"im{i}"] = (rgb, Instances(np.stack(masks), void))
    return FakeStills(pictures)
