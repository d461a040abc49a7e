"""Periodic noise and the textures of objects, ground and backdrop."""

from __future__ import annotations

import colorsys

import cv2
import numpy as np
from numpy.typing import NDArray

OBJECT_TEXTURE = 96  # side of an object's texture in pixels
GROUND_TEXTURE = 256  # side of the ground's periodic tile in pixels


def colour(hue: float, saturation: float, value: float) -> NDArray[np.float32]:
    """An RGB colour in [0, 255] from hue (any real, period 1), saturation and value in [0, 1]."""
    rgb = colorsys.hsv_to_rgb(hue % 1.0, min(max(saturation, 0.0), 1.0), min(max(value, 0.0), 1.0))
    return np.asarray(rgb, dtype=np.float32) * 255


def noise(rng: np.random.Generator, side: int, cells: int, octaves: int) -> NDArray[np.float32]:
    """Periodic smooth noise.

    Args:
        rng: source of all randomness.
        side: side of the square result in pixels.
        cells: random values along a side in the coarsest octave; each finer octave has twice as many, half the weight.
        octaves: number of octaves.

    Returns:
        float32 side,side; its smallest value is 0, its largest 1.
    """
    total = np.zeros((side, side), np.float32)
    for octave in range(octaves):
        n = min(cells << octave, side)
        grid = np.pad(rng.random((n, n), dtype=np.float32), 2, mode="wrap")
        step = side / n
        # two wrapped cells on each side make the cubic interpolation periodic
        wide = cv2.resize(grid, None, fx=step, fy=step, interpolation=cv2.INTER_CUBIC)
        offset = round(2 * step)
        total += wide[offset : offset + side, offset : offset + side] * 0.5**octave
    total -= total.min()
    return total / max(float(total.max()), 1e-6)


def blend(field: NDArray[np.float32], low: NDArray[np.float32], high: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Colour a field in [0, 1] (H,W) from `low` to `high`; uint8 H,W,3."""
    mixed = low + field[..., None] * (high - low)
    return np.clip(np.rint(mixed), 0, 255).astype(np.uint8)


def _pattern(rng: np.random.Generator, side: int) -> NDArray[np.float32]:
    """A field in [0, 1] of stripes, dots, checks or patches."""
    y, x = np.mgrid[0:side, 0:side].astype(np.float32) / side
    bend = (noise(rng, side, 3, 1) - 0.5) * rng.uniform(0.1, 0.5)
    angle, waves = rng.uniform(0, np.pi), rng.uniform(2.5, 5.0)
    along = np.cos(angle) * x + np.sin(angle) * y + bend
    across = -np.sin(angle) * x + np.cos(angle) * y + bend
    first, second = np.sin(2 * np.pi * waves * along), np.sin(2 * np.pi * waves * across)
    style = int(rng.integers(4))
    if style == 0:
        raw = first
    elif style == 1:
        raw = first + second - 0.5
    elif style == 2:
        raw = first * second * 1.5
    else:
        raw = (noise(rng, side, 4, 2) - 0.5) * 6
    return (0.5 + 0.5 * np.tanh(2.5 * raw)).astype(np.float32)


def object_texture(rng: np.random.Generator, hue: float, saturation: float) -> NDArray[np.uint8]:
    """A two-coloured pattern around one hue; uint8 OBJECT_TEXTURE,OBJECT_TEXTURE,3."""
    side = OBJECT_TEXTURE
    bright = rng.uniform(0.8, 1.0)
    low = colour(hue, saturation, bright)
    high = colour(hue + rng.uniform(-0.08, 0.08), saturation * rng.uniform(0.5, 1.0), bright * rng.uniform(0.35, 0.65))
    texture = blend(_pattern(rng, side), low, high).astype(np.float32)
    texture *= 0.85 + 0.3 * noise(rng, side, 6, 2)[..., None]
    return np.clip(texture, 0, 255).astype(np.uint8)


def dull_colour(rng: np.random.Generator, saturation: float) -> NDArray[np.float32]:
    """A colour for ground, backdrop or clutter, RGB in [0, 255]."""
    return colour(rng.random(), saturation * rng.uniform(0.4, 1.0), rng.uniform(0.35, 0.65))


def dull_texture(rng: np.random.Generator, side: int, saturation: float, contrast: float) -> NDArray[np.uint8]:
    """Periodic noise around one muted colour; uint8 side,side,3."""
    base = dull_colour(rng, saturation)
    field = noise(rng, side, 8, 4)
    return blend(field, base * (1 - 0.5 * contrast), base * (1 + 0.5 * contrast))


def ground_texture(rng: np.random.Generator, saturation: float, contrast: float) -> NDArray[np.uint8]:
    """A periodic floor of tiles, planks or patches, whose lines show perspective; uint8 side,side,3."""
    side = GROUND_TEXTURE
    tile = dull_texture(rng, side, saturation, contrast).astype(np.float32)
    shade = noise(rng, side, 2, 2)
    style, count = int(rng.integers(3)), 2 * int(rng.integers(1, 3))  # an even count keeps checks periodic
    y, x = np.mgrid[0:side, 0:side]
    cell, joint = side // count, side // 64
    if style == 0:  # checks with joints on both sides
        shade = (0.6 * ((x // cell + y // cell) % 2) + 0.4 * shade).astype(np.float32)
        lines = (y % cell < joint) | (x % cell < joint)
    elif style == 1:  # planks, each of its own shade
        shade = (0.6 * rng.random(count)[y // cell] + 0.4 * shade).astype(np.float32)
        lines = y % cell < joint
    else:  # patches
        lines = np.zeros((side, side), bool)
    tile *= 1 + np.float32(contrast) * (shade[..., None] - np.float32(0.5))
    tile[lines] *= 1 - 0.6 * contrast
    return np.clip(tile, 0, 255).astype(np.uint8)
