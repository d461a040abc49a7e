from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

from pipeline.hourglass.normalise import DepthRange, invert, normalise, robust_range
from pipeline.hourglass.quality import Counted, ordered_pairs, si_rmse, static_change, static_pixels
from pipeline.hourglass.steady import Steadier


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
    steadier, average = Steadier(0.8), jitter[0]
    for t in range(9):
        steady = steadier(frames[t], inverse[t])
        average = 0.8 * average + 0.2 * jitter[t] if t else jitter[0]
        np.testing.assert_allclose(steady, inverse[t] * np.exp(average - jitter[t]), rtol=1e-5)


def test_something_that_moves_does_not_change_the_scale_of_what_rests() -> None:
    frames, inverse, _ = jittering(2)
    inverse[1] = inverse[0].copy()
    inverse[1][:, :6] *= 3  # something near enters, and looks different
    entered = frames[0].copy()
    entered[:, :12] = 255 - entered[:, :12]
    steadier = Steadier(0.9)
    np.testing.assert_array_equal(steadier(frames[0], inverse[0]), inverse[0])
    np.testing.assert_allclose(steadier(entered, inverse[1]), inverse[1], rtol=1e-6)


def test_steadying_needs_places_at_rest_and_frames_of_one_size() -> None:
    frames, inverse, _ = jittering(4, moving=True)
    steadier = Steadier(0.9)
    for frame, one in zip(frames, inverse):
        np.testing.assert_array_equal(steadier(frame, one), one)
    frames, inverse, _ = jittering(2)
    steadier = Steadier(0.9)
    steadier(frames[0], inverse[0])
    np.testing.assert_array_equal(steadier(frames[1], inverse[1][:8]), inverse[1][:8])
    assert Steadier(0.0)(frames[0], inverse[0]) is inverse[0]


def test_a_lasting_change_of_scale_is_kept() -> None:
    frames, inverse, _ = jittering(1)
    steadier, last = Steadier(0.5), inverse[0]
    for t in range(12):
        last = steadier(frames[0], inverse[0] * np.float32(1.0 if t == 0 else 2.0))
    np.testing.assert_allclose(last, 2 * inverse[0], rtol=1e-3)
