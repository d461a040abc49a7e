"""The Python API: any frames in, masks out, as they come."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator
from dataclasses import replace
from itertools import count
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from pipeline.core.errors import UserError
from pipeline.hourglass.config import HourglassConfig
from pipeline.hourglass.estimator import DepthEstimator
from pipeline.hourglass.network import Hourglass
from pipeline.inference.segmenter import FrameDepth, Segmenter
from tests.support.tiny_archives import make_toy
from tests.support.toy_inference import CONFIG, CPU, PLAIN, labels, make_network, video

Rgb = NDArray[np.uint8]
HOURGLASS = HourglassConfig(width=0.25, stem_stride=2, input_height=32, input_width=64)


def plain_segmenter(**changes: int) -> Segmenter:
    return Segmenter(make_network(depth=False), None, PLAIN, replace(CONFIG, **changes), CPU)  # type: ignore[arg-type]


def deep_segmenter() -> Segmenter:
    torch.manual_seed(0)
    depth = FrameDepth("estimated", DepthEstimator(Hourglass(HOURGLASS).eval(), CPU, "fp32"), 2.0, 98.0, 0.9)
    return Segmenter(make_network(), depth, PLAIN, CONFIG, CPU)


def held_tensors() -> tuple[int, int]:
    """How many tensors there are, and their bytes."""
    gc.collect()
    sizes = [o.nbytes for o in gc.get_objects() if issubclass(type(o), torch.Tensor)]
    return len(sizes), sum(sizes)


def test_equals_the_propagation() -> None:
    frames, mask = video(6)
    found = np.stack(list(plain_segmenter().propagate((f.rgb for f in frames), {0: mask})))
    np.testing.assert_array_equal(found, labels(make_network(depth=False), frames, {0: mask}))


def test_forms_of_the_first_mask() -> None:
    """An array is the first frame's mask; any whole numbers or booleans are ids; masks may begin late."""
    frames, mask = [f.rgb for f in video(6)[0]], video(6)[1]
    segmenter = plain_segmenter()
    expected = np.stack(list(segmenter.propagate(frames, {0: mask})))
    for given in (mask, mask.astype(np.int64), np.asfortranarray(mask)):
        np.testing.assert_array_equal(np.stack(list(segmenter.propagate(frames, given))), expected)
    single = np.stack(list(segmenter.propagate(frames, mask == 2)))
    np.testing.assert_array_equal(single, np.stack(list(segmenter.propagate(frames, (mask == 2).astype(np.uint8)))))
    late = np.stack(list(segmenter.propagate(frames, {3: mask})))
    assert not late[:3].any()
    np.testing.assert_array_equal(late[3], mask)


def test_frames_of_any_layout() -> None:
    """BGR turned to RGB runs backwards in memory, which OpenCV and torch do not take as it is."""
    frames, mask = [f.rgb for f in video(5)[0]], video(5)[1]
    for segmenter in (plain_segmenter(), deep_segmenter()):
        expected = np.stack(list(segmenter.propagate(frames, mask)))
        turned = [np.ascontiguousarray(rgb[..., ::-1])[..., ::-1] for rgb in frames]
        assert turned[0].strides[-1] < 0
        np.testing.assert_array_equal(np.stack(list(segmenter.propagate(turned, mask))), expected)


@pytest.mark.parametrize("lookahead", [None, 1, 3])
def test_the_lag_is_bounded(lookahead: int | None) -> None:
    """Of an endless source no more is taken than the lag that is promised; the masks do not depend on it."""
    frames, mask = [f.rgb for f in video(9)[0]], video(9)[1]
    taken = 0

    def camera() -> Iterator[Rgb]:
        nonlocal taken
        while True:
            taken += 1
            yield frames[(taken - 1) % 9]

    max_ahead = lookahead or CONFIG.lookahead
    masks = plain_segmenter().propagate(camera(), mask, lookahead=lookahead)
    assert taken == 0
    found = []
    for t, one in zip(range(9), masks):
        found.append(one)
        assert t < taken <= t + max_ahead
    np.testing.assert_array_equal(np.stack(found), labels(make_network(depth=False), video(9)[0], {0: mask}))


def test_the_lag_of_a_range_of_depth() -> None:
    """Sixteen frames at the start, unless the range is given; then no more than the lag."""
    frames, mask = [f.rgb for f in video(9)[0]], video(9)[1]
    segmenter = deep_segmenter()
    assert segmenter.depth is not None
    for depth_range, at_first in ((None, 16), (segmenter.depth.range_of(frames), 2)):
        taken = 0

        def camera() -> Iterator[Rgb]:
            nonlocal taken
            while True:
                taken += 1
                yield frames[taken % 9]

        masks = segmenter.propagate(camera(), mask, depth_range, lookahead=2)
        next(masks)
        assert taken == at_first
        for _ in range(20):
            next(masks)
        assert taken <= 22


def test_memory_stays_bounded() -> None:
    """With a limit on the memory nothing grows: as many tensors, of as many bytes, after 20 frames as after 60."""
    frames, mask = [f.rgb for f in video(3)[0]], video(3)[1]
    source = (frames[i % 3].copy() for i in count())
    masks = plain_segmenter(memory_every=1, memory_frames=4).propagate(source, mask)
    held = [held_tensors() for t, _ in zip(range(61), masks) if t in (20, 40, 60)]
    assert held[0] == held[1] == held[2]


def test_closing_early_frees_everything() -> None:
    frames, mask = [f.rgb for f in video(3)[0]], video(3)[1]
    given: list[weakref.ref[Rgb]] = []
    closed = False

    def camera() -> Iterator[Rgb]:
        nonlocal closed
        try:
            while True:
                rgb = frames[0].copy()
                given.append(weakref.ref(rgb))
                yield rgb
        finally:
            closed = True

    for segmenter in (plain_segmenter(), deep_segmenter()):
        next(segmenter.propagate(camera(), mask))  # what is prepared at the first use stays
        before = held_tensors()
        given.clear()
        closed = False
        masks = segmenter.propagate(camera(), mask)
        next(masks)
        assert held_tensors() > before
        masks.close()
        assert held_tensors() == before
        assert closed and given and not any(one() is not None for one in given)


@pytest.mark.parametrize(
    ("masks", "message"),
    [
        (np.zeros((40, 56, 3), np.uint8), r"uint8 of shape \(40, 56, 3\); expected H,W"),
        (np.zeros((40, 56), np.float32), "float32"),
        (np.full((40, 56), 256), "256 to 256; expected .* ids from 0 to 255"),
        ({-1: np.ones((40, 56), np.uint8)}, "frame -1 .*from 0 on"),
    ],
)
def test_unfit_masks_at_once(masks: NDArray[np.generic], message: str) -> None:
    with pytest.raises(UserError, match=message):
        plain_segmenter().propagate([], masks)


def test_unfit_masks_and_frames_in_their_turn() -> None:
    frames, mask = [f.rgb for f in video(6)[0]], video(6)[1]
    for bad, message in (
        (frames[0][..., 0], r"frame 5 is uint8 of shape \(40, 56\)"),
        (frames[0].astype(np.float32), "frame 5 is float32"),
        (frames[0][..., [0, 1, 2, 2]], r"\(40, 56, 4\)"),
        (frames[0][:-1], "frame 5 is 56x39, the first one 56x40"),
    ):
        given: list[Any] = [*frames[:5], bad]
        found = plain_segmenter().propagate(given, mask)
        assert len([next(found) for _ in range(4)]) == 4
        with pytest.raises(UserError, match=message):
            list(found)
    unfit: list[tuple[Any, str]] = [
        ({}, "no object"),
        (np.zeros_like(mask), "no object"),
        (mask[:-1], "mask of frame 0 is 56x39"),
        ({0: mask, 6: mask}, "mask is given for frame 6, but the video has 6 frames"),
    ]
    for masks, message in unfit:
        with pytest.raises(UserError, match=message):
            list(plain_segmenter().propagate(frames, masks))


def test_depth_is_one_range_for_all_frames() -> None:
    frames = [f.rgb for f in video(6)[0]]
    depth = deep_segmenter().depth
    assert depth is not None
    depth_range = depth.range_of(frames)
    whole, follow = depth.follow(depth_range)(frames), depth.follow(depth_range)
    for rgb, expected in zip(frames, whole):
        assert expected.shape == rgb.shape[:2] and expected.dtype == np.float32
        assert expected.min() >= 0 and expected.max() <= 1
        np.testing.assert_allclose(follow([rgb])[0], expected, atol=1e-3)
    assert np.ptp(whole[0]) > 0.2


def test_depth_of_the_controls() -> None:
    rgb = make_toy(1).frames[0]
    assert (FrameDepth("constant", None, 2.0, 98.0, 0.9).follow(None)([rgb])[0] == 0.5).all()
    grey = FrameDepth("luminance", None, 2.0, 98.0, 0.9).follow(None)([rgb])[0]
    np.testing.assert_allclose(grey, cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY) / 255, atol=1e-6)
    with pytest.raises(UserError, match="shuffled"):
        FrameDepth("shuffled", None, 2.0, 98.0, 0.9)
