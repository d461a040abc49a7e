"""Object masks packed into bits, 64 pixels per word: an AND, a shift or a count takes microseconds per frame.

Bit `j` of word `w` of a row is the pixel of column `64 * w + j`, so `bits >> 1` moves every pixel one column to the
left. A cut-out has zero words on its right, so that shifted pixels do not run into the next row.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Bits = NDArray[np.uint64]

WORD = 64
_ONE, _LAST = np.uint64(1), np.uint64(WORD - 1)


def pad_to_words(ids: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Append columns of background until the width is a multiple of 64: uint8 H,W to H,64*words, contiguous."""
    height, width = ids.shape
    padded = np.zeros((height, -(-width // WORD) * WORD), np.uint8)
    padded[:, :width] = ids
    return padded


def pack_object(padded: NDArray[np.uint8], object_id: int) -> Bits:
    """The pixels of one object as bits.

    Args:
        padded: uint8 H,64*words ids, from `pad_to_words`.
        object_id: the id to pick.

    Returns:
        uint64 H,words.
    """
    return np.packbits(padded == object_id, bitorder="little").view("<u8").reshape(padded.shape[0], -1)


def count(bits: Bits) -> int:
    """Number of pixels set."""
    return int(np.bitwise_count(bits).sum(dtype=np.int64))


def column_bits(columns: int, words: int) -> Bits:
    """A row, uint64 words, whose first `columns` pixels are set."""
    row = np.zeros(words * WORD, np.uint8)
    row[:columns] = 1
    return pack_object(row[None], 1)[0]


def crop_to_objects(first: Bits, second: Bits, width: int, padding: int) -> tuple[Bits, Bits] | None:
    """Cut out the part of two masks that contains all of their pixels and boundaries.

    Args:
        first: uint64 H,words.
        second: uint64 H,words.
        width: columns of the image.
        padding: number of columns by which a later shift may move a pixel.

    Returns:
        The cut-outs, uint64 2,h,w, with a margin of one row and one word if the image continues there, then words of
        padding; and, as uint64 w, the columns that have a right-hand neighbour in the image. None if both masks are
        empty.
    """
    either = first | second
    rows, words = np.flatnonzero(either.any(1)), np.flatnonzero(either.any(0))
    if not len(rows):
        return None
    # boundaries are up to one pixel above and left of the objects; the empty row below marks the objects' end
    top, bottom = max(int(rows[0]) - 1, 0), min(int(rows[-1]) + 2, first.shape[0])
    left, right = max(int(words[0]) - 1, 0), int(words[-1]) + 1
    n_words = right - left
    both = np.zeros((2, bottom - top, n_words + -(-padding // WORD)), np.uint64)
    both[0, :, :n_words] = first[top:bottom, left:right]
    both[1, :, :n_words] = second[top:bottom, left:right]
    has_right = np.zeros(both.shape[2], np.uint64)
    has_right[:n_words] = column_bits(width - 1, first.shape[1])[left:right]
    return both, has_right


def from_right(bits: Bits, out: Bits, carry: Bits) -> None:
    """Each pixel of `out` becomes its right-hand neighbour in `bits`; all three contiguous and of one shape."""
    np.right_shift(bits, _ONE, out=out)
    flat = carry.reshape(-1)[:-1]
    np.left_shift(bits.reshape(-1)[1:], _LAST, out=flat)
    out.reshape(-1)[:-1] |= flat


def from_left(bits: Bits, out: Bits, carry: Bits) -> None:
    """Each pixel of `out` becomes its left-hand neighbour in `bits`; all three contiguous and of one shape."""
    np.left_shift(bits, _ONE, out=out)
    flat = carry.reshape(-1)[:-1]
    np.right_shift(bits.reshape(-1)[:-1], _LAST, out=flat)
    out.reshape(-1)[1:] |= flat
