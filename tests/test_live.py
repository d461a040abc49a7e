"""Clips drawn in training: colours and labels agree, every object shows at the start, equal seeds give equal clips."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import cast

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from pipeline.core.errors import UserError
from pipeline.core.files import write_json
from pipeline.core.layout import Layout
from pipeline.core.stills import StillSource
from pipeline.datasets.config import AugmentConfig, ClipConfig
from pipeline.live.camera import draw_camera, jitter
from pipeline.live.clip import LiveClip, Still, draw_live
from pipeline.live.config import LiveConfig
from pipeline.live.sprites import smear
from pipeline.live.trajectories import draw_elastic, draw_trajectory
from pipeline.training.live_clips import LiveClips, open_live
from tests.support.fake_stills import FakeStills, make_stills

PLAIN = LiveConfig(
    use=True,
    motion="smooth",
    rotation=10.0,
    zoom=0.1,
    shear=5.0,
    translation=0.1,
    camera=0.5,
    max_zoom=1.3,
    in_place=0.0,
    min_area=0.005,
    area_low=0.03,
    area_high=0.1,
    min_visible=0.5,
    distractors=0,
    lookalike=0.0,
    occluder=0.0,
    elastic=0.0,
    blur=0.0,
    soft=0.0,
    jpeg=0.0,
    exposure=0.0,
    jitter=0.0,
)
FULL = replace(
    PLAIN, in_place=0.5, distractors=2, lookalike=0.5, occluder=0.3, elastic=0.05, blur=0.5, soft=0.5, jpeg=0.5,
    exposure=0.1, jitter=0.2,
)  # fmt: skip
SIDE = 96


def picker(stills: FakeStills) -> Callable[[np.random.Generator], Still]:
    def pick(rng: np.random.Generator) -> Still:
        image = stills.images[int(rng.integers(len(stills.images)))]
        found = stills.instances(image)
        return Still(stills.image(image), found.masks, found.void)

    return pick


def draw(config: LiveConfig, seed: int, max_objects: int = 1, n_frames: int = 4) -> LiveClip | None:
    stills = make_stills(8, ring=0, radius=14)
    rng = np.random.default_rng(seed)
    return draw_live(rng, picker(stills), config, side=SIDE, n_frames=n_frames, max_objects=max_objects)


def drawn(config: LiveConfig, n: int, max_objects: int = 1) -> list[LiveClip]:
    clips = [draw(config, seed, max_objects) for seed in range(n)]
    return [clip for clip in clips if clip is not None]


def is_red(frame: NDArray[np.uint8]) -> NDArray[np.bool_]:
    return np.asarray((frame[..., 0] > 200) & (frame[..., 1] < 60))


def shrunk(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """What is left away from the mask's edge and the frame's."""
    kernel = np.ones((5, 5), np.uint8)
    return cv2.erode(mask.astype(np.uint8), kernel, borderType=cv2.BORDER_CONSTANT, borderValue=(0,)) > 0


def unlabelled_red(clips: list[LiveClip]) -> float:
    """Mean number of red pixels without a label in the first frames."""
    return float(np.mean([(shrunk(is_red(clip.frames[0])) & (clip.masks[0] == 0)).sum() for clip in clips]))


@pytest.mark.parametrize("in_place", [0.0, 1.0])
@pytest.mark.parametrize("elastic", [0.0, 0.08])
def test_labels_lie_on_the_object(in_place: float, elastic: float) -> None:
    """Every object is a red disc: the inside of a label is red; what is pasted alone is red nowhere else."""
    clips = drawn(replace(PLAIN, in_place=in_place, elastic=elastic), 30)
    assert len(clips) > 20
    for clip in clips:
        for frame, mask in zip(clip.frames, clip.masks):
            assert frame.shape == (SIDE, SIDE, 3) and mask.shape == (SIDE, SIDE)
            assert is_red(frame)[shrunk(mask == 1)].all()
            if in_place:  # mirrored copies beyond the edge of the image are void, not background
                assert not (is_red(frame) & (mask == 0) & shrunk(is_red(frame))).any()


def test_every_object_shows_in_the_first_frame() -> None:
    clips = drawn(FULL, 60, max_objects=3)
    for clip in clips:
        shown = set(np.unique(clip.masks[0])) - {0, 255}
        assert shown == set(range(1, clip.n_objects + 1))
    assert {clip.n_objects for clip in clips} == {1, 2, 3}
    assert all(set(np.unique(mask)) <= {0, 255, *range(1, c.n_objects + 1)} for c in clips for mask in c.masks)


def test_lookalike_is_a_second_object_or_has_no_label() -> None:
    """Single object, no other cut-out: what is red without a label is the copy (backgrounds show a disc, too)."""
    assert unlabelled_red(drawn(replace(PLAIN, lookalike=1.0), 40)) > unlabelled_red(drawn(PLAIN, 40)) + 100


def test_equal_seeds_give_equal_clips() -> None:
    one, two, other = draw(FULL, 5, 2), draw(FULL, 5, 2), draw(FULL, 6, 2)
    assert one is not None and two is not None and other is not None
    assert all(np.array_equal(a, b) for a, b in zip(one.frames + one.masks, two.frames + two.masks))
    assert not np.array_equal(one.frames[0], other.frames[0])


def test_motion_is_steady_or_drawn_for_each_frame() -> None:
    def steps(motion: str) -> NDArray[np.float64]:
        config = replace(PLAIN, motion=motion)  # type: ignore[arg-type]
        paths = [draw_trajectory(np.random.default_rng(i), config, 6, 1.0, 0.0).shift for i in range(200)]
        return np.stack([np.diff(path, axis=0) for path in paths])

    def agreement(moves: NDArray[np.float64]) -> float:
        """Mean cosine between one move and the next."""
        a, b = moves[:, :-1], moves[:, 1:]
        lengths = np.linalg.norm(a, axis=-1) * np.linalg.norm(b, axis=-1)
        return float(((a * b).sum(-1) / np.maximum(lengths, 1e-9)).mean())

    assert agreement(steps("smooth")) > 0.6
    assert agreement(steps("independent")) < 0
    assert np.linalg.norm(steps("smooth"), axis=-1).max() < 3 * PLAIN.translation


def test_smear_spreads_a_point_evenly_along_its_way() -> None:
    image = np.zeros((41, 41, 3), np.uint8)
    image[20, 20] = 240
    blurred = smear(image, np.array([8.0, 0.0])).astype(float)[..., 0]
    assert blurred[:20].sum() == blurred[21:].sum() == 0
    columns = np.flatnonzero(blurred[20])
    assert blurred.sum() == pytest.approx(240, abs=8)
    assert 6 <= np.ptp(columns) <= 8 and columns.mean() == pytest.approx(20, abs=0.6)
    assert smear(image, np.array([0.5, 0.0])) is image


def test_camera_without_effects_changes_nothing() -> None:
    frames = [np.random.default_rng(i).integers(0, 256, (8, 8, 3)).astype(np.uint8) for i in range(3)]
    camera = draw_camera(np.random.default_rng(0), PLAIN)
    assert all(np.array_equal(a, b) for a, b in zip(frames, camera.shoot(frames)))
    assert jitter(np.random.default_rng(0), frames[0], 0.0) is frames[0]
    assert draw_elastic(np.random.default_rng(0), 0.0) is None
    drift = draw_camera(np.random.default_rng(0), replace(PLAIN, exposure=0.2)).shoot([frames[0]] * 3)
    assert not np.array_equal(drift[0], drift[2])


def test_opacity_is_not_jittered() -> None:
    rgba = np.full((4, 4, 4), 200, np.uint8)
    changed = jitter(np.random.default_rng(1), rgba, 0.4)
    assert (changed[..., 3] == 200).all() and (changed[..., :3] != 200).any()


def test_source_of_training_clips() -> None:
    stills = make_stills(4, ring=0, radius=14)
    source = LiveClips([cast(StillSource, stills)], FULL, None)
    augment = AugmentConfig(64, 1.0, True, 0.0, 0.0, 0.0, 0.0)
    found = [source.draw(np.random.default_rng(i), ClipConfig(5, 2, augment), 3) for i in range(6)]
    clips = [clip for clip in found if clip is not None]
    assert source.count == 4 and clips
    for clip in clips:
        assert (clip.frames.shape, str(clip.frames.dtype)) == ((5, 3, 64, 64), "uint8")
        assert clip.masks.shape == (5, 64, 64) and clip.depth is None


def test_refuses_depth_and_no_stills(tmp_path: Path) -> None:
    layout = Layout(tmp_path, "lite")
    for name in ("msra10k", "coco", "voc"):
        layout.raw(name).mkdir(parents=True)
        write_json(layout.raw(name) / "manifest.json", {"files": []})
    with pytest.raises(UserError, match=r"model\.depth is true with profiles\.lite\.live\.use"):
        open_live(layout, PLAIN, True, None)
    with pytest.raises(UserError, match="no stills in"):
        open_live(layout, PLAIN, False, None)
