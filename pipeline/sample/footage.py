"""Render scenes: seeds, acceptance and the frames of one video or still."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from pipeline.core.errors import UserError
from pipeline.core.kinds import KINDS, Kind
from pipeline.sample.actors import Request, crowd, draw_actors, tiny_actor
from pipeline.sample.config import KindCounts, WorldConfig
from pipeline.sample.cutout import visible
from pipeline.sample.renderer import Picture, Renderer
from pipeline.sample.scene import Actor, Camera, Scene
from pipeline.sample.scenery import draw_camera, draw_scenery

FIRST_TINY, FIRST_CROWD = 101, 151
_ATTEMPTS = 200
_FIRST_SHARE = 0.5  # of an object that must be visible in the first frame
_SEEN_SHARE = 0.7  # of the moments at which each object must be visible
_MOMENTS = 8


@dataclass(frozen=True)
class Footage:
    """A rendered scene: its plan and its frames in temporal order."""

    scene: Scene
    pictures: tuple[Picture, ...]


def scene_rng(seed: int, dataset: str, split: str, index: int, attempt: int) -> np.random.Generator:
    """The generator of one scene; no two scenes share one."""
    names = [zlib.crc32(name.encode()) for name in (dataset, split)]
    return np.random.default_rng(np.random.SeedSequence([seed, *names, index, attempt]))


def numbered(counts: KindCounts) -> list[tuple[Kind, int]]:
    """Kind and number within its kind of each video of a split."""
    totals: dict[Kind, int] = {"single": counts.single, "multi": counts.multi, "lookalike": counts.lookalike}
    return [(kind, number) for kind in KINDS for number in range(totals[kind])]


def film(world: WorldConfig, request: Request, dataset: str, split: str, index: int, times: Sequence[float]) -> Footage:
    """Draw scenes until one shows all its objects well enough, and render it.

    Args:
        world: the parameters of the sample.
        request: the kind of scene.
        dataset: together with split and index the name of the scene, from which its seed derives.
        split: see `dataset`.
        index: see `dataset`.
        times: moments of the frames, in DAVIS frames.

    Raises:
        UserError: with these parameters hardly any scene is acceptable.
    """
    for attempt in range(_ATTEMPTS):
        rng = scene_rng(world.seed, dataset, split, index, attempt)
        camera = draw_camera(world, rng)
        actors = draw_actors(world, request, camera, rng)
        if _acceptable(world, request, camera, actors, times):
            scene = Scene(camera, actors, draw_scenery(world, camera, rng))
            renderer = Renderer(scene)
            return Footage(scene, tuple(renderer.paint(time) for time in times))
    raise UserError(
        f"no scene of kind {request.kind} shows its objects in {_ATTEMPTS} attempts; expected objects of at least "
        f"world.min_pixels = {world.min_pixels} pixels; lower it or raise world.frame_height"
    )


def film_still(
    world: WorldConfig, request: Request, dataset: str, index: int, tiny: int = 0, members: int = 0, empty: bool = False
) -> Footage:
    """Render one frame.

    Args:
        world: the parameters of the sample.
        request: the kind of scene.
        dataset: see `film`.
        index: see `film`.
        tiny: number of tiny objects to add; their ids start at FIRST_TINY.
        members: number of things in a crowd to add; their ids start at FIRST_CROWD.
        empty: remove everything that has a label.
    """
    plain = film(world, request, dataset, "train", index, (0.0,))
    rng = scene_rng(world.seed, dataset, "extras", index, 0)
    camera, actors = plain.scene.camera, list(plain.scene.actors)
    actors += [tiny_actor(world, camera, FIRST_TINY + i, rng) for i in range(tiny)]
    actors += crowd(world, camera, range(FIRST_CROWD, FIRST_CROWD + members), rng)
    if empty:
        actors = [actor for actor in actors if actor.label == 0]
    scene = replace(plain.scene, actors=tuple(actors))
    return Footage(scene, (Renderer(scene).paint(0.0),))


def _acceptable(
    world: WorldConfig, request: Request, camera: Camera, actors: Sequence[Actor], times: Sequence[float]
) -> bool:
    """Every object is clearly visible in the first frame (a late one absent there), and most of the time afterwards."""
    labels = sorted(actor.label for actor in actors if actor.label)
    late = labels[-1] if request.late else 0
    first = visible(camera, actors, times[0])
    for label in labels:
        seen, whole = first[label]
        if label == late:
            if whole:
                return False
        elif seen < world.min_pixels or seen < _FIRST_SHARE * whole:
            return False
    moments = [times[i] for i in np.unique(np.linspace(0, len(times) - 1, _MOMENTS).round().astype(int))]
    views = [visible(camera, actors, moment) for moment in moments]
    for label in labels:
        seen_at = [view[label][0] >= world.min_pixels for view in views]
        if label == late:
            if not seen_at[-1]:
                return False
        elif sum(seen_at) < _SEEN_SHARE * len(seen_at):
            return False
    return True
