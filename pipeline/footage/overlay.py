"""A video of the masks drawn over the frames: H.264 in MP4, which every browser plays."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pipeline.core.images import overlay
from pipeline.footage.video_writer import Coding, VideoWriter

_CODING = Coding(
    container="mp4",
    codec="libx264",
    pix_fmt="yuv420p",
    options={"crf": "20", "preset": "veryfast"},
    even=True,
    container_options={"movflags": "+faststart"},
)


class OverlayVideo(VideoWriter):
    """Write a video of the masks drawn over the frames; see `VideoWriter`.

    Args:
        path: the .mp4 to write.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(path, _CODING)

    def add(self, rgb: NDArray[np.uint8], mask: NDArray[np.uint8], seconds: float) -> None:
        """Add a frame.

        Args:
            rgb: uint8 H,W,3; all frames have the same size. The last row or column of an odd side is doubled, because
                H.264 needs even sides.
            mask: uint8 H,W ids.
            seconds: time at which it is shown; see `VideoWriter.write`.
        """
        self.write(overlay(rgb, mask), seconds)
