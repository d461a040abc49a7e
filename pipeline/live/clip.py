"""Clips drawn from segmented stills during training: choice of images and objects, positions and motion."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from pipeline.live.camera import draw_camera, jitter
from pipeline.live.config import LiveConfig
from pipeline.live.sprites import (
    Backdrop,
    Sprite,
    cut_sprite,
    labelled,
    paint_backdrop,
    paint_sprite,
    smear,
)
from pipeline.live.trajectories import Trajectory, draw_elastic, draw_trajectory

_MIN_PIXELS = 100  # of an object in the first frame
_MAX_ENLARGED = 2.0  # of a cut-out
_LIKE = 0.05  # strength of the colour change of a look-alike
_BACKDROP_ELASTIC = 0.3  # of the deformation of a cut-out: backgrounds are deformed less


@dataclass(frozen=True)
class Still:
    """A segmented image.

    Attributes:
        rgb: uint8 h,w,3.
        masks: bool N,h,w, its objects.
        void: bool h,w.
    """

    rgb: NDArray[np.uint8]
    masks: NDArray[np.bool_]
    void: NDArray[np.bool_]


@dataclass(frozen=True)
class LiveClip:
    """A drawn clip.

    Attributes:
        frames: uint8 side,side,3 RGB each.
        masks: uint8 side,side each; 0 background, 1..n_objects, 255 void.
        n_objects: number of objects, all of them visible in the first frame.
    """

    frames: list[NDArray[np.uint8]]
    masks: list[NDArray[np.uint8]]
    n_objects: int


def draw_live(
    rng: np.random.Generator,
    pick: Callable[[np.random.Generator], Still],
    config: LiveConfig,
    *,
    side: int,
    n_frames: int,
    max_objects: int,
) -> LiveClip | None:
    """Draw a clip.

    Args:
        rng: source of all randomness.
        pick: returns a random still.
        config: settings of the clips.
        side: of the square frames, pixels.
        n_frames: frames of a clip.
        max_objects: largest number of objects in a clip.

    Returns:
        The clip; None if an image has no usable object, or an object is not visible in the first frame.
    """
    scene = _Scene(rng, config, side, n_frames)
    first = pick(rng)
    usable = _usable(first, config)
    if not usable:
        return None
    target = int(rng.choice(usable))
    in_place = rng.random() < config.in_place
    behind = first if in_place else pick(rng)
    scene.set_behind(behind, target if in_place else None)
    n_objects = int(rng.integers(1, max_objects + 1))
    wanted: list[tuple[Still, int, float]] = [] if in_place else [(first, target, config.jitter)]
    if rng.random() < config.lookalike:
        others = [n for n in usable if n != target]
        alike = int(rng.choice(others)) if others and rng.random() < 0.5 else target
        labelled_too = n_objects > 1 and rng.random() < 0.5
        if labelled_too:
            wanted.append((first, alike, _LIKE))
        else:
            scene.add(first, alike, 0, _LIKE)
    while len(wanted) + in_place < n_objects:
        still = pick(rng)
        found = _usable(still, config)
        if not found:
            break
        wanted.append((still, int(rng.choice(found)), config.jitter))
    for identity, (still, number, strength) in enumerate(wanted, start=1 + in_place):
        scene.add(still, number, identity, strength)
    for _ in range(int(rng.integers(config.distractors + 1))):
        still = pick(rng)
        found = _usable(still, config)
        if found:
            scene.add(still, int(rng.choice(found)), 0, config.jitter)
    if rng.random() < config.occluder:
        still = pick(rng)
        found = _usable(still, config)
        if found:
            scene.add_occluder(still, int(rng.choice(found)))
    return scene.paint(len(wanted) + in_place)


def _usable(still: Still, config: LiveConfig) -> list[int]:
    """Numbers of the objects that are large enough."""
    least = config.min_area * still.void.size
    return [n for n, mask in enumerate(still.masks) if np.count_nonzero(mask) >= least]


class _Scene:
    """The layers of a clip, and how they are rendered."""

    def __init__(self, rng: np.random.Generator, config: LiveConfig, side: int, n_frames: int) -> None:
        self._rng, self._config, self._side, self._n_frames = rng, config, side, n_frames
        self._sprites: list[Sprite] = []
        self._front: list[Sprite] = []
        self._blur = float(rng.uniform(0.3, 1.0)) if rng.random() < config.blur else 0.0
        self._camera = draw_trajectory(rng, config, n_frames, config.camera, rng.uniform(0, 2 * math.pi))

    def set_behind(self, still: Still, target: int | None) -> None:
        """Make an image the background, with one of its objects as object 1 if `target` is not None."""
        rng, side = self._rng, self._side
        rgb, labels = still.rgb, None if target is None else labelled(still.masks[target], still.void)
        if rng.random() < 0.5:
            rgb = np.asarray(cv2.flip(rgb, 1), np.uint8)
            labels = None if labels is None else np.asarray(cv2.flip(labels, 1), np.uint8)
        height, width, _ = rgb.shape
        scale = side / min(height, width) * rng.uniform(1, self._config.max_zoom)
        spare = np.maximum(np.array([width, height]) * scale - side, 0)
        offset = -rng.uniform(0, 1, 2) * spare
        if labels is not None:  # the window contains the object's centre
            rows, columns = np.nonzero(labels == 1)
            at = int(rng.integers(len(rows)))
            centre = np.array([columns[at], rows[at]]) * scale
            offset = -np.clip(centre - rng.uniform(0.15, 0.85, 2) * side, 0, spare)
        matrix = np.array([[scale, 0, offset[0]], [0, scale, offset[1]]])
        elastic = draw_elastic(rng, self._config.elastic * _BACKDROP_ELASTIC)
        self._behind = Backdrop(jitter(rng, rgb, self._config.jitter), labels, matrix, elastic)

    def add(self, still: Still, number: int, identity: int, strength: float) -> None:
        """Add a cut-out.

        Args:
            still: its image.
            number: index of the object in it.
            identity: its id in the masks, 0 for none.
            strength: of the change of its colours.
        """
        self._sprites.append(self._make(still, number, identity, strength, None))

    def add_occluder(self, still: Still, number: int) -> None:
        """Add a cut-out that passes in front of all others, through the middle of the frame."""
        middle = self._rng.uniform(0.2, 0.8, 2) * self._side
        self._front.append(self._make(still, number, 0, self._config.jitter, (float(middle[0]), float(middle[1]))))

    def _make(
        self, still: Still, number: int, identity: int, strength: float, through: tuple[float, float] | None
    ) -> Sprite:
        rng, config, side = self._rng, self._config, self._side
        rgba, area = cut_sprite(still.rgb, still.masks[number])
        rgba = jitter(rng, rgba, strength)
        if rng.random() < 0.5:
            rgba = np.asarray(cv2.flip(rgba, 1), np.uint8)
        share = math.exp(rng.uniform(math.log(config.area_low), math.log(config.area_high)))
        scale = min(_MAX_ENLARGED, side * math.sqrt(share / max(1, area)))
        start = rng.uniform(0.05, 0.95, 2) * side
        aim = rng.uniform(0.1, 0.9, 2) * side  # towards the inside; otherwise most would leave the frame
        towards = math.atan2(aim[1] - start[1], aim[0] - start[0])
        path = draw_trajectory(rng, config, self._n_frames, 1.0, towards)
        if through is not None:  # so that it crosses that point in the middle of the clip
            start = np.array(through) - path.shift[self._n_frames // 2] * side
        elastic = draw_elastic(rng, config.elastic)
        return Sprite(rgba, identity, area, scale, (float(start[0]), float(start[1])), path, elastic, self._blur)

    def paint(self, n_objects: int) -> LiveClip | None:
        """All frames; None if the first does not show every object."""
        rng = self._rng
        order = rng.permutation(len(self._sprites))
        layers = [*(self._sprites[n] for n in order), *self._front]
        frames, masks = [], []
        for t in range(self._n_frames):
            camera = self._view(self._camera, t)
            rgb, mask = paint_backdrop(self._behind, camera, self._side, t)
            for sprite in layers:
                paint_sprite(sprite, camera, rgb, mask, t)
            if t == 0 and not self._all_visible(mask, n_objects):
                return None
            if self._blur:
                step = self._camera.shift[max(1, t)] - self._camera.shift[max(1, t) - 1]
                rgb = smear(rgb, step * self._side * self._blur)
            frames.append(rgb)
            masks.append(mask)
        return LiveClip(draw_camera(rng, self._config).shoot(frames), masks, n_objects)

    def _view(self, path: Trajectory, t: int) -> NDArray[np.float64]:
        """From the scene's to the frame's pixels: the camera rotates about the middle of the frame."""
        linear = path.linear(t)
        middle = np.full(2, (self._side - 1) / 2)
        return np.column_stack([linear, middle + path.shift[t] * self._side - linear @ middle])

    def _all_visible(self, mask: NDArray[np.uint8], n_objects: int) -> bool:
        counts = np.bincount(mask.ravel(), minlength=256)
        whole = {s.identity: s.area * s.scale**2 for s in self._sprites if s.identity}
        return all(
            counts[identity] >= max(_MIN_PIXELS, self._config.min_visible * whole.get(identity, 0))
            for identity in range(1, n_objects + 1)
        )
