"""COCO's segmentations: polygons and run lengths, checked and drawn as masks."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

MIN_POLYGON = 6  # coordinates of a triangle


def find_fault(segmentation: Any, height: int, width: int) -> str | None:
    """Why a segmentation cannot be drawn; None if it can.

    Args:
        segmentation: polygons (a list of lists of x, y, x, y, ...), or `{"size": [H, W], "counts": ...}` whose counts
            are a list or COCO's compressed string.
        height: rows of the image.
        width: columns of the image.
    """
    try:
        if isinstance(segmentation, list):
            return _polygon_fault(segmentation, height, width)
        if not isinstance(segmentation, dict):
            return f"it is a {type(segmentation).__name__}, neither polygons nor run lengths"
        _read_runs(segmentation, height, width)
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError) as error:
        return f"no {error} in it" if isinstance(error, KeyError) else str(error)
    return None


def compact(segmentation: Any) -> Any:
    """The same segmentation in a tenth of the memory; COCO has 43 million coordinates.

    A polygon becomes bytes: int32 hundredths, the precision in which COCO is written; or a float64 array, if hundredths
    are not exactly the same numbers. Run lengths become an array, or stay a compressed string.

    Args:
        segmentation: one for which `find_fault` returns None.
    """
    if isinstance(segmentation, list):
        return [_compact_polygon(polygon) for polygon in segmentation]
    counts = segmentation["counts"]
    if isinstance(counts, list):
        counts = np.array(counts, np.uint32)
    return {"size": tuple(segmentation["size"]), "counts": counts}


def _compact_polygon(polygon: list[float]) -> bytes | NDArray[np.float64]:
    exact = np.array(polygon, np.float64)
    hundredths = np.rint(exact * 100)
    if np.abs(hundredths).max() < 2**31 and (hundredths / 100 == exact).all():
        return hundredths.astype("<i4").tobytes()
    return exact


def _points(polygon: bytes | list[float] | NDArray[np.float64]) -> list[float] | NDArray[np.float64]:
    return np.frombuffer(polygon, "<i4") / 100 if isinstance(polygon, bytes) else polygon


def draw(segmentation: Any, height: int, width: int) -> NDArray[np.bool_]:
    """The mask of a segmentation for which `find_fault` returns None, or of its compact form, bool H,W.

    Run lengths alternate between background and object, column by column, and start with background. The last run of
    background may be missing, as some programs omit it.
    """
    if isinstance(segmentation, list):
        from pycocotools import mask as coco_mask  # here, because stages that draw nothing do not need it

        parts = coco_mask.frPyObjects([_points(polygon) for polygon in segmentation], height, width)
        return np.asarray(coco_mask.decode(coco_mask.merge(parts)), np.bool_)
    runs = _read_runs(segmentation, height, width)
    values = np.arange(len(runs)) % 2 == 1
    return np.repeat(values, runs).reshape(width, height).T


def _polygon_fault(polygons: list[list[float]], height: int, width: int) -> str | None:
    reach = max(height, width)  # far outside the image pycocotools runs out of memory or crashes
    for polygon in polygons:
        if len(polygon) % 2:
            return f"a polygon has {len(polygon)} coordinates, an odd number"
        if not math.isfinite(sum(polygon)):
            return "a polygon has coordinates that are not finite numbers"
        if min(polygon) < -reach or max(polygon) > 2 * reach:
            worst = max(polygon, key=abs)
            return f"a polygon has the coordinate {worst:g}, far outside the image of {width}x{height}"
    return None


def _read_runs(segmentation: dict[str, Any], height: int, width: int) -> NDArray[np.int64]:
    """Run lengths that cover the image, int64 N.

    Raises:
        ValueError: another size than the image's, or runs that do not cover it.
    """
    if list(segmentation["size"]) != [height, width]:
        raise ValueError(f"its size is {segmentation['size']}, the image's [{height}, {width}]")
    counts = segmentation["counts"]
    runs = _decompress(counts) if isinstance(counts, str | bytes) else np.array(counts)
    if runs.ndim != 1 or runs.dtype.kind not in "iu" or (runs < 0).any():
        raise ValueError("its run lengths are not a list of integers from 0 on")
    missing = height * width - int(np.minimum(runs, height * width + 1).sum())
    if missing < 0 or (missing and len(runs) % 2):
        raise ValueError(f"its run lengths add up to {height * width - missing} pixels, not {width}x{height}")
    return np.append(runs, missing).astype(np.int64)


def _decompress(counts: str | bytes) -> NDArray[np.int64]:
    """Run lengths of COCO's compressed string.

    Each number is written in groups of 5 bits, lowest first, a character (from 48 on) for each group; bit 5 says that
    another group follows, bit 4 of the last group is the sign. From the fourth number on, numbers are differences to
    the one two before.
    """
    text = np.frombuffer(counts.encode() if isinstance(counts, str) else counts, np.uint8).astype(np.int64) - 48
    ends = np.flatnonzero((text & 0x20) == 0)
    if ((text < 0) | (text > 63)).any() or not len(text) or ends[-1:].tolist() != [len(text) - 1]:
        raise ValueError("its compressed run lengths are damaged")
    starts = np.concatenate([[0], ends[:-1] + 1])
    if (ends - starts).max() > 6:
        raise ValueError("its compressed run lengths are damaged")
    place = np.arange(len(text)) - np.repeat(starts, ends - starts + 1)
    numbers = np.add.reduceat((text & 0x1F) << (5 * place), starts)
    numbers -= np.where(text[ends] & 0x10, np.int64(1) << (5 * (ends - starts + 1)), 0)
    runs = numbers.copy()
    runs[1::2] = np.cumsum(numbers[1::2])  # 2nd, 4th, ...: all are differences
    runs[2::2] = np.cumsum(numbers[2::2])  # 3rd, 5th, ...: the first number is not added
    return runs
