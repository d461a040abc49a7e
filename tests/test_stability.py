"""How much depth changes in pixels at rest, compared with a loop over pixels and values worked out by hand."""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from itertools import pairwise

import numpy as np
import pytest
from numpy.typing import NDArray

from pipeline.reporting.stability import Stability, measure_video, summarise_stability

Frame = tuple[NDArray[np.uint8], NDArray[np.float32]]


def naive(frames: list[Frame]) -> tuple[float, int, int]:
    """The sums over frames of one size that need no scaling, place by place."""
    change, static, pixels = 0.0, 0, 0
    for (rgb_a, depth_a), (rgb_b, depth_b) in pairwise(frames):
        for y in range(rgb_a.shape[0]):
            for x in range(rgb_a.shape[1]):
                colours = [abs(int(rgb_a[y, x, c]) - int(rgb_b[y, x, c])) / 255 for c in range(3)]
                pixels += 1
                if sum(colours) / 3 < 0.03:
                    static += 1
                    change += abs(float(depth_b[y, x]) - float(depth_a[y, x]))
    return change, static, pixels


def noisy_video(n_frames: int, height: int, width: int, spread: int) -> list[Frame]:
    """A picture whose values change by up to `spread` from frame to frame, with depth maps of noise."""
    rng = np.random.default_rng(3)
    base = rng.integers(spread, 256 - spread, (height, width, 3))
    return [
        (
            (base + rng.integers(-spread, spread + 1, base.shape)).astype(np.uint8),
            rng.random((height, width), dtype=np.float32),
        )
        for _ in range(n_frames)
    ]


def plain(colour: int, depth: float, height: int = 2, width: int = 4) -> Frame:
    return np.full((height, width, 3), colour, np.uint8), np.full((height, width), depth, np.float32)


def test_equals_a_loop_over_places() -> None:
    frames = noisy_video(4, 9, 14, 12)
    change, static, pixels = naive(frames)
    assert 0 < static < pixels, "some pixels are at rest and some are not"
    found = measure_video(frames)
    assert (found.static, found.pixels) == (static, pixels)
    assert found.change == pytest.approx(change, rel=1e-6)


def test_by_hand() -> None:
    first, second = plain(100, 0.5), plain(100, 0.5)
    second[1][0] = 0.75  # the upper row, four of eight pixels, comes nearer by 1/4
    second[0][:, 0] = 150  # the left column, two of eight pixels, is not at rest
    found = measure_video([first, second, second])
    # first pair: three of six pixels change by 0.25; second pair: eight at rest, none changes
    assert found == Stability(change=0.75, static=14, pixels=16)
    assert found.static_change == pytest.approx(0.75 / 14)
    assert found.static_share == 14 / 16


@pytest.mark.parametrize(("steps", "at_rest"), [((7, 7, 8), True), ((8, 8, 7), False), ((22, 0, 0), True)])
def test_three_percent_of_full_scale(steps: tuple[int, int, int], at_rest: bool) -> None:
    """3% of full scale is 7.65 grey levels in the mean: 22 levels over the three channels pass, 23 do not."""
    before, after = plain(100, 0.2), plain(100, 0.3)
    after[0][:] = 100 + np.array(steps)
    for pair in ([before, after], [after, before]):
        assert measure_video(pair).static == (8 if at_rest else 0)


def test_large_frames_are_averaged_over_areas() -> None:
    """Four by four pixels a place: colours and depth count by their means, taken here from the picture's blocks."""
    rng = np.random.default_rng(5)
    frames = []
    for _ in range(3):
        rgb = 2 * rng.integers(45, 55, (3, 256, 3)).repeat(4, 0).repeat(4, 1)
        rgb[::2] += 60  # stripes that the average takes away, to the whole value 30
        frames.append((rgb.astype(np.uint8), rng.random((12, 1024), dtype=np.float32)))
    blocks = [
        (
            rgb.reshape(3, 4, 256, 4, 3).mean((1, 3)).astype(np.uint8),
            depth.reshape(3, 4, 256, 4).mean((1, 3), dtype=np.float32),
        )
        for rgb, depth in frames
    ]
    change, static, pixels = naive(blocks)
    found = measure_video(frames)
    assert (found.static, found.pixels) == (static, pixels)
    assert 0 < static < pixels == 2 * 3 * 256
    assert found.change == pytest.approx(change, rel=1e-4)


def test_depth_of_another_size_than_the_frame() -> None:
    small = [(rgb, depth[::2, ::2]) for rgb, depth in (plain(90, 0.25, 8, 8), plain(90, 0.5, 8, 8))]
    assert measure_video(small) == Stability(change=16.0, static=64, pixels=64)


def test_a_frame_of_another_size_is_compared_at_the_first_ones() -> None:
    found = measure_video([plain(90, 0.25, 4, 8), plain(90, 0.5, 8, 16), plain(90, 0.25, 4, 8)])
    assert found == Stability(change=16.0, static=64, pixels=64)


def test_tall_and_flat_frames() -> None:
    """854 x 480 is compared at 256 x 144; a panorama keeps at least one row."""
    assert measure_video([plain(90, 0.5, 480, 854)] * 2).pixels == 256 * 144
    assert measure_video([plain(90, 0.5, 1, 1000)] * 2).pixels == 256
    assert measure_video([plain(90, 0.5, 600, 200)] * 2).pixels == 600 * 200


@pytest.mark.parametrize("n_frames", [0, 1])
def test_without_a_pair_there_is_no_value(n_frames: int) -> None:
    found = measure_video([plain(90, 0.5)] * n_frames)
    assert found.static_change is None and found.static_share is None
    assert summarise_stability([("single", found)]) == {
        "static_change": None,
        "static_share": None,
        "by_kind": {"single": None},
    }


def test_only_two_frames_are_kept_in_memory() -> None:
    seen: list[weakref.ref[NDArray[np.uint8] | NDArray[np.float32]]] = []
    alive = []

    def frames() -> Iterator[Frame]:
        for _ in range(6):
            frame = plain(90, 0.5)  # of a size at which nothing is copied
            seen.extend(weakref.ref(array) for array in frame)
            alive.append(sum(ref() is not None for ref in seen))
            yield frame

    assert measure_video(frames()).pixels == 5 * 8
    assert alive == [2, 4, 4, 4, 4, 4], "a frame and its depth, and those before"


def test_a_set_is_pooled_over_places() -> None:
    found = [
        ("multi", Stability(change=3.0, static=10, pixels=40)),
        ("single", Stability(change=1.0, static=90, pixels=100)),
        ("multi", Stability(change=1.0, static=10, pixels=10)),
        ("lookalike", Stability(change=0.0, static=0, pixels=50)),
    ]
    figures = summarise_stability(found)
    assert figures == {
        "static_change": round(5 / 110, 6),
        "static_share": round(110 / 200, 6),
        "by_kind": {"single": round(1 / 90, 6), "multi": 0.2, "lookalike": None},
    }
    assert list(figures["by_kind"]) == ["single", "multi", "lookalike"]
    assert summarise_stability([]) == {"static_change": None, "static_share": None, "by_kind": {}}
