"""A video of the masks over the frames, H.264 in MP4, which every browser plays."""

from __future__ import annotations

import os
from contextlib import suppress
from fractions import Fraction
from pathlib import Path
from types import TracebackType

import av
import numpy as np
from av.container import OutputContainer
from av.video.reformatter import ColorPrimaries, ColorRange, Colorspace, ColorTrc
from av.video.stream import VideoStream
from numpy.typing import NDArray

from pipeline.core.images import overlay

_CLOCK = 90_000  # ticks a second: any frame rate, also a changing one
_THREADS = 4  # each holds frames, and their number is in the bytes of the file: not that of the machine's cores
_STEP = _CLOCK // 24  # ticks from a frame to one whose time does not lie behind it, before there is another measure


class OverlayVideo:
    """Write a video; it appears under its name when the block ends, with what there is also after Ctrl-C.

    An older file of this name stays where the block fails or adds no frame.

    Args:
        path: the .mp4 to write.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        self._container: OutputContainer | None = None
        self._stream: VideoStream | None = None
        self._shown = 0.0  # when the last frame is shown, by the footage
        self._ticks = 0  # and by this video, which begins at 0
        self._step = _STEP

    def add(self, rgb: NDArray[np.uint8], mask: NDArray[np.uint8], seconds: float) -> None:
        """Add a frame.

        Args:
            rgb: uint8 H,W,3; all frames of one size. The last line of an odd side is doubled: H.264 takes even ones.
            mask: uint8 H,W ids.
            seconds: when it is shown. The first time becomes 0; where time does not go on, as in joined files, the last
                step is repeated.
        """
        height, width = mask.shape
        picture = np.pad(overlay(rgb, mask), ((0, height % 2), (0, width % 2), (0, 0)), "edge")
        if self._stream is None or self._container is None:
            self._container, self._stream = self._begin(*picture.shape[:2])
        else:
            step = round(seconds * _CLOCK) - round(self._shown * _CLOCK)
            self._step = step if step > 0 else self._step
            self._ticks += self._step
        self._shown = seconds
        frame = av.VideoFrame.from_ndarray(picture, format="rgb24").reformat(
            format="yuv420p",
            dst_colorspace=Colorspace.ITU709,
            dst_color_range=ColorRange.MPEG,
            threads=1,  # several may overwrite each other's pixels
        )
        frame.colorspace, frame.color_range = Colorspace.ITU709, ColorRange.MPEG
        frame.pts, frame.time_base = self._ticks, Fraction(1, _CLOCK)
        self._container.mux(self._stream.encode(frame))

    def _begin(self, height: int, width: int) -> tuple[OutputContainer, VideoStream]:
        # file: or a colon in a name makes a protocol of what stands before it
        container = av.open(f"file:{self._temporary}", "w", format="mp4", options={"movflags": "+faststart"})
        stream = container.add_stream("libx264", options={"crf": "20", "preset": "veryfast"})
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        context = stream.codec_context
        context.time_base = Fraction(1, _CLOCK)
        context.thread_count = _THREADS
        context.colorspace, context.color_range = Colorspace.ITU709, ColorRange.MPEG  # or players guess by the size
        context.color_primaries, context.color_trc = ColorPrimaries.BT709, ColorTrc.BT709
        return container, stream

    def __enter__(self) -> OverlayVideo:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if self._container is None or self._stream is None:
                return
            if kind is None or kind is KeyboardInterrupt:
                self._container.mux(self._stream.encode(None))
                self._container.close()
                self._temporary.replace(self._path)
            else:
                with suppress(av.FFmpegError):  # the error that is on its way says more
                    self._container.close()
        finally:
            self._temporary.unlink(missing_ok=True)
