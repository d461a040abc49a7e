"""Label maps at the video's own size, and the size at which the network works."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import cv2
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from pipeline.core.errors import UserError
from pipeline.inference.doubt import measure_doubt
from pipeline.inference.frames import Frame, shrink, working_size
from pipeline.inference.planes import label
from pipeline.inference.propagate import propagate
from tests.support.toy_inference import CONFIG, CPU, PLAIN, labels, make_network, video


def enlarged(image: NDArray[Any]) -> NDArray[Any]:
    """Each pixel four times in both directions."""
    return image.repeat(4, axis=0).repeat(4, axis=1)


@pytest.mark.parametrize("size", [(9, 13), (20, 29), (45, 13), (100, 131), (9, 14)])
def test_labels_are_those_of_interpolated_probabilities(size: tuple[int, int]) -> None:
    generator = torch.Generator().manual_seed(0)
    noise = F.avg_pool2d(torch.randn(1, 5, 13, 17, generator=generator), 5, 1)
    probabilities = (noise * 20).softmax(dim=1)[0]
    assert probabilities.shape == (5, 9, 13)
    expected = F.interpolate(probabilities[None], size=size, mode="bilinear", align_corners=False)[0].max(0).indices
    found = label(probabilities, size)
    assert (found == expected).float().mean() > 0.9995
    assert len(found.unique()) >= 4, "there must be borders to tell"


def test_labels_of_a_single_row_or_column() -> None:
    row = torch.tensor([[[0.9, 0.1]], [[0.1, 0.9]]])
    assert label(row, (3, 4)).tolist() == [[0, 0, 1, 1]] * 3
    assert label(row.transpose(1, 2), (4, 3)).T.tolist() == [[0, 0, 1, 1]] * 3


@pytest.mark.parametrize(
    ("height", "width", "short", "expected"),
    [
        (1080, 1920, 480, (480, 853)),
        (1920, 1080, 480, (853, 480)),
        (480, 854, 480, (480, 854)),
        (144, 256, 480, (144, 256)),
        (1080, 1920, 0, (1080, 1920)),
    ],
)
def test_working_size(height: int, width: int, short: int, expected: tuple[int, int]) -> None:
    assert working_size(height, width, short) == expected


def test_a_large_video_is_segmented_as_a_small_one() -> None:
    """Frames four times as large: the masks are those of the reduced video, enlarged, and given ones are exact."""
    frames, mask = video(5)
    large = [Frame(enlarged(f.rgb), None if f.depth is None else enlarged(f.depth)) for f in frames]
    given = enlarged(mask)
    given[0, 0] = 2  # a single pixel, far smaller than one of the network's
    network = make_network()
    found = labels(network, large, {0: given, 3: given}, short_side=40)
    small = labels(network, frames, {0: mask, 3: mask})
    assert found.shape == (5, 160, 224)
    np.testing.assert_array_equal(found[0], given)
    np.testing.assert_array_equal(found[3], given)
    expected = np.stack([enlarged(m) for m in small])
    assert (found == expected).mean() > 0.9
    square = np.ones((9, 9), np.uint8)
    inner = np.stack([cv2.erode(m, square) == cv2.dilate(m, square) for m in expected])
    assert (found == expected)[inner].mean() > 0.97 and inner.mean() > 0.2
    whole = labels(network, large, {0: given}, short_side=160)
    np.testing.assert_array_equal(whole, labels(network, large, {0: given}))


def test_depth_maps_may_be_reduced_already() -> None:
    frames, mask = video(3, 1, 80, 112)
    reduced = [Frame(f.rgb, None if f.depth is None else shrink(f.depth, (40, 56))) for f in frames]
    network, config = make_network(), replace(CONFIG, short_side=40)
    found, expected = (
        np.stack(list(propagate(network, given, {0: mask}, PLAIN, config, CPU))) for given in (reduced, frames)
    )
    np.testing.assert_array_equal(found, expected)
    with pytest.raises(UserError, match="short_side is -1"):
        replace(CONFIG, short_side=-1)


def test_doubt_by_hand() -> None:
    """Object 3: one sure pixel and one of 0.6; object 7: nowhere likely; object 9: impossible."""
    objects = torch.tensor([[[1.0, 0.6, 0.0]], [[0.0, 0.1, 0.4]], [[0.0, 0.0, 0.0]]])
    probabilities = torch.cat([1 - objects.sum(0, keepdim=True), objects])
    three, seven, nine = measure_doubt(probabilities, [3, 7, 9])
    assert [three.object, seven.object, nine.object] == [3, 7, 9]
    assert [three.confidence, seven.confidence, nine.confidence] == pytest.approx([0.8, 0, 0])
    assert [three.doubt, seven.doubt, nine.doubt] == pytest.approx([0.4 / 1.6, 0.5, 0])


def test_doubt_between_certain_and_even() -> None:
    sure = torch.zeros(2, 4, 4)
    sure[1, :2], sure[0, 2:] = 1, 1
    assert measure_doubt(sure, [1])[0].doubt == 0
    assert measure_doubt(torch.full((2, 4, 4), 0.5), [1])[0].doubt == 1
