"""Averaging over scales and flips."""

from __future__ import annotations

import numpy as np
import pytest

from pipeline.inference.frames import Frame
from tests.support.tiny_archives import make_toy
from tests.support.toy_inference import TTA, frames_of, labels, make_network, naive, video


def kept(t: int) -> list[int]:
    return sorted({i for i in range(t) if i % 3 == 0} | {t - 1})


@pytest.mark.parametrize("averaged", [False, True])
@pytest.mark.parametrize("scales", [(1.0, 1.3), (0.8,)])
def test_equals_the_naive_average(averaged: bool, scales: tuple[float, ...]) -> None:
    """All views run one after the other, each with its own list of slots, against all of them together."""
    frames, mask = video(7)
    network = make_network()
    views = [(scale, mirrored) for scale in scales for mirrored in (False, True)]
    expected = naive(network, frames, {0: mask}, 2, kept, views, averaged)
    found = labels(network, frames, {0: mask}, TTA, scales=scales, tta_memory="averaged" if averaged else "own")
    assert all((expected[1:] == k).mean() > 0.02 for k in range(3)), "the toy must be lively to tell"
    assert (found == expected).mean() > 0.999


def test_late_objects_enter_every_view() -> None:
    toy = make_toy(8, 2, 40, 56)
    masks = {
        0: np.where(toy.masks[0] == 1, 1, 0).astype(np.uint8),
        3: np.where(toy.masks[3] == 2, 2, 0).astype(np.uint8),
    }
    network, frames = make_network(), frames_of(toy)
    views = [(scale, mirrored) for scale in (1.0, 1.3) for mirrored in (False, True)]
    expected = naive(network, frames, masks, 2, kept, views)
    found = labels(network, frames, masks, TTA)
    assert (found == expected).mean() > 0.999
    assert not (found[:3] == 2).any() and (found[3][masks[3] == 2] == 2).all()


def test_one_plain_view_is_no_tta() -> None:
    frames, mask = video(5)
    network = make_network()
    found = labels(network, frames, {0: mask}, TTA, scales=(1.0,), flip=False)
    np.testing.assert_array_equal(found, labels(network, frames, {0: mask}))


@pytest.mark.parametrize("tta_memory", ["own", "averaged"])
def test_a_mirrored_video_gives_the_mirrored_result(tta_memory: str) -> None:
    """Averaging over the flip makes the result independent of left and right, for whatever weights."""
    frames, mask = video(6)
    network = make_network()
    mirrored = [Frame(f.rgb[:, ::-1].copy(), None if f.depth is None else f.depth[:, ::-1].copy()) for f in frames]
    found = labels(network, frames, {0: mask}, TTA, scales=(1.0,), tta_memory=tta_memory)
    other = labels(network, mirrored, {0: mask[:, ::-1].copy()}, TTA, scales=(1.0,), tta_memory=tta_memory)
    assert (found == other[:, :, ::-1]).mean() > 0.999
    plain = labels(network, mirrored, {0: mask[:, ::-1].copy()})
    assert (labels(network, frames, {0: mask}) == plain[:, :, ::-1]).mean() < 0.999, (
        "without it the weights favour a side"
    )


def test_a_symmetric_video_gives_a_symmetric_result() -> None:
    frames, mask = video(6, 1)
    both = [
        Frame(np.maximum(f.rgb, f.rgb[:, ::-1]), None if f.depth is None else np.maximum(f.depth, f.depth[:, ::-1]))
        for f in frames
    ]
    found = labels(make_network(), both, {0: np.maximum(mask, mask[:, ::-1])}, TTA, scales=(1.0,))
    np.testing.assert_array_equal(found, found[:, :, ::-1])
