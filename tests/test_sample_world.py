"""The embedded world: parameters, textures, painter and scenes."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import cv2
import numpy as np
import pytest

from pipeline.core.errors import UserError
from pipeline.core.kinds import Kind
from pipeline.core.params import build
from pipeline.sample.actors import Request, draw_actors
from pipeline.sample.config import KindCounts, WorldConfig
from pipeline.sample.cutout import visible
from pipeline.sample.footage import Footage, film, numbered, scene_rng
from pipeline.sample.outlines import FAMILIES, draw_outline
from pipeline.sample.renderer import Renderer
from pipeline.sample.scene import Scene
from pipeline.sample.scenery import draw_camera, draw_scenery
from pipeline.sample.textures import ground_texture, noise
from tests.support.toy_world import WORLD, world_section

TIMES = [0.0, 6.0, 12.0, 18.0, 23.0]


def shoot(kind: Kind, index: int, split: str = "train", world: WorldConfig = WORLD) -> Footage:
    return film(world, Request(kind, None, 24.0), "davis", split, index, TIMES)


def bare_scene(world: WorldConfig, seed: int) -> Scene:
    rng = np.random.default_rng(seed)
    camera = draw_camera(world, rng)
    actors = draw_actors(world, Request("single", 1, 24.0, bare=True), camera, rng)
    return Scene(camera, actors, draw_scenery(world, camera, rng))


def test_a_mistyped_difficulty_is_refused() -> None:
    with pytest.raises(UserError, match=r"world\.difficulty.*gentle, hard"):
        build(WorldConfig, world_section() | {"difficulty": "gentel"}, "world")


def test_one_switch_selects_the_hard_world() -> None:
    assert WORLD.level == WORLD.gentle
    assert replace(WORLD, difficulty="hard").level == WORLD.hard


def test_noise_is_periodic_and_fills_its_range() -> None:
    field = noise(np.random.default_rng(0), 64, 4, 3)
    assert (field.min(), field.max()) == (0, 1)
    inner = np.abs(np.diff(field, axis=1)).max()
    assert np.abs(field[:, 0] - field[:, -1]).max() <= 1.5 * inner
    assert np.abs(field[0] - field[-1]).max() <= 1.5 * np.abs(np.diff(field, axis=0)).max()


def test_ground_tile_has_its_side() -> None:
    for seed in range(6):
        assert ground_texture(np.random.default_rng(seed), 0.2, 0.4).shape == (256, 256, 3)


def test_outlines_keep_about_their_radius_and_move_smoothly() -> None:
    seen = set()
    for seed in range(40):
        outline = draw_outline(np.random.default_rng(seed), 0.08)
        seen.add(outline.family)
        before, after = (np.concatenate(outline.parts(t)) for t in (3.0, 4.0))
        assert 0.5 < np.abs(before).max() < 2.0
        assert np.abs(before - after).max() < 0.25
    assert seen == set(FAMILIES)


def test_the_same_scene_paints_the_same_bytes() -> None:
    first, second = shoot("multi", 3), shoot("multi", 3)
    for a, b in zip(first.pictures, second.pictures):
        assert np.array_equal(a.rgb, b.rgb)
        assert np.array_equal(a.ids, b.ids)
        assert np.array_equal(a.depth, b.depth)


def test_scenes_of_other_places_differ() -> None:
    places = [("davis", "train", 0), ("davis", "val", 0), ("davis", "train", 1), ("mannequin", "train", 0)]
    draws = {scene_rng(1, *place, 0).integers(2**62) for place in places}
    draws |= {
        scene_rng(2, "davis", "train", 0, 0).integers(2**62),
        scene_rng(1, "davis", "train", 0, 1).integers(2**62),
    }
    assert len(draws) == 6
    assert not np.array_equal(shoot("single", 0).pictures[0].rgb, shoot("single", 0, "val").pictures[0].rgb)


@pytest.mark.parametrize("kind", ["single", "multi", "lookalike"])
def test_every_object_is_seen_in_the_first_frame(kind: Kind) -> None:
    for index in range(4):
        footage = shoot(kind, index)
        labels = sorted(actor.label for actor in footage.scene.actors if actor.label)
        assert labels == list(range(1, len(labels) + 1))
        assert len(labels) == 1 if kind == "single" else len(labels) in (2, 3)
        counts = np.bincount(footage.pictures[0].ids.ravel(), minlength=len(labels) + 1)
        assert (counts[1:] >= WORLD.min_pixels).all()


def test_ids_agree_with_depth() -> None:
    """Each object alone gives its silhouette; where two overlap, the nearer one is seen, and its depth is stored."""
    for kind, index in (("multi", 5), ("lookalike", 2)):
        footage = shoot(kind, index)  # type: ignore[arg-type]
        overlap = 0
        for time, picture in zip(TIMES, footage.pictures):
            nearest = np.full(picture.ids.shape, np.inf)
            expected = np.zeros(picture.ids.shape, np.uint8)
            for actor in footage.scene.actors:
                alone = Renderer(replace(footage.scene, actors=(replace(actor, label=9),))).paint(time).ids == 9
                overlap += int((alone & np.isfinite(nearest)).sum())
                closer = alone & (actor.depth(time) < nearest)
                nearest[closer], expected[closer] = actor.depth(time), actor.label
            assert np.array_equal(picture.ids, expected)
            covered = np.isfinite(nearest)
            assert np.allclose(picture.depth[covered], nearest[covered])
            ground = np.repeat(footage.scene.camera.ground_depth()[:, None], picture.ids.shape[1], 1)
            assert np.array_equal(picture.depth[~covered], ground[~covered])
        assert overlap > 100


def test_visible_counts_what_is_painted() -> None:
    footage = shoot("lookalike", 1)
    for time, picture in zip(TIMES, footage.pictures):
        for label, (seen, whole) in visible(footage.scene.camera, footage.scene.actors, time).items():
            assert seen == (picture.ids == label).sum()
            assert whole >= seen


def test_feet_stand_on_the_ground_at_their_depth() -> None:
    for index in range(3):
        footage = shoot("single", index)
        (actor,) = (actor for actor in footage.scene.actors if actor.label)
        for time in TIMES:
            ids = Renderer(replace(footage.scene, actors=(actor,))).paint(time).ids
            lowest = np.flatnonzero((ids == 1).any(axis=1))[-1]
            assert abs(lowest + 1 - footage.scene.camera.foot_row(actor.depth(time))) < 2


def test_lookalikes_share_their_appearance_but_not_their_depth() -> None:
    """Hue histograms of one video's look-alikes agree, those of other objects do not; depths stay 1.25 apart."""
    alike: list[float] = []
    other: list[float] = []
    for index in range(4):
        for kind, scores in (("lookalike", alike), ("multi", other)):
            footage = shoot(kind, index)  # type: ignore[arg-type]
            actors = sorted((a for a in footage.scene.actors if a.label), key=lambda a: a.label)
            hists = [_hues(footage, actor.label) for actor in actors]
            scores.append(float(np.minimum(hists[0], hists[1]).sum()))
            if kind == "lookalike":
                assert all(actor.texture is actors[0].texture for actor in actors)
                for time in np.linspace(0, 24, 9):
                    depths = sorted(actor.depth(time) for actor in actors)
                    assert all(b / a > 1.25 for a, b in pairwise(depths))
    assert np.mean(alike) > 0.6
    assert np.mean(other) < 0.3


def _hues(footage: Footage, label: int) -> np.ndarray:
    picture = footage.pictures[0]
    hue = cv2.cvtColor(picture.rgb, cv2.COLOR_RGB2HSV)[..., 0][picture.ids == label]
    counts = np.histogram(hue, bins=18, range=(0, 180))[0]
    return counts / counts.sum()


def test_lookalikes_come_near_each_other() -> None:
    for index in range(4):
        scene = shoot("lookalike", index).scene
        first, second = sorted((a for a in scene.actors if a.label), key=lambda a: a.depth(0))[:2]
        gaps = [first.column(scene.camera, t) - second.column(scene.camera, t) for t in np.arange(24.0)]
        assert np.sign(gaps[0]) != np.sign(gaps[-1])


def test_far_things_are_hazed() -> None:
    """Saturation of the same object falls with its depth."""
    scene = bare_scene(WORLD, 4)
    saturation = []
    for depth in (1.1, 2.5):
        still = replace(scene.actors[0].log_depth, centre=np.log(depth), amplitude=0.0)
        picture = Renderer(replace(scene, actors=(replace(scene.actors[0], log_depth=still),))).paint(0.0)
        saturation.append(cv2.cvtColor(picture.rgb, cv2.COLOR_RGB2HSV)[..., 1][picture.ids == 1].mean())
    assert saturation[1] < 0.9 * saturation[0]


def test_the_backdrop_moves_less_than_the_ground() -> None:
    scene = bare_scene(replace(WORLD, gentle=replace(WORLD.gentle, noise=0.0)), 0)
    bare = replace(scene, actors=())
    early, late = Renderer(bare).paint(0.0).rgb, Renderer(bare).paint(20.0).rgb
    horizon = int(scene.camera.horizon)
    change = np.abs(early.astype(int) - late).mean(axis=(1, 2))
    assert change[-30:].mean() > 2 * change[: horizon - 2].mean()


def test_kinds_are_numbered_in_order() -> None:
    listed = numbered(KindCounts(single=1, multi=2, lookalike=1))
    assert listed == [("single", 0), ("multi", 0), ("multi", 1), ("lookalike", 0)]


def test_an_impossible_world_says_so() -> None:
    with pytest.raises(UserError, match="min_pixels"):
        shoot("single", 0, world=replace(WORLD, min_pixels=10**6))


def test_a_late_object_enters_after_the_first_frame() -> None:
    times = [1.5 * t for t in range(16)]
    footage = film(WORLD, Request("multi", 2, 24.0, late=True), "youtubevos", "train", 0, times)
    areas = [(picture.ids == 2).sum() for picture in footage.pictures]
    assert areas[0] == 0
    assert areas[-1] >= WORLD.min_pixels
