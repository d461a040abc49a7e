"""A video of the masks over the frames, H.264 in MP4, which every browser plays."""

from __future__ import annotations

import os
from fractions import Fraction
from pathlib import Path
from types import TracebackType

import av
import numpy as np
from av.video.stream import VideoStream
from numpy.typing import NDArray

from pipeline.core.images import overlay

_CLOCK = 90_000  # ticks a second: any frame rate, also a changing one


class OverlayVideo:
    """Write a video; it appears under its name when the block ends, with what there is also after Ctrl-C.

    Args:
        path: the .mp4 to write.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        self._container = av.open(str(self._temporary), "w", format="mp4", options={"movflags": "+faststart"})
        self._stream: VideoStream | None = None
        self._last = -1

    def add(self, rgb: NDArray[np.uint8], mask: NDArray[np.uint8], seconds: float) -> None:
        """Add a frame.

        Args:
            rgb: uint8 H,W,3; all frames of one size.
            mask: uint8 H,W ids.
            seconds: when it is shown.
        """
        height, width = mask.shape
        picture = np.pad(
            overlay(rgb, mask), ((0, height % 2), (0, width % 2), (0, 0)), "edge"
        )  # H.264 takes even sides
        if self._stream is None:
            self._stream = self._container.add_stream("libx264", options={"crf": "20", "preset": "veryfast"})
            self._stream.width, self._stream.height = picture.shape[1], picture.shape[0]
            self._stream.pix_fmt = "yuv420p"
            self._stream.codec_context.time_base = Fraction(1, _CLOCK)
        frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
        self._last = max(self._last + 1, round(seconds * _CLOCK))
        frame.pts, frame.time_base = self._last, Fraction(1, _CLOCK)
        self._container.mux(self._stream.encode(frame))

    def __enter__(self) -> OverlayVideo:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if self._stream is not None:
                self._container.mux(self._stream.encode(None))
            self._container.close()
            if self._stream is not None and (kind is None or kind is KeyboardInterrupt):
                self._temporary.replace(self._path)
        finally:
            self._temporary.unlink(missing_ok=True)
