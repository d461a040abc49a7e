"""Draw actors: who appears, where, at which depth, and how everything moves."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from pipeline.core.kinds import Kind
from pipeline.sample.config import DifficultyConfig, WorldConfig
from pipeline.sample.outlines import Outline, another_phase, draw_outline
from pipeline.sample.scene import FAR, NEAR, Actor, Camera, Wave
from pipeline.sample.textures import OBJECT_TEXTURE, dull_texture, object_texture

_RADIUS = (0.36, 0.52)  # of an object in camera heights: its top is near the horizon, so that objects overlap
_STEADY = 0.15  # each of two look-alikes may move by this share of the gap in log depth between them


@dataclass(frozen=True)
class Request:
    """The kind of scene to draw.

    Attributes:
        kind: single, multi or lookalike.
        objects: number of labelled objects; None: drawn according to the kind (1; 2 or 3).
        duration: of the scene, in DAVIS frames.
        late: whether the last object enters during the scene.
        enlarge: factor on the objects' size.
        bare: without clutter and distractors.
    """

    kind: Kind
    objects: int | None
    duration: float
    late: bool = False
    enlarge: float = 1.0
    bare: bool = False


def draw_actors(world: WorldConfig, request: Request, camera: Camera, rng: np.random.Generator) -> tuple[Actor, ...]:
    """Draw everything that stands on the ground; labelled objects first."""
    level = world.level
    count = request.objects or (1 if request.kind == "single" else int(rng.integers(2, 4)))
    actors = _draw_looks(level, request, _draw_depths(request.kind, count, rng), rng)
    actors = _move(level, request, camera, actors, rng)
    if not request.bare:
        actors += [_draw_clutter(level, camera, rng) for _ in range(int(rng.poisson(level.clutter)))]
        extras = [_draw_distractor(level, request, rng) for _ in range(int(rng.poisson(level.distractors)))]
        actors += _move(level, replace(request, late=False, kind="single"), camera, extras, rng)
    return tuple(actors)


def tiny_actor(world: WorldConfig, camera: Camera, label: int, rng: np.random.Generator) -> Actor:
    """A labelled object that does not move: a few pixels, far away."""
    texture = object_texture(rng, rng.random(), world.level.object_saturation)
    depth = float(rng.uniform(3.0, 4.5))
    column = float(rng.uniform(0.08, 0.92)) * camera.width
    radius = float(rng.uniform(1.6, 2.4)) * depth / camera.focal * camera.height / 144
    return _standing(label, draw_outline(rng, 0.0), texture, radius, depth, camera.across(column, depth))


def crowd(world: WorldConfig, camera: Camera, labels: Sequence[int], rng: np.random.Generator) -> list[Actor]:
    """A dense group of small similar things: one actor for each of `labels`."""
    texture = object_texture(rng, rng.random(), world.level.object_saturation)
    outline = draw_outline(rng, 0.1)
    middle = float(rng.uniform(0.3, 0.7)) * camera.width
    members = []
    for label in labels:
        depth = float(rng.uniform(2.6, 3.6))
        column = middle + float(rng.uniform(-0.16, 0.16)) * camera.width
        radius, shape = float(rng.uniform(0.22, 0.32)), another_phase(outline, rng)
        members.append(_standing(label, shape, texture, radius, depth, camera.across(column, depth)))
    return members


def _standing(
    label: int, outline: Outline, texture: NDArray[np.uint8], radius: float, depth: float, across: float = 0.0
) -> Actor:
    """An actor that does not move (yet)."""
    return Actor(
        label=label,
        outline=outline,
        texture=texture,
        radius=radius,
        across=_at_rest(across),
        log_depth=_at_rest(math.log(depth)),
        turn=_at_rest(0.0),
        fixed=False,
    )


def _at_rest(value: float) -> Wave:
    return Wave(value, 0.0, 0.0, 0.0)


def _phase(rng: np.random.Generator) -> float:
    return float(rng.uniform(0, 2 * math.pi))


def _draw_depths(kind: Kind, count: int, rng: np.random.Generator) -> list[float]:
    """Depths of the labelled objects, near to far: separated from each other, look-alikes by a larger gap."""
    if kind == "lookalike":
        reach = math.log(FAR / NEAR)
        step = min(0.5, 0.85 * reach / max(count - 1, 1))
        spare = (reach - step * (count - 1)) * rng.dirichlet(np.ones(count + 1))  # before, between and behind them
        return [float(v) for v in np.exp(math.log(NEAR) + np.cumsum(spare[:count]) + step * np.arange(count))]
    while True:
        depths = sorted(float(v) for v in np.exp(rng.uniform(math.log(NEAR), math.log(FAR), count)))
        if all(b / a > 1.1 for a, b in pairwise(depths)):
            return depths


def _draw_looks(
    level: DifficultyConfig, request: Request, depths: Sequence[float], rng: np.random.Generator
) -> list[Actor]:
    """Labelled actors with their appearance, not moving yet. Their ids do not follow the order of depth."""
    labels = [int(v) + 1 for v in rng.permutation(len(depths))]
    hue = rng.random()
    shared_texture = object_texture(rng, hue, level.object_saturation)
    shared_outline = draw_outline(rng, level.deformation)
    shared_radius = float(rng.uniform(*_RADIUS))
    actors = []
    for index, (depth, label) in enumerate(zip(depths, labels)):
        if request.kind == "lookalike":
            texture, outline = shared_texture, another_phase(shared_outline, rng)
            radius = shared_radius * (depth / depths[0]) ** level.lookalike_match
        else:
            texture = object_texture(rng, hue + (index + rng.uniform(-0.2, 0.2)) / len(depths), level.object_saturation)
            outline, radius = draw_outline(rng, level.deformation), float(rng.uniform(*_RADIUS))
        actors.append(_standing(label, outline, texture, radius * request.enlarge, depth))
    return actors


def _move(
    level: DifficultyConfig, request: Request, camera: Camera, actors: Sequence[Actor], rng: np.random.Generator
) -> list[Actor]:
    """Give every actor its paths. Several objects cross near a common column, alternately from left and right."""
    meeting = camera.width * (0.5 + float(rng.uniform(-0.12, 0.12)))
    direction = 1 if rng.random() < 0.5 else -1
    crossing = request.kind == "lookalike" or (request.kind == "multi" and rng.random() < 0.6)
    steady = _depth_freedom(level, request, actors)
    moved = []
    for index, actor in enumerate(actors):
        depth = math.exp(actor.log_depth.centre)
        half = camera.focal * actor.radius / depth
        speed = level.speed * 2 * half * float(rng.uniform(0.7, 1.3))
        late = request.late and actor.label == max(a.label for a in actors)
        if late:
            column = _enter_late(request, camera, half, speed, rng)
        elif crossing:
            column = _cross(request, camera, half, speed, meeting, direction * (-1) ** index, rng)
        else:
            column = _roam(camera, half, speed, rng)
        swing = column.amplitude * depth / camera.focal
        across = Wave(camera.across(column.centre, depth), swing, column.rate, column.phase)
        rocking = float(rng.uniform(0.05, 0.12)) if late else steady
        log_depth = Wave(actor.log_depth.centre, rocking, float(rng.uniform(0.06, 0.14)), _phase(rng))
        moved.append(replace(actor, across=across, log_depth=log_depth, turn=_turn(level, actor, rng)))
    return moved


def _depth_freedom(level: DifficultyConfig, request: Request, actors: Sequence[Actor]) -> float:
    """Largest amplitude of log depth; small enough that look-alikes never come near each other's depth."""
    logs = sorted(actor.log_depth.centre for actor in actors)
    gaps = [b - a for a, b in pairwise(logs)]
    if request.kind != "lookalike" or not gaps:
        return level.depth_motion
    return min(level.depth_motion, _STEADY * min(gaps))


def _turn(level: DifficultyConfig, actor: Actor, rng: np.random.Generator) -> Wave:
    """A slow swing; walkers only rock."""
    rate = float(rng.uniform(0.05, 0.12))
    swing = level.turn * float(rng.uniform(0.5, 1.5)) / rate
    if actor.outline.family == "walker":
        return Wave(0.0, min(swing, 0.12), rate, _phase(rng))
    return Wave(float(rng.uniform(-0.3, 0.3)), swing, rate, _phase(rng))


def _roam(camera: Camera, half: float, speed: float, rng: np.random.Generator) -> Wave:
    """A column that swings anywhere inside the image, at about `speed` pixels per frame."""
    room = max(camera.width / 2 - half, 0.1 * camera.width)
    amplitude = room * float(rng.uniform(0.45, 0.8))
    centre = camera.width / 2 + (room - amplitude) * float(rng.uniform(-1, 1))
    return Wave(centre, amplitude, 1.2 * speed / amplitude, _phase(rng))


def _cross(
    request: Request,
    camera: Camera,
    half: float,
    speed: float,
    meeting: float,
    direction: int,
    rng: np.random.Generator,
) -> Wave:
    """A column that passes `meeting` in mid-scene, going left or right."""
    time = request.duration * float(rng.uniform(0.4, 0.75))
    amplitude = max(camera.width * 0.5 - 1.1 * half, 0.15 * camera.width) * float(rng.uniform(0.7, 0.95))
    rate = 1.15 * speed / amplitude
    return Wave(meeting, amplitude * direction, rate, -rate * time)


def _enter_late(request: Request, camera: Camera, half: float, speed: float, rng: np.random.Generator) -> Wave:
    """A column outside the image until some time, then moving inwards."""
    time = request.duration * float(rng.uniform(0.2, 0.5))
    inwards = 1 if rng.random() < 0.5 else -1
    edge = -1.25 * half if inwards > 0 else camera.width + 1.25 * half
    amplitude = 0.6 * camera.width
    rate = 1.8 * speed / amplitude
    return Wave(edge, amplitude * inwards, rate, -rate * time)


def _draw_clutter(level: DifficultyConfig, camera: Camera, rng: np.random.Generator) -> Actor:
    """A thing in muted colours that stands still in the scene."""
    depth = float(np.exp(rng.uniform(math.log(1.2), math.log(5.0))))
    texture = dull_texture(rng, OBJECT_TEXTURE, level.background_saturation, level.background_contrast)
    across = camera.across(float(rng.uniform(0, camera.width)), depth)
    radius = float(rng.uniform(0.15, 0.4))
    return replace(_standing(0, draw_outline(rng, 0.0), texture, radius, depth, across), fixed=True)


def _draw_distractor(level: DifficultyConfig, request: Request, rng: np.random.Generator) -> Actor:
    """A moving thing as colourful as the objects, without a label."""
    depth = float(np.exp(rng.uniform(math.log(NEAR * 1.2), math.log(1.2 * FAR))))
    texture = object_texture(rng, rng.random(), level.object_saturation)
    radius = float(rng.uniform(0.2, 0.4)) * request.enlarge
    return _standing(0, draw_outline(rng, level.deformation), texture, radius, depth)
