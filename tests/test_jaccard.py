from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from pipeline.scoring.packed_masks import count, pack_object, pad_to_words
from pipeline.scoring.statistics import frame_statistics, mean_statistics
from tests.support.whole_masks import jaccard


def mask(rows: list[str]) -> NDArray[np.bool_]:
    return np.array([[c == "#" for c in row] for row in rows])


def test_by_hand() -> None:
    a = mask(["##..", "##..", "...."])
    b = mask([".##.", ".##.", "...."])
    assert jaccard(a, b) == 2 / 6
    assert jaccard(a, a) == 1
    assert jaccard(a, ~a) == 0


def test_empty() -> None:
    nothing, something = np.zeros((3, 5), bool), mask([".....", "..#..", "....."])
    assert jaccard(nothing, nothing) == 1
    assert jaccard(nothing, something) == jaccard(something, nothing) == 0


@settings(max_examples=20, deadline=None)
@given(st.data())
def test_equals_counting(data: st.DataObject) -> None:
    shape = data.draw(st.tuples(st.integers(1, 9), st.integers(1, 140)))
    a, b = (data.draw(arrays(bool, shape)) for _ in range(2))
    pixels = a.tolist(), b.tolist()
    both = either = 0
    for y in range(shape[0]):
        for x in range(shape[1]):
            both += pixels[0][y][x] and pixels[1][y][x]
            either += pixels[0][y][x] or pixels[1][y][x]
    assert jaccard(a, b) == (both / either if either else 1)
    assert jaccard(a, b) == jaccard(b, a) == jaccard(a[:, ::-1], b[:, ::-1])


def test_objects_are_packed_apart() -> None:
    ids = np.zeros((2, 130), np.uint8)
    ids[0, :70], ids[1, 60:], ids[0, 129] = 1, 2, 255
    padded = pad_to_words(ids)
    assert padded.shape == (2, 192)
    assert [count(pack_object(padded, i)) for i in (1, 2, 3, 255)] == [70, 70, 0, 1]


def test_statistics_by_hand() -> None:
    values = [1.0, 0.8, 0.5, 0.4, 0.6, 0.2, 0.0, 0.1]
    figures = frame_statistics(values)
    # ends 1, 2.75, 4.5, 6.25, 8 round to frames 1, 3, 5, 6, 8 (the half goes up)
    assert figures.mean == pytest.approx(3.6 / 8)
    assert figures.recall == 3 / 8  # 0.5 itself is not above 0.5
    assert figures.decay == pytest.approx((1.0 + 0.8 + 0.5) / 3 - (0.2 + 0.0 + 0.1) / 3)


def test_statistics_of_few_frames() -> None:
    one, two = frame_statistics([0.7]), frame_statistics([0.9, 0.2])
    assert (one.mean, one.recall, one.decay) == (0.7, 1, 0)
    assert two.decay == pytest.approx(0.7)
    with pytest.raises(ValueError):
        frame_statistics([])


def test_mean_of_statistics() -> None:
    mean = mean_statistics([frame_statistics([1.0, 0.0]), frame_statistics([0.6, 0.6])])
    assert (mean.mean, mean.recall, mean.decay) == pytest.approx((0.55, 0.75, 0.5))
    with pytest.raises(ValueError):
        mean_statistics([])
