from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple, cast

import cv2
import numpy as np
import pytest

from pipeline.core.images import decode_depth
from pipeline.depth_maps.write_maps import FrameRef, depth_maps
from pipeline.depth_training.quality import Counted, ordered_pairs, si_rmse, static_change, static_pixels
from pipeline.depth_training.validation import validate
from pipeline.hourglass.config import DepthConfig, DepthValidationConfig
from pipeline.hourglass.estimator import DepthEstimator
from pipeline.hourglass.normalise import DepthRange, invert, normalise, robust_range
from pipeline.hourglass.scale_smoothing import ScaleSmoother

MAPS = DepthConfig(
    estimator="hourglass",
    folder="none",
    folder_holds="inverse_depth",
    batch=4,  # neither video ends with a batch
    precision="fp32",
    steady=0.9,
    percentile_low=2.0,
    percentile_high=98.0,
    store="frame",
    bits=16,
    shard_frames=1000,
)
JUDGED = DepthValidationConfig(
    pairs=20,
    min_ratio=1.0,
    still_change=0.05,
    steady=0.9,
    percentile_low=2.0,
    percentile_high=98.0,
    warn_si_rmse=0.0,
    warn_ordered_pairs=0.0,
)


def test_si_rmse_is_over_all_pairs() -> None:
    rng = np.random.default_rng(0)
    estimate, depth = rng.normal(size=(4, 5)), rng.uniform(1, 5, (4, 5))
    depth[0, :2] = 0
    errors = [e - math.log(d) for e, d in zip(estimate.ravel(), depth.ravel()) if d > 0]
    expected = math.sqrt(sum((a - b) ** 2 for a in errors for b in errors) / len(errors) ** 2)
    assert si_rmse(estimate, depth) == pytest.approx(expected)
    assert si_rmse(estimate, np.zeros((4, 5))) is None


def test_ordered_pairs_counts_what_a_naive_loop_would() -> None:
    rng = np.random.default_rng(1)
    depth = rng.uniform(1, 3, (6, 8)).astype(np.float32)
    depth[2, 3] = 0
    instances = np.zeros((6, 8), np.uint8)
    instances[:3], instances[3:, :4], instances[5, 5:] = 1, 2, 3
    instances[0, 0] = 255  # void
    estimate = np.log(np.where(depth > 0, depth, 1)) + rng.normal(0, 0.3, (6, 8))
    right = total = 0.0
    for one, other in itertools.permutations((1, 2, 3), 2):
        firsts, seconds = (np.argwhere((instances == i) & (depth > 0)) for i in (one, other))
        share, counted = 0, 0
        for a, b in itertools.product(map(tuple, firsts), map(tuple, seconds)):
            if max(depth[a] / depth[b], depth[b] / depth[a]) >= 1.1:
                counted += 1
                share += (estimate[a] > estimate[b]) == (depth[a] > depth[b])
        pairs = len(firsts) * len(seconds)
        right, total = right + share / pairs, total + counted / pairs
    drawn = ordered_pairs(estimate, depth, instances, 20000, 1.1, np.random.default_rng(2))
    assert drawn.total / drawn.count == pytest.approx(right / total, abs=0.02)
    assert drawn.count / 20000 == pytest.approx(total / 6, abs=0.02)


def test_perfect_and_reversed_order() -> None:
    depth = np.random.default_rng(0).uniform(1, 9, (8, 8)).astype(np.float32)
    for sign, share in ((1, 1.0), (-1, 0.0)):
        assert ordered_pairs(sign * depth, depth, None, 500, 1.0, np.random.default_rng(0)).mean == share


def test_pairs_need_two_objects_with_known_depth() -> None:
    depth = np.ones((4, 4), np.float32)
    instances = np.ones((4, 4), np.uint8)
    assert ordered_pairs(depth, depth, instances, 10, 1.0, np.random.default_rng(0)) == Counted(0.0, 0)
    instances[0] = 2
    depth[0] = 0
    assert ordered_pairs(depth, depth, instances, 10, 1.0, np.random.default_rng(0)).mean is None


def test_static_pixels_and_their_change() -> None:
    before, after = np.full((2, 3, 3), 100, np.uint8), np.full((2, 3, 3), 100, np.uint8)
    after[0, 0] = 140  # another colour
    depth_before, depth_after = np.full((2, 3), 2.0), np.full((2, 3), 2.0)
    depth_after[0, 1] = 2.5  # moved away
    depth_after[0, 2] = 0.0  # unknown
    still = static_pixels((before, after), (depth_before, depth_after), 0.05)
    assert still.tolist() == [[False, False, False], [True, True, True]]
    change = static_change(np.zeros((2, 3)), np.array([[1, 1, 1], [0.1, 0.2, 0.3]]), still)
    assert change.total == pytest.approx(0.6) and change.count == 3


def test_one_range_for_a_video_keeps_a_point_still() -> None:
    rng = np.random.default_rng(0)
    background = rng.uniform(0.2, 0.4, (12, 16)).astype(np.float32)
    near = background.copy()
    near[:, :6] = 2.0  # something near enters
    video = [background, near]
    shared = robust_range(video, 2, 98)
    maps = [normalise(frame, shared, 12, 16) for frame in video]
    assert np.array_equal(maps[0][:, 6:], maps[1][:, 6:])
    alone = [normalise(frame, robust_range([frame], 2, 98), 12, 16) for frame in video]
    assert np.abs(alone[0][:, 6:] - alone[1][:, 6:]).mean() > 0.1


def test_normalised_depth() -> None:
    log_depth = np.log(np.array([[1.0, 2.0], [4.0, 8.0]], np.float32))
    inverse = invert(log_depth)
    np.testing.assert_allclose(inverse.astype(float), np.array([[1, 0.5], [0.25, 0.125]]), rtol=1e-3)
    depth = normalise(inverse, DepthRange(far=0.125, near=0.5), 2, 2)
    np.testing.assert_allclose(depth, np.array([[1.0, 1.0], [1 / 3, 0.0]]), atol=1e-3)  # beyond near and far is cut off
    assert normalise(inverse, DepthRange(0.125, 1.0), 5, 3).shape == (5, 3)
    assert np.all(normalise(np.ones((3, 3)), robust_range([np.ones((3, 3))], 2, 98), 3, 3) == 0.5)
    assert np.isfinite(invert(np.array([-1e9, 1e9], np.float32))).all()


def test_percentiles_ignore_a_few_wild_values() -> None:
    frame = np.linspace(1, 2, 10000, dtype=np.float32).reshape(100, 100)
    frame[0, :10] = 1e4
    far, near = robust_range([frame, frame], 2, 98)
    assert far == pytest.approx(1.02, abs=0.01) and near == pytest.approx(1.98, abs=0.01)


def jittering(length: int, moving: bool = False) -> tuple[list[np.ndarray], list[np.ndarray], np.ndarray]:
    """Frames of one scene, its inverse depth with a factor of its own in each frame, and the factors' logarithms."""
    rng = np.random.default_rng(3)
    inverse = rng.uniform(0.2, 0.9, (12, 16)).astype(np.float32)
    rgb = rng.integers(0, 256, (24, 32, 3), np.uint8)
    frames = [rng.integers(0, 256, (24, 32, 3), np.uint8) if moving else rgb for _ in range(length)]
    jitter = rng.normal(0, 0.1, length)
    return frames, [inverse * np.float32(np.exp(j)) for j in jitter], jitter


def test_steadying_leaves_the_moving_average_of_the_scale() -> None:
    frames, inverse, jitter = jittering(9)
    smooth, average = ScaleSmoother(0.8), jitter[0]
    for t in range(9):
        steady = smooth(frames[t], inverse[t])
        average = 0.8 * average + 0.2 * jitter[t] if t else jitter[0]
        np.testing.assert_allclose(steady, inverse[t] * np.exp(average - jitter[t]), rtol=1e-5)


def test_something_that_moves_does_not_change_the_scale_of_what_rests() -> None:
    frames, inverse, _ = jittering(2)
    inverse[1] = inverse[0].copy()
    inverse[1][:, :6] *= 3  # something near enters, and looks different
    entered = frames[0].copy()
    entered[:, :12] = 255 - entered[:, :12]
    smooth = ScaleSmoother(0.9)
    np.testing.assert_array_equal(smooth(frames[0], inverse[0]), inverse[0])
    np.testing.assert_allclose(smooth(entered, inverse[1]), inverse[1], rtol=1e-6)


def test_steadying_needs_places_at_rest_and_frames_of_one_size() -> None:
    frames, inverse, _ = jittering(4, moving=True)
    smooth = ScaleSmoother(0.9)
    for frame, one in zip(frames, inverse):
        np.testing.assert_array_equal(smooth(frame, one), one)
    frames, inverse, _ = jittering(2)
    smooth = ScaleSmoother(0.9)
    smooth(frames[0], inverse[0])
    np.testing.assert_array_equal(smooth(frames[1], inverse[1][:8]), inverse[1][:8])
    assert ScaleSmoother(0.0)(frames[0], inverse[0]) is inverse[0]


def test_a_lasting_change_of_scale_is_kept() -> None:
    frames, inverse, _ = jittering(1)
    smooth, last = ScaleSmoother(0.5), inverse[0]
    for t in range(12):
        last = smooth(frames[0], inverse[0] * np.float32(1.0 if t == 0 else 2.0))
    np.testing.assert_allclose(last, 2 * inverse[0], rtol=1e-3)


def still_videos(length: int) -> dict[str, tuple[list[FrameRef], list[np.ndarray], np.ndarray]]:
    """Two videos of the same scene at rest: frames with a little noise, inverse depths that jitter, the log factors."""
    rng = np.random.default_rng(5)
    rgb = rng.integers(4, 252, (24, 32, 3)).astype(np.int64)
    inverse = rng.uniform(0.2, 0.9, (12, 16)).astype(np.float32)
    videos = {}
    for name in ("one", "two"):
        noisy = [(rgb + rng.integers(-3, 4, rgb.shape)).astype(np.uint8) for _ in range(length)]
        refs = [FrameRef(name, f"{t:05d}", partial(np.copy, frame)) for t, frame in enumerate(noisy)]
        jitter = rng.normal(0, 0.2, length)
        videos[name] = refs, [inverse * np.float32(np.exp(j)) for j in jitter], jitter
    return videos


def made_maps(names: Sequence[str], config: DepthConfig, length: int = 11) -> dict[str, np.ndarray]:
    """T,H,W maps of some of the videos, made together."""
    videos = still_videos(length)

    def inverse(refs: Sequence[FrameRef], frames: Sequence[np.ndarray]) -> list[np.ndarray]:
        return [videos[ref.video][1][int(ref.frame)] for ref in refs]

    files = depth_maps([videos[name][0] for name in names], inverse, config)
    assert [name for name, _ in files] == [f"{name}/{t:05d}.png" for name in names for t in range(length)]
    decoded = np.stack([decode_depth(data, name) for name, data in files])
    return {name: decoded[i * length : (i + 1) * length] for i, name in enumerate(names)}


def test_maps_of_a_still_video_do_not_flicker() -> None:
    """What is left is the moving average of the scale, over the video's one range; that is far steadier."""
    flickering, steady = (made_maps(["one", "two"], replace(MAPS, steady=keep)) for keep in (0.0, 0.9))
    for name, (_, inverse, jitter) in still_videos(11).items():
        change_before, change = (np.abs(np.diff(maps[name], axis=0)).mean() for maps in (flickering, steady))
        assert change < 0.2 * change_before and change_before > 0.05
        average, expected = jitter[0], []
        for one, j in zip(inverse, jitter):
            average = 0.9 * average + 0.1 * j
            expected.append(one * np.exp(average - j))
        far, near = np.percentile(np.stack(expected), [2, 98])
        for found, one in zip(steady[name], expected):
            enlarged = cv2.resize(np.clip((one - far) / (near - far), 0, 1), (32, 24), interpolation=cv2.INTER_LINEAR)
            np.testing.assert_allclose(found, enlarged, atol=1e-3)


def test_each_video_is_steadied_by_itself() -> None:
    """Videos in one call, and frames of both in one batch of the estimator, give what each gives alone."""
    together = made_maps(["one", "two"], MAPS)
    for name, maps in together.items():
        np.testing.assert_array_equal(maps, made_maps([name], MAPS)[name])
    turned = made_maps(["two", "one"], MAPS)
    assert all(np.array_equal(turned[name], maps) for name, maps in together.items())


def test_own_depth_maps_are_not_steadied() -> None:
    own = replace(MAPS, estimator="folder", folder="anywhere")
    as_they_are = made_maps(["one", "two"], replace(MAPS, steady=0.0))
    for keep in (0.0, 0.9):
        for name, maps in made_maps(["one", "two"], replace(own, steady=keep)).items():
            np.testing.assert_array_equal(maps, as_they_are[name])


# --- the figures of a network ---


class Shown(NamedTuple):
    """A frame with depth."""

    rgb: np.ndarray
    depth: np.ndarray
    instances: None = None


class Told:
    """An estimator that gives the next of some inverse depths for every frame it is shown."""

    def __init__(self, inverse: list[np.ndarray]) -> None:
        self._left = list(inverse)

    def log_depth(self, frames: Sequence[np.ndarray]) -> list[np.ndarray]:
        return [-np.log(self._left.pop(0)).astype(np.float32) for _ in frames]


def static_changes(videos: dict[str, list[Shown]], inverse: list[np.ndarray], **changes: Any) -> dict[str, float]:
    ids = [(name, f"{t:05d}") for name, frames in videos.items() for t in range(len(frames))]
    told = cast(DepthEstimator, Told(inverse))
    figures = validate(told, ids, lambda name, i: videos[name][int(i)], replace(JUDGED, **changes), seed=0)
    assert figures["frames"] == len(ids)
    return cast(dict[str, float], figures["static_change"])


def test_static_change_by_hand() -> None:
    """Five places in a row, one of them moving; twice the scale in the second frame, four times at the last place."""
    rgb = np.full((1, 5, 3), 100, np.uint8)
    before, after = np.full((1, 5), 2.0, np.float32), np.array([[2.0, 2.0, 2.0, 3.0, 2.0]], np.float32)
    inverse = [np.array([row], np.float32) / 8 for row in ([1, 2, 3, 4, 5], [2, 4, 6, 8, 20])]
    found = static_changes(
        {"a": [Shown(rgb, before), Shown(rgb, after)]}, inverse, steady=0.5, percentile_low=0.0, percentile_high=100.0
    )
    # places 1, 2, 3 and 5 are at rest; a range from 1 to 20 for both frames
    assert found["unsteadied"] == pytest.approx((1 + 2 + 3 + 15) / 19 / 4, abs=5e-4)
    # from 1 to 5, then from 2 to 20: 0, 1/4, 2/4, 1 become 0, 2/18, 4/18, 1
    assert found["per_frame"] == pytest.approx((5 / 36 + 10 / 36) / 4, abs=5e-4)
    # half of the factor 2, as a logarithm, is taken back: the second frame by the root of 2, and 1 to 10 times that
    root = math.sqrt(2)
    steadied = ((root - 1) * (1 + 2 + 3) + 10 * root - 5) / (10 * root - 1) / 4
    assert found["per_video"] == pytest.approx(steadied, abs=5e-4)


def test_static_change_is_judged_video_by_video() -> None:
    """On still frames steadying helps, by what it does to each video alone; a range of its own hides all of it."""
    videos, inverse = {}, {}
    for name, (refs, jittering_depths, _) in still_videos(11).items():
        videos[name] = [Shown(ref.read(), np.full((24, 32), 2.0, np.float32)) for ref in refs]
        inverse[name] = jittering_depths
    both = static_changes(videos, inverse["one"] + inverse["two"])
    assert both["per_video"] < 0.2 * both["unsteadied"]
    assert both["per_frame"] < 1e-3
    alone = [static_changes({name: videos[name]}, inverse[name]) for name in videos]
    for way, change in both.items():
        assert change == pytest.approx((alone[0][way] + alone[1][way]) / 2, abs=2e-6)
    unsteady = static_changes(videos, inverse["one"] + inverse["two"], steady=0.0)
    assert unsteady["per_video"] == unsteady["unsteadied"] == both["unsteadied"]
