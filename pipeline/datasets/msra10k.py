"""MSRA10K: 10,000 images, each with one salient region in a binary mask."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pipeline.core.archives import Archive
from pipeline.core.errors import UserError
from pipeline.core.images import decode_mask, decode_rgb
from pipeline.core.stills import Instances, StillSource
from pipeline.datasets.find_archives import open_published

_HALF = 128


class _Msra10k:
    name = "msra10k"

    def __init__(self, archive: Archive, members: dict[str, str]) -> None:
        self._archive, self._members = archive, members
        self.images = tuple(sorted(members))
        self.counts = {"images": len(members)}

    def image(self, image_id: str) -> NDArray[np.uint8]:
        member = f"{self._members[image_id]}.jpg"
        return decode_rgb(self._archive.read(member), f"{self._archive.path}: {member}")

    def instances(self, image_id: str) -> Instances:
        """The salient region: levels of at least 128.

        The greys between come from smoothed drawing along the border. Cutting them at one half leaves the border
        within a pixel of where it was drawn, closer than a polygon's; so none of them becomes void.
        """
        member = f"{self._members[image_id]}.png"
        levels = decode_mask(self._archive.read(member), f"{self._archive.path}: {member}")
        mask = levels >= _HALF
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
    members = {name for name in archive.names() if "/Imgs/" in f"/{name}" and not name.startswith("__MACOSX/")}
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
