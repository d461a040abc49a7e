"""J: the intersection of two masks over their union."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from pipeline.scoring.packed_masks import Bits, count, pack_object, pad_to_words


def jaccard(annotation: NDArray[np.bool_], result: NDArray[np.bool_]) -> float:
    """Intersection over union of two masks, bool H,W, in [0, 1]; 1 if both are empty."""
    pads = (pad_to_words(mask.astype(bool).astype(np.uint8)) for mask in (annotation, result))
    first, second = (pack_object(padded, 1) for padded in pads)
    return jaccard_of_bits(first, second)


def jaccard_of_bits(annotation: Bits, result: Bits) -> float:
    """Intersection over union of masks packed by `pack_object`, uint64 H,words."""
    union = count(annotation | result)
    return count(annotation & result) / union if union else 1.0
