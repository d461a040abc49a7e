from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from pipeline.scoring.boundary import boundary_f_of_bits, boundary_radius
from pipeline.scoring.packed_masks import pack_object, pad_to_words
from tests.support.whole_masks import boundary_f

Mask = NDArray[np.bool_]


def naive_boundary(mask: Mask) -> list[tuple[int, int]]:
    """Pixels that differ from their right, lower or lower right neighbour, as far as these exist."""
    height, width = mask.shape
    pixels = mask.tolist()
    found = []
    for y in range(height):
        for x in range(width):
            neighbours = []
            if x + 1 < width:
                neighbours.append(pixels[y][x + 1])
            if y + 1 < height:
                neighbours.append(pixels[y + 1][x])
            if x + 1 < width and y + 1 < height:
                neighbours.append(pixels[y + 1][x + 1])
            if any(n != pixels[y][x] for n in neighbours):
                found.append((y, x))
    return found


def naive_f(annotation: Mask, result: Mask, radius: int) -> float:
    truth, guess = naive_boundary(annotation), naive_boundary(result)
    if not truth and not guess:
        return 1
    if not truth or not guess:
        return 0

    def near(p: tuple[int, int], others: list[tuple[int, int]]) -> bool:
        return any((p[0] - q[0]) ** 2 + (p[1] - q[1]) ** 2 <= radius**2 for q in others)

    precision = sum(near(p, truth) for p in guess) / len(guess)
    recall = sum(near(p, guess) for p in truth) / len(truth)
    return 2 * precision * recall / (precision + recall) if precision + recall else 0


def f_at(annotation: Mask, result: Mask, radius: int) -> float:
    bits = [pack_object(pad_to_words(mask.astype(np.uint8)), 1) for mask in (annotation, result)]
    return boundary_f_of_bits(bits[0], bits[1], annotation.shape[1], radius)


def test_radius() -> None:
    assert boundary_radius(480, 854) == 8  # 0.008 * 979.7 = 7.84
    assert boundary_radius(480, 1152) == 10
    assert boundary_radius(1, 1) == 1
    assert boundary_radius(300, 400) == math.ceil(0.008 * 500)


def test_by_hand() -> None:
    truth, guess = np.zeros((5, 8), bool), np.zeros((5, 8), bool)
    truth[1:3, 1:3] = True
    guess[1:3, 3:5] = True
    # the boundary of a 2x2 square at (1, 1) is the 3x3 block from (0, 0) without its middle; here columns 0-2 and 2-4:
    # three pixels coincide, and of the next column two lie one pixel off
    assert f_at(truth, guess, 1) == pytest.approx(5 / 8)
    assert f_at(truth, guess, 2) == 1


def test_nothing_to_match() -> None:
    nothing, full, some = np.zeros((6, 9), bool), np.ones((6, 9), bool), np.zeros((6, 9), bool)
    some[2:4, 3:5] = True
    assert boundary_f(nothing, nothing) == 1
    assert boundary_f(full, nothing) == 1  # neither has a boundary inside the image
    assert boundary_f(some, nothing) == boundary_f(nothing, some) == boundary_f(some, full) == 0
    assert boundary_f(some, some) == 1


def test_one_pixel_at_every_place() -> None:
    for y in range(4):
        for x in (0, 1, 62, 63, 64, 65, 127, 128):
            mask, other = np.zeros((4, 129), bool), np.zeros((4, 129), bool)
            mask[y, x] = True
            other[3 - y, 128 - x] = True
            for radius in (1, 3):
                assert f_at(mask, other, radius) == naive_f(mask, other, radius)


@settings(max_examples=25, deadline=None)
@given(st.data())
def test_equals_the_definition(data: st.DataObject) -> None:
    shape = data.draw(st.tuples(st.integers(1, 12), st.integers(1, 14)))
    annotation, result = (data.draw(arrays(bool, shape)) for _ in range(2))
    radius = data.draw(st.integers(1, 6))
    assert f_at(annotation, result, radius) == naive_f(annotation, result, radius)
    assert boundary_f(annotation, result) == naive_f(annotation, result, boundary_radius(*shape))


@pytest.mark.parametrize("radius", [1, 2, 5, 8, 10, 63, 64, 65, 130])
def test_equals_the_definition_across_words(radius: int) -> None:
    rng = np.random.default_rng(radius)
    for width in (64, 150, 200):
        annotation, result = np.zeros((9, width), bool), np.zeros((9, width), bool)
        for mask in (annotation, result):
            for _ in range(3):
                top, left = rng.integers(0, 9), rng.integers(0, width)
                mask[top : top + rng.integers(1, 4), left : left + rng.integers(1, 30)] = True
        assert f_at(annotation, result, radius) == naive_f(annotation, result, radius)


def test_symmetric_and_unmoved_by_shifts() -> None:
    rng = np.random.default_rng(3)
    small = rng.random((2, 20, 30)) > 0.6
    placed = []
    for left in (5, 40, 60):
        canvas = np.zeros((2, 40, 140), bool)
        canvas[:, 8:28, left : left + 30] = small
        placed.append(boundary_f(canvas[0], canvas[1]))
        assert boundary_f(canvas[1], canvas[0]) == pytest.approx(placed[-1], abs=1e-15)
    assert placed[0] == placed[1] == placed[2]
