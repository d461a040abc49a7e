"""MSRA10K: 10,000 images, each with one salient region in a binary mask."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pipeline.core.archives import Archive
from pipeline.core.errors import UserError
from pipeline.core.images import decode_silhouette, image_size
from pipeline.core.stills import Instances, StillSource
from pipeline.datasets.find_archives import open_published
from pipeline.datasets.still_pairs import read_image


class _Msra10k:
    name = "msra10k"

    def __init__(self, archive: Archive, members: dict[str, str]) -> None:
        self._archive, self._members = archive, members
        self.images = tuple(sorted(members))
        self.counts = {"images": len(members)}

    def image(self, image_id: str) -> NDArray[np.uint8]:
        """The image, turned as its mask was drawn; UserError if their sizes differ."""
        mask = self._archive.read(f"{self._members[image_id]}.png")
        size = image_size(mask, f"{self._archive.path}: {self._members[image_id]}.png")
        return read_image(self._archive, f"{self._members[image_id]}.jpg", size, "its mask")

    def instances(self, image_id: str) -> Instances:
        """The salient region: levels of at least 128; other forms of a binary mask as `decode_silhouette` reads them.

        The greys between come from smoothed drawing along the border. Cutting them at one half leaves the border
        within a pixel of where it was drawn, closer than a polygon's; so none of them becomes void.
        """
        member = f"{self._members[image_id]}.png"
        mask = decode_silhouette(self._archive.read(member), f"{self._archive.path}: {member}")
        found = mask[None] if mask.any() else np.zeros((0, *mask.shape), np.bool_)
        return Instances(found, np.zeros(mask.shape, np.bool_))


def open_msra10k(raw: Path) -> StillSource:
    """Open MSRA10K.

    Args:
        raw: a folder holding `MSRA10K_Imgs_GT.zip`, the archive, or an extracted folder.

    Raises:
        UserError: no image, or an image without mask or the other way round.
    """
    archive = open_published(raw, ["MSRA10K_Imgs_GT.zip"])
    names = archive.names()
    members = {name for name in names if "/Imgs/" in f"/{name}"} or {name for name in names if "/" not in name}
    images = {name.removesuffix(".jpg") for name in members if name.endswith(".jpg")}
    masks = {name.removesuffix(".png") for name in members if name.endswith(".png")}
    if not images:
        raise UserError(
            f"{archive.path} has no Imgs/<id>.jpg; expected the layout of MSRA10K_Imgs_GT.zip; check the path"
        )
    alone = sorted(images ^ masks)
    if alone:
        raise UserError(
            f"{archive.path}: {alone[0]} has only one of .jpg and .png ({len(alone)} such); expected both; check the "
            "archive"
        )
    return _Msra10k(archive, {stem.rsplit("/", 1)[-1]: stem for stem in images})
