"""J: the intersection of two masks over their union."""

from __future__ import annotations

from pipeline.scoring.packed_masks import Bits, count


def jaccard_of_bits(annotation: Bits, result: Bits) -> float:
    """Intersection over union of masks packed by `pack_object`, uint64 H,words, in [0, 1]; 1 where both are empty."""
    union = count(annotation | result)
    return count(annotation & result) / union if union else 1.0
