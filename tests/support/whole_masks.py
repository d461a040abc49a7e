"""J and F of two masks as arrays, by way of the packed masks that scoring works on."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from pipeline.scoring.boundary import boundary_f_of_bits, boundary_radius
from pipeline.scoring.jaccard import jaccard_of_bits
from pipeline.scoring.packed_masks import Bits, pack_object, pad_to_words


def packed(mask: NDArray[np.bool_]) -> Bits:
    return pack_object(pad_to_words(mask.astype(bool).astype(np.uint8)), 1)


def jaccard(annotation: NDArray[np.bool_], result: NDArray[np.bool_]) -> float:
    return jaccard_of_bits(packed(annotation), packed(result))


def boundary_f(annotation: NDArray[np.bool_], result: NDArray[np.bool_]) -> float:
    height, width = annotation.shape
    return boundary_f_of_bits(packed(annotation), packed(result), width, boundary_radius(height, width))
