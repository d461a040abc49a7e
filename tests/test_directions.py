"""Masks propagated backwards and in both directions."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import lru_cache

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from pipeline.core.errors import UserError
from pipeline.inference import directions
from pipeline.inference.directions import Blend, ProbabilityStore, frames_backward
from pipeline.inference.given import Given
from pipeline.inference.segmenter import Segmenter
from pipeline.inference.soft_masks import SoftMask
from tests.support.tiny_archives import make_toy
from tests.support.toy_inference import CONFIG, CPU, PLAIN, Mask, make_network

TOY = make_toy(9, 2, 40, 56)
FRAMES = list(TOY.frames)


@lru_cache
def segmenter(**changes: int) -> Segmenter:
    return Segmenter(make_network(depth=False), None, PLAIN, replace(CONFIG, **changes), CPU)  # type: ignore[arg-type]


def only(index: int, number: int) -> Mask:
    """The toy's mask of one object."""
    return np.where(TOY.masks[index] == number, number, 0).astype(np.uint8)


def test_a_mask_in_the_middle_goes_both_ways() -> None:
    """Before the mask: the reversed video from the mask on; after it: the video from the mask on."""
    found = np.stack(list(segmenter().propagate(FRAMES, {4: TOY.masks[4]}, direction="auto")))
    forward = np.stack(list(segmenter().propagate(FRAMES[4:], TOY.masks[4])))
    backward = np.stack(list(segmenter().propagate(FRAMES[4::-1], TOY.masks[4])))
    np.testing.assert_array_equal(found[4:], forward)
    np.testing.assert_array_equal(found[:5], backward[::-1])
    assert found[:4].any() and len(found) == 9


def test_later_objects_stay_where_they_begin_unless_both_ways() -> None:
    masks = {2: only(2, 1), 6: only(6, 2)}
    auto, both = (np.stack(list(segmenter().propagate(FRAMES, masks, direction=d))) for d in ("auto", "both"))
    assert not (auto[:6] == 2).any() and (auto[0] == 1).any()
    assert (both[:6] == 2).any()
    for found in (auto, both):
        np.testing.assert_array_equal(found[2] == 1, masks[2] == 1)
        np.testing.assert_array_equal(found[6] == 2, masks[6] == 2)


def test_between_two_masks_the_probabilities_are_blended_by_distance() -> None:
    masks = {1: TOY.masks[1], 5: TOY.masks[5]}
    soft = list(segmenter().propagate(FRAMES, masks, direction="both", probabilities=True))
    ahead = list(segmenter().propagate(FRAMES[1:], {0: masks[1], 4: masks[5]}, probabilities=True))
    back = list(segmenter().propagate(FRAMES[5::-1], {0: masks[5], 4: masks[1]}, probabilities=True))[::-1]
    for t in (2, 3, 4):
        share = (t - 1) / 4
        expected = (1 - share) * ahead[t - 1].probabilities + share * back[t].probabilities
        np.testing.assert_allclose(soft[t].probabilities, expected, atol=0.01)
    np.testing.assert_array_equal(soft[1].mask, masks[1])
    np.testing.assert_array_equal(soft[5].mask, masks[5])
    np.testing.assert_array_equal(soft[7].mask, ahead[6].mask)
    np.testing.assert_array_equal(soft[0].mask, back[0].mask)


def test_an_object_that_left_is_not_brought_back_by_the_other_direction() -> None:
    masks, gone = {0: TOY.masks[0], 7: only(7, 2)}, {3: [2]}
    both = np.stack(list(segmenter().propagate(FRAMES, masks, gone=gone, direction="both")))
    assert (both[:3] == 2).any() and not (both[3:7] == 2).any() and (both[7] == 2).any()


def test_masks_and_probabilities_agree() -> None:
    soft = list(segmenter().propagate(FRAMES, {4: np.where(TOY.masks[4] == 2, 9, TOY.masks[4])}, direction="auto",
                                      probabilities=True))  # fmt: skip
    assert all(isinstance(one, SoftMask) and one.probabilities.shape == (3, 40, 56) for one in soft)
    for t, one in enumerate(soft):
        assert one.ids.tolist() == [0, 1, 9]
        np.testing.assert_allclose(one.probabilities.sum(axis=0), 1, atol=0.01)
        agrees = one.ids[one.probabilities.argmax(axis=0)] == one.mask
        assert agrees.mean() > (0.999 if t >= 4 else 0.98), "backwards they are kept in steps of 1/255"


def test_only_a_sequence_can_be_read_twice() -> None:
    with pytest.raises(UserError, match=r"direction is auto, but the frames are generator; expected a list"):
        segmenter().propagate((f for f in FRAMES), {4: TOY.masks[4]}, direction="auto")
    with pytest.raises(UserError, match=r"direction is up; expected forward or auto or both"):
        segmenter().propagate(FRAMES, {4: TOY.masks[4]}, direction="up")  # type: ignore[call-overload]
    first = np.stack(list(segmenter().propagate((f for f in FRAMES), TOY.masks[0], direction="auto")))
    np.testing.assert_array_equal(first, np.stack(list(segmenter().propagate(FRAMES, TOY.masks[0]))))


class Counted:
    """A clip that counts the frames that were read and the most that were alive."""

    def __init__(self) -> None:
        self.read: list[int] = []

    def frames(self, start: int = 0, stop: int | None = None) -> Iterator[NDArray[np.uint8]]:
        for i in range(start, 20 if stop is None else stop):
            self.read.append(i)
            yield np.full((2, 2, 3), i, np.uint8)


@pytest.mark.parametrize(("window", "reads"), [(1000, 13), (4, 13), (1, 13)])
def test_frames_come_backwards_in_windows(monkeypatch: pytest.MonkeyPatch, window: int, reads: int) -> None:
    monkeypatch.setattr(directions, "_WINDOW_BYTES", window * 12)
    clip = Counted()
    assert [int(f[0, 0, 0]) for f in frames_backward(clip, 15, 3)] == list(range(15, 2, -1))
    assert len(clip.read) == reads
    starts = clip.read[: window + 1]
    assert starts == [15, *range(max(3, 15 - window), 15)][: window + 1]


def test_what_waits_on_disk_goes_with_the_run(tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("store")
    probabilities = torch.rand(3, 4, 5, generator=torch.Generator().manual_seed(0)).softmax(dim=0)
    with ProbabilityStore(folder) as store:
        assert not store.filled and store.read(1) is None
        store.write(7, probabilities)
        assert len(list(folder.iterdir())) == 1
        found = store.read(7)
        assert found is not None and store.read(7) is None
        torch.testing.assert_close(found[0], probabilities, atol=0.01, rtol=0)
    assert not list(folder.iterdir())


def test_blending_by_hand() -> None:
    """Object 1 is given in 0 and 4, object 2 in 4 alone: in 1 the former counts by quarters, the latter backwards."""
    masks = {0: np.ones((1, 1), np.uint8), 4: np.array([[1, 2]], np.uint8)}
    with ProbabilityStore(None) as store:
        store.write(1, torch.tensor([0.0, 0.4, 0.6]).view(3, 1, 1))
        blend = Blend(Given(masks), "both", store, 0)
        forward = torch.tensor([0.2, 0.8, 0.0]).view(1, 3, 1, 1)
        torch.testing.assert_close(blend(1, forward).flatten(), torch.tensor([0.0, 0.7, 0.6]) / 1.3, atol=2e-3, rtol=0)
        torch.testing.assert_close(blend(2, forward), forward)
