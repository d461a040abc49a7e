"""Render a scene: frame, visible ids and depth."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from pipeline.sample.cutout import clip_box, draw_cutout
from pipeline.sample.scene import BACKDROP_DEPTH, Actor, Scene

_REACH = 1.7  # an object's texture covers this many radii to each side


@dataclass(frozen=True)
class Picture:
    """One rendered frame.

    Attributes:
        rgb: uint8 H,W,3.
        ids: uint8 H,W, the label of what is visible in each pixel.
        depth: float32 H,W, its distance in camera heights.
    """

    rgb: NDArray[np.uint8]
    ids: NDArray[np.uint8]
    depth: NDArray[np.float32]


class Renderer:
    """Renders a scene at any time; what does not change is prepared once."""

    def __init__(self, scene: Scene) -> None:
        self._camera, self._actors, self._scenery = scene.camera, scene.actors, scene.scenery
        camera, scenery = self._camera, self._scenery
        self._depth_rows = camera.ground_depth()
        self._first_row = math.ceil(camera.horizon)  # first row of ground
        self._keep_rows = np.exp(-scenery.haze * self._depth_rows).astype(np.float32)[:, None, None]
        self._backdrop = self._prepare_backdrop()
        levels = [scenery.ground]
        while levels[-1].shape[0] > 4:
            levels.append(_halved(levels[-1]))
        # one more row and column make interpolation across the tile's edge periodic
        self._pyramid = [np.pad(level, ((0, 1), (0, 1), (0, 0)), mode="wrap") for level in levels]

    def paint(self, time: float) -> Picture:
        """Paint the scene at `time` (DAVIS frames)."""
        camera, scenery = self._camera, self._scenery
        # 1. backdrop and ground
        rgb = np.empty((camera.height, camera.width, 3), np.uint8)
        rgb[: self._first_row] = self._backdrop_at(time)
        rgb[self._first_row :] = self._ground_at(time)
        ids = np.zeros((camera.height, camera.width), np.uint8)
        depth = np.repeat(self._depth_rows[:, None], camera.width, axis=1)
        # 2. things from far to near, each after its shadow on the ground
        actors = sorted(self._actors, key=lambda actor: -actor.depth(time))
        for actor in actors:
            self._shadow(rgb, actor, time)
        for actor in actors:
            self._place(rgb, ids, depth, actor, time)
        # 3. the sensor's noise: a different crop of one tile for each frame
        rows, cols = scenery.noise.shape[0] - camera.height, scenery.noise.shape[1] - camera.width
        count = round(time * 4)
        top, left = count * 37 % (rows + 1), count * 53 % (cols + 1)
        grain = scenery.noise[top : top + camera.height, left : left + camera.width, None]
        rgb = np.clip(rgb + grain, 0, 255).astype(np.uint8)
        return Picture(rgb, ids, depth)

    def _keep(self, depth: float) -> float:
        """Share of a colour that the haze leaves at `depth`."""
        return math.exp(-self._scenery.haze * depth)

    def _blur(self, depth: float) -> float:
        """Standard deviation of the defocus at `depth` in pixels."""
        return self._scenery.defocus * abs(1 / depth - 1 / self._camera.focus) * self._camera.focus

    def _prepare_backdrop(self) -> NDArray[np.uint8]:
        keep = self._keep(BACKDROP_DEPTH)
        hazed = self._scenery.backdrop * keep + self._scenery.haze_colour * (1 - keep)
        sigma = max(self._blur(BACKDROP_DEPTH), 0.1)  # 0.1 has no visible effect
        return np.rint(cv2.GaussianBlur(hazed, (0, 0), sigma)).astype(np.uint8)

    def _backdrop_at(self, time: float) -> NDArray[np.uint8]:
        camera = self._camera
        spare = (self._backdrop.shape[1] - camera.width) / 2
        left = spare + camera.focal * camera.path.at(time) / BACKDROP_DEPTH
        move = np.array([[1, 0, left], [0, 1, self._backdrop.shape[0] - self._first_row]], np.float64)
        moved = cv2.warpAffine(
            self._backdrop,
            move,
            (camera.width, self._first_row),
            flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
            borderMode=cv2.BORDER_REPLICATE,
        )
        return np.asarray(moved, dtype=np.uint8)

    def _ground_at(self, time: float) -> NDArray[np.uint8]:
        """Rows of ground: the periodic texture in perspective, from the pyramid level that fits each row."""
        camera, scenery = self._camera, self._scenery
        rows = self._depth_rows[self._first_row :]
        per_unit = scenery.ground.shape[0] / scenery.ground_units
        columns = np.arange(camera.width, dtype=np.float32) + 0.5 - camera.width / 2
        x = (columns[None] * (rows[:, None] / camera.focal) + camera.path.at(time)) * per_unit
        y = np.repeat(rows[:, None] * per_unit, camera.width, axis=1)
        # a pixel covers z/focal units across and z*z/focal along the ground
        level = np.log2(np.maximum(per_unit * rows**1.5 / camera.focal, 1.0)).clip(0, len(self._pyramid) - 1)
        painted = np.zeros((len(rows), camera.width, 3), np.float32)
        for index, texture in enumerate(self._pyramid):
            weight = 1 - np.abs(level - index)
            near = np.flatnonzero(weight > 0)
            if len(near) == 0:
                continue
            part = slice(near[0], near[-1] + 1)
            side = texture.shape[0] - 1
            scale = np.float32(0.5**index)
            seen = cv2.remap(
                texture,
                np.mod(x[part] * scale, side).astype(np.float32),
                np.mod(y[part] * scale, side).astype(np.float32),
                cv2.INTER_LINEAR,
            )
            painted[part] += seen * np.maximum(weight[part], 0)[:, None, None]
        keep = self._keep_rows[self._first_row :]
        painted = painted * keep + scenery.haze_colour * (1 - keep)
        return np.rint(painted).astype(np.uint8)

    def _shadow(self, rgb: NDArray[np.uint8], actor: Actor, time: float) -> None:
        """Darken the ground below an actor."""
        camera, z = self._camera, actor.depth(time)
        half = camera.focal * actor.radius / z
        column, row = actor.column(camera, time), camera.foot_row(z)
        # an ellipse of ground as deep as 0.8 radii: d(row) = focal/z^2 dz
        tall = max(half * 0.4 * 2 / z, 1.0)
        box = clip_box(column - 1.6 * half, row - 2 * tall, column + 1.6 * half, row + 2 * tall, rgb.shape)
        if box is None:
            return
        rows, cols = box
        y = (np.arange(rows.start, rows.stop, dtype=np.float32)[:, None] + 0.5 - row) / np.float32(tall)
        x = (np.arange(cols.start, cols.stop, dtype=np.float32)[None] + 0.5 - column) / np.float32(half)
        dark = 1 - 0.55 * self._keep(z) * np.exp(-1.5 * (x * x + y * y) ** 2)
        rgb[rows, cols] = (rgb[rows, cols] * dark[..., None]).astype(np.uint8)

    def _place(
        self, rgb: NDArray[np.uint8], ids: NDArray[np.uint8], depth: NDArray[np.float32], actor: Actor, time: float
    ) -> None:
        """Render one actor over what is behind it."""
        cutout, z = draw_cutout(self._camera, actor, time), actor.depth(time)
        if cutout is None:
            return
        rows, cols, alpha = cutout.rows, cutout.cols, cutout.alpha
        skin = _skin(actor.texture, alpha.shape, cutout.centre, cutout.pixels, cutout.angle)
        # looks rounded: darker towards the edge and the ground
        soft = cv2.GaussianBlur(alpha, (0, 0), max(0.25 * cutout.pixels, 0.5)).astype(np.float32) / 255
        fall = 1.08 - 0.3 * np.linspace(0, 1, alpha.shape[0], dtype=np.float32)[:, None]
        keep, sigma = np.float32(self._keep(z)), self._blur(z)
        light = ((0.6 + 0.4 * soft) * fall * keep)[..., None]
        lit: NDArray[Any] = skin * light + self._scenery.haze_colour * (1 - keep)
        cover: NDArray[Any] = alpha.astype(np.float32)[..., None] / 255
        if sigma > 0.3:
            lit, cover = cv2.GaussianBlur(lit, (0, 0), sigma), cv2.GaussianBlur(cover, (0, 0), sigma)[..., None]
        rgb[rows, cols] = np.clip(rgb[rows, cols] * (1 - cover) + lit * cover, 0, 255).astype(np.uint8)
        ids[rows, cols][cutout.inside] = actor.label
        depth[rows, cols][cutout.inside] = z


def _halved(texture: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return np.asarray(cv2.resize(texture, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA), dtype=np.uint8)


def _skin(
    texture: NDArray[np.uint8], shape: tuple[int, ...], centre: NDArray[np.float64], pixels: float, angle: float
) -> NDArray[np.float32]:
    """The texture over a box of `shape` rows and columns; float32 rows,cols,3."""
    # shrink first if a texture pixel is smaller than half an image pixel
    while texture.shape[0] > 2.0 * 2 * _REACH * pixels:
        texture = _halved(texture)
    scale = texture.shape[0] / (2 * _REACH * pixels)
    cosine, sine = math.cos(angle) * scale, math.sin(angle) * scale
    middle = (texture.shape[0] - 1) / 2
    inverse = np.array(
        [
            [cosine, sine, middle - cosine * centre[0] - sine * centre[1]],
            [-sine, cosine, middle + sine * centre[0] - cosine * centre[1]],
        ]
    )
    laid = cv2.warpAffine(
        texture,
        inverse,
        (shape[1], shape[0]),
        flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
        borderMode=cv2.BORDER_REFLECT,
    )
    return np.asarray(laid, dtype=np.float32)
