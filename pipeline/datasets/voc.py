"""Pascal VOC 2012: images with instance masks that have void borders."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pipeline.core.archives import Archive
from pipeline.core.errors import UserError
from pipeline.core.images import VOID, decode_mask, image_size, object_ids
from pipeline.core.stills import Instances, StillSource
from pipeline.datasets.find_archives import find_root, open_published, read_names
from pipeline.datasets.still_pairs import read_image

_LIST = "ImageSets/Segmentation/trainval.txt"  # 2,913 images, including val: nothing is evaluated on VOC


class _Voc:
    name = "voc"

    def __init__(self, archive: Archive, root: str, images: tuple[str, ...]) -> None:
        self._archive, self._root = archive, root
        self.images = images
        self.counts = {"images": len(images)}

    def image(self, image_id: str) -> NDArray[np.uint8]:
        """The image, turned as its mask was drawn; UserError if their sizes differ."""
        mask = f"{self._root}SegmentationObject/{image_id}.png"
        size = image_size(self._archive.read(mask), f"{self._archive.path}: {mask}")
        return read_image(self._archive, f"{self._root}JPEGImages/{image_id}.jpg", size, "its mask")

    def instances(self, image_id: str) -> Instances:
        """Objects by the ids of `SegmentationObject`; 255 (borders, unclear regions) is void."""
        member = f"{self._root}SegmentationObject/{image_id}.png"
        mask = decode_mask(self._archive.read(member), f"{self._archive.path}: {member}")
        ids = np.array(object_ids(mask), np.uint8)
        return Instances(mask[None] == ids[:, None, None], mask == VOID)


def open_voc(raw: Path) -> StillSource:
    """Open the images of Pascal VOC 2012 that have instance masks (train and val).

    Args:
        raw: a folder holding `VOCtrainval_11-May-2012.tar`, the archive, or an extracted folder.

    Raises:
        UserError: no list of images, an empty one, or an image or mask missing.
    """
    archive = open_published(raw, ["VOCtrainval_11-May-2012.tar"])
    root = find_root(archive, _LIST)
    images = tuple(sorted(read_names(archive, root + _LIST)))
    for image in images:
        for member in (f"{root}JPEGImages/{image}.jpg", f"{root}SegmentationObject/{image}.png"):
            if not archive.has(member):
                raise UserError(f"{archive.path} has no {member}; {root}{_LIST} names {image}; check the archive")
    return _Voc(archive, root, images)
