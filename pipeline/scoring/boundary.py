"""F: the F-measure of boundaries that match within a small disk, in integer arithmetic.

Follows DAVIS' definition (Perazzi et al., CVPR 2016, after Martin et al.): a pixel is on the boundary if it differs
from its right, lower or lower right neighbour; a boundary pixel is matched if the other mask has one at most
`ceil(0.008 * diagonal)` pixels away, centre to centre. Boundaries are dilated by the disk by shifting whole rows of
bits, inside the rectangle that contains both masks.
"""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np

from pipeline.scoring.packed_masks import Bits, count, crop_to_objects, from_left, from_right

TOLERANCE = 0.008  # of the image's diagonal


def boundary_radius(height: int, width: int) -> int:
    """Pixels within which boundaries match."""
    return int(np.ceil(TOLERANCE * np.linalg.norm((height, width))))


def boundary_f_of_bits(annotation: Bits, result: Bits, width: int, radius: int) -> float:
    """Boundary F-measure of masks packed by `pack_object`, in [0, 1].

    1 if neither mask has a boundary, 0 if only one has.

    Args:
        annotation: uint64 H,words.
        result: uint64 H,words.
        width: columns of the image.
        radius: pixels within which boundaries match.
    """
    parts = crop_to_objects(result, annotation, width, padding=radius)
    if parts is None:
        return 1.0
    boundaries = _boundaries(*parts)
    n_result, n_annotation = count(boundaries[0]), count(boundaries[1])
    if not n_result or not n_annotation:
        return float(n_result == n_annotation)
    reach = _dilate(boundaries, radius)
    precision = count(boundaries[0] & reach[1]) / n_result
    recall = count(boundaries[1] & reach[0]) / n_annotation
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


def _boundaries(masks: Bits, has_right: Bits) -> Bits:
    """Boundary pixels of cut-out masks, uint64 2,h,w.

    In the image's last row only the right-hand neighbour counts, in its last column only the lower one. A cut-out ends
    at the image's edge or with an empty row.
    """
    right, edges = np.empty_like(masks), np.empty_like(masks)
    from_right(masks, out=right, carry=edges)
    np.bitwise_xor(masks, right, out=edges)
    edges[:, :-1] |= masks[:, :-1] ^ right[:, 1:]
    edges &= has_right
    edges[:, :-1] |= masks[:, :-1] ^ masks[:, 1:]
    return edges


@lru_cache(maxsize=64)
def _rows_by_reach(radius: int) -> tuple[tuple[int, ...], ...]:
    """At index `x`: the rows of a disk, as distances from its middle, that reach exactly `x` columns to each side."""
    reach = [math.isqrt(radius * radius - y * y) for y in range(radius + 1)]
    return tuple(tuple(y for y in range(radius + 1) if reach[y] == x) for x in range(radius + 1))


def _dilate(bits: Bits, radius: int) -> Bits:
    """All pixels within `radius` of a set pixel, for cut-outs (uint64 2,h,w) padded by `radius` columns."""
    height = bits.shape[1]
    wide, out = bits.copy(), np.zeros_like(bits)
    side, other, carry = np.empty_like(bits), np.empty_like(bits), np.empty_like(bits)
    for reach, rows in enumerate(_rows_by_reach(radius)):
        if reach:  # every run of pixels grows by one pixel on both sides
            from_left(wide, out=side, carry=carry)
            from_right(wide, out=other, carry=carry)
            wide |= side
            wide |= other
        for y in rows:
            if y == 0:
                out |= wide
            elif y < height:
                out[:, y:] |= wide[:, :-y]
                out[:, :-y] |= wide[:, y:]
    return out
