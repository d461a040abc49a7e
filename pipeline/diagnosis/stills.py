"""Faults of a set of still images: unreadable or unequal pairs, images without an object."""

from __future__ import annotations

from pipeline.core.errors import UserError
from pipeline.core.stills import StillSource
from pipeline.diagnosis.findings import Diagnosis
from pipeline.diagnosis.videos import Fault, in_threads, spread


def examine_stills(source: StillSource, limit: int | None, diagnosis: Diagnosis) -> None:
    """Look at images and their instances.

    Args:
        source: the data set.
        limit: largest number of images looked at, evenly spread; None: all.
        diagnosis: extended.
    """
    for what, n in source.counts.items():
        diagnosis.count(what.replace("_", " "), n)
    chosen = spread(source.images, limit)
    diagnosis.count("images looked at", len(chosen))

    def look(image: str) -> Fault | None:
        try:
            masks = source.instances(image).masks
            source.image(image)
        except UserError as error:
            return "error", "unusable image or mask", str(error)
        return None if len(masks) else ("warning", "image without an object", image)

    for fault in in_threads(look, chosen, f"images of {source.name}"):
        if fault is not None:
            diagnosis.add(*fault)
