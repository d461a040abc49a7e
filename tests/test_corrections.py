"""What a user states about later frames: corrected masks, void, objects that have left."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from pipeline.core.errors import UserError
from pipeline.footage.departures import parse_gone
from pipeline.inference.frames import Known
from pipeline.inference.given import Given
from pipeline.inference.planes import correct
from pipeline.inference.propagate import Pass, propagate
from tests.support.toy_inference import CONFIG, CPU, PLAIN, TTA, Mask, make_network, naive, video

network = lru_cache(make_network)


def box(top: int, left: int, height: int, width: int, number: int, into: Mask | None = None) -> Mask:
    """A mask of 40x56 with a rectangle of an object."""
    mask = np.zeros((40, 56), np.uint8) if into is None else into.copy()
    mask[top : top + height, left : left + width] = number
    return mask


def found(masks: dict[int, Mask], gone: dict[int, list[int]] | None = None, **changes: Any) -> NDArray[np.uint8]:
    frames, _ = video(8)
    switches = TTA if changes.pop("tta", False) else PLAIN
    config = CONFIG.__class__(**{**CONFIG.__dict__, **changes})
    return np.stack(list(propagate(network(), frames, masks, switches, config, CPU, gone=gone)))


@pytest.mark.parametrize("how", [{}, {"tta": True}, {"tta": True, "tta_memory": "averaged"}])
def test_a_corrected_object_is_exactly_where_it_is_given(how: dict[str, Any]) -> None:
    """Smaller and elsewhere; the other object keeps every pixel that the correction does not take."""
    first = video(8)[1]
    before, small = found({0: first}, **how), box(30, 4, 5, 6, 1)
    after = found({0: first, 4: small}, **how)
    np.testing.assert_array_equal(after[:4], before[:4])
    assert (before[4] == 1).sum() > 30 and (before[4] == 2).sum() > 30, "the toy must be lively to tell"
    np.testing.assert_array_equal(after[4] == 1, small == 1)
    np.testing.assert_array_equal(after[4] == 2, (before[4] == 2) & (small == 0))
    assert (after[5:] != before[5:]).any()


def test_the_memory_holds_the_corrected_frame() -> None:
    """Against the plain twin, which follows the rule pixel by pixel."""
    frames, first = video(8)
    masks = {0: first, 4: box(30, 4, 5, 6, 1, box(2, 30, 9, 9, 2))}

    def kept(t: int) -> list[int]:
        return sorted({i for i in range(t) if i % 3 == 0} | {t - 1} | ({4} if t > 4 else set()))

    expected = naive(network(), frames, masks, 2, kept, [(1.0, False)])
    np.testing.assert_array_equal(expected[4], masks[4])
    assert (found(masks) == expected).mean() > 0.999


def test_known_masks_rebuild_the_memory() -> None:
    """A pass whose first five masks exist: against the plain twin, which remembers those masks as they are."""
    frames, first = video(8)
    given = {0: first}
    whole = found(given)
    known = Known(5, lambda index: whole[index])
    continued = Pass(network(), Given(given), PLAIN, CONFIG, CPU, known=known).run(frames)
    masks = {t: whole[t] for t in range(5)}
    assert all({1, 2} <= set(np.unique(mask)) for mask in masks.values()), "each mask must state all objects"
    expected = naive(
        network(), frames, masks, 2, lambda t: sorted({i for i in range(t) if i % 3 == 0} | {t - 1}), [(1.0, False)]
    )
    result = np.stack([one.mask for one in continued])
    np.testing.assert_array_equal(result[:5], whole[:5])
    assert (result == expected).mean() > 0.999
    assert (result[5:] != whole[5:]).any(), "probabilities are remembered better than masks"


def test_void_keeps_the_estimate() -> None:
    first = video(8)[1]
    before, marked = found({0: first}), box(30, 4, 5, 6, 1)
    marked[:, 20:] = 255
    after = found({0: first, 4: marked})[4]
    np.testing.assert_array_equal(after[:, 20:], before[4][:, 20:])
    np.testing.assert_array_equal(after[:, :20] == 1, marked[:, :20] == 1)
    assert (before[4][:, 20:] == 1).any()


def test_an_object_that_has_left_and_one_that_comes_back() -> None:
    first = video(8)[1]
    before, back = found({0: first}), box(5, 5, 8, 8, 2)
    after = found({0: first, 6: back}, {3: [2]})
    np.testing.assert_array_equal(after[:3], before[:3])
    assert (before[3:6] == 2).any() and not (after[3:6] == 2).any()
    np.testing.assert_array_equal(after[3] == 1, before[3] == 1)
    np.testing.assert_array_equal(after[6] == 2, back == 2)
    assert (after[7] == 2).any()
    everything = found({0: first}, {3: [1, 2]})
    np.testing.assert_array_equal(everything[:3], before[:3])
    assert not everything[3:].any()


def test_pixels_of_a_removed_object_become_background() -> None:
    """Also where the next likeliest is another object, which the removed one had outweighed with the background."""
    estimate = torch.tensor([[0.001, 0.989, 0.010], [0.3, 0.2, 0.5], [0.4, 0.35, 0.25]]).T[None, :, None]  # 1,3,1,3
    absent = torch.tensor([0.0, 1.0, 0.0])[None, :, None, None].expand(1, 3, 1, 3)
    result = correct(estimate, torch.zeros(1, 3, 1, 3), absent)[0, :, 0].T
    assert result.argmax(dim=1).tolist() == [0, 2, 0]
    torch.testing.assert_close(result.sum(dim=1), torch.ones(3))
    assert (result[:, 1] == 0).all()
    torch.testing.assert_close(result[1], torch.tensor([0.375, 0.0, 0.625]))


@pytest.mark.parametrize(
    ("gone", "message"),
    [
        ({3: [7]}, r"object 7 is stated to be gone from frame 3 on; expected .* \(1, 2\)"),
        ({0: [1]}, "object 1 .* frame 0 on, and the mask of that frame shows it"),
        ({9: [1]}, "gone for frame 9, but the video has 8 frames"),
    ],
)
def test_unfit_statements(gone: dict[int, list[int]], message: str) -> None:
    with pytest.raises(UserError, match=message):
        found({0: video(8)[1]}, gone)


def test_gone_on_the_command_line() -> None:
    assert parse_gone(["40:2", "7:1,3", "40:5"]) == {40: [2, 5], 7: [1, 3]}
    for bad in ("40", "40:", "a:1", "40:0", "40:255", "-1:2", "40:1,"):
        with pytest.raises(UserError, match=r"expected a frame counted from 0 and ids from 1 to 254"):
            parse_gone([bad])


def test_weights_of_the_directions() -> None:
    """By hand: object 1 is given in 2 and 6, object 5 in 6 alone and has left from 8 on, object 9 returns in 12."""
    one, five, nine = (np.full((2, 2), i, np.uint8) for i in (1, 5, 9))
    six = np.array([[1, 1], [5, 5]], np.uint8)
    given = Given({2: one, 6: six, 4: nine, 12: nine}, {8: [5], 10: [9]})
    expected = {  # frame: forward and backward of objects 1, 5, 9
        0: ((0, 0, 0), (1, 1, 1)),
        2: ((1, 0, 0), (0, 1, 1)),
        3: ((0.75, 0, 0), (0.25, 1, 1)),
        6: ((1, 1, 1), (0, 0, 0)),
        7: ((1, 1, 1), (0, 0, 0)),
        8: ((1, 0, 1), (0, 0, 0)),
        10: ((1, 0, 0), (0, 0, 0)),
        11: ((1, 0, 0), (0, 0, 0)),
        12: ((1, 0, 1), (0, 0, 0)),
        20: ((1, 0, 1), (0, 0, 0)),
    }
    for index, (forward, backward) in expected.items():
        found_forward, found_backward = given.weights(index, "both")
        assert (found_forward.tolist(), found_backward.tolist()) == (list(forward), list(backward)), index
    assert given.weights(1, "auto")[1].tolist() == [1, 1, 1]
    assert given.weights(3, "auto")[1].tolist() == [0, 0, 0]
    assert given.weights(1, "forward")[1].tolist() == [0, 0, 0]
    assert given.weights(5, "both")[1].tolist() == [0.75, 1, 0]
    assert (given.first, given.last) == (2, 12)
    assert not np.array(given.weights(15, "both")[1]).any()


def test_statements_seen_backwards() -> None:
    nine, two = np.full((2, 2), 9, np.uint8), np.full((2, 2), 2, np.uint8)
    given = Given({1: nine, 12: nine, 20: two}, {5: [9], 14: [9]}).backward(12)
    assert given.ids.tolist() == [0, 2, 9]
    assert given.frames == (0, 1, 11)  # 12, 11 (the last one without object 9), 1
    statement = given.at(1)
    assert statement is not None and statement.mask is None and statement.gone.tolist() == [False, True]
