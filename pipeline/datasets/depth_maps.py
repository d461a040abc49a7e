"""Depth maps written by the depth stage."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pipeline.core.archives import open_shards
from pipeline.core.errors import UserError
from pipeline.core.images import decode_depth


class DepthMaps:
    """Depth maps of one data set: shards with members `<video>/<frame id>.png`, 16-bit; safe across threads.

    Args:
        folder: of the shards (`data/<profile>/depth/<dataset>`).

    Raises:
        UserError: the folder holds no depth map.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._archive = open_shards(folder)
        if not self._archive.names():
            raise UserError(
                f"{folder} contains no depth map; expected shard-*.zip; run the depth stage of this data set"
            )

    def read(self, video_name: str, frame_id: str) -> NDArray[np.float32]:
        """Normalised inverse depth of a frame.

        Returns:
            float32 H,W in [0, 1]; 1 is near, 0 is far.

        Raises:
            UserError: no map of that frame, or an unreadable one.
        """
        member = f"{video_name}/{frame_id}.png"
        if not self._archive.has(member):
            raise UserError(
                f"{self._folder} has no depth map {member}; expected one for every frame; rerun the depth stage of "
                "this data set"
            )
        return decode_depth(self._archive.read(member), f"{self._folder}: {member}")
