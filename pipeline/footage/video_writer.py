"""Write a video file from frames at given times; it only gets its name when it is complete."""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Self

import av
import numpy as np
from av.container import OutputContainer
from av.video.reformatter import ColorPrimaries, ColorRange, Colorspace, ColorTrc
from av.video.stream import VideoStream
from numpy.typing import NDArray

from pipeline.footage.write_errors import writing

_CLOCK = 90_000  # ticks per second: fits any frame rate, also a varying one
_THREADS = 4  # fixed, because each thread holds frames, and their number changes the bytes of the file
_STEP = _CLOCK // 24  # step in ticks if the time does not increase and there is no earlier step


@dataclass(frozen=True)
class Coding:
    """How a video is stored; colours are BT.709 with limited range.

    Attributes:
        container: FFmpeg's name of the container.
        codec: FFmpeg's name of the encoder.
        pix_fmt: its pixel format.
        options: of the encoder.
        even: whether sides must be even; the last row or column of an odd side is then doubled.
        alpha: whether frames have four channels, the last one opacity.
        container_options: of the container.
        metadata: of the stream.
    """

    container: str
    codec: str
    pix_fmt: str
    options: Mapping[str, str]
    even: bool = False
    alpha: bool = False
    container_options: Mapping[str, str] = field(default_factory=dict)
    metadata: Mapping[str, str] = field(default_factory=dict)


class VideoWriter:
    """Write a video; it gets its name when the block ends; after Ctrl-C it has the frames so far.

    An older file of this name stays if the block fails or adds no frame.

    Args:
        path: the file to write.
        coding: container, encoder and pixel format.
    """

    def __init__(self, path: Path, coding: Coding) -> None:
        self._path, self._coding = path, coding
        self._temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        self._container: OutputContainer | None = None
        self._stream: VideoStream | None = None
        self._shown = 0.0  # time of the last frame in the footage
        self._ticks = 0  # and in this video, which begins at 0
        self._step = _STEP

    def write(self, picture: NDArray[np.uint8], seconds: float) -> None:
        """Add a frame.

        Args:
            picture: uint8 H,W,3 RGB, or H,W,4 with opacity; all have the same size.
            seconds: time at which it is shown. The first time becomes 0; if the time does not increase, as in joined
                files, the last step is repeated.

        Raises:
            UserError: the file cannot be written.
        """
        if self._coding.even:
            height, width = picture.shape[:2]
            picture = np.pad(picture, ((0, height % 2), (0, width % 2), (0, 0)), "edge")
        with writing(self._path):
            if self._stream is None or self._container is None:
                self._container, self._stream = self._begin(*picture.shape[:2])
            else:
                step = round(seconds * _CLOCK) - round(self._shown * _CLOCK)
                self._step = step if step > 0 else self._step
                self._ticks += self._step
            self._shown = seconds
            frame = av.VideoFrame.from_ndarray(picture, format="rgba" if self._coding.alpha else "rgb24").reformat(
                format=self._coding.pix_fmt,
                dst_colorspace=Colorspace.ITU709,
                dst_color_range=ColorRange.MPEG,
                threads=1,  # several threads may overwrite each other's pixels
            )
            frame.colorspace, frame.color_range = Colorspace.ITU709, ColorRange.MPEG
            frame.pts, frame.time_base = self._ticks, Fraction(1, _CLOCK)
            self._container.mux(self._stream.encode(frame))

    def _begin(self, height: int, width: int) -> tuple[OutputContainer, VideoStream]:
        coding = self._coding
        # without `file:`, a name with a colon would be read as a protocol
        container = av.open(
            f"file:{self._temporary}", "w", format=coding.container, options=dict(coding.container_options)
        )
        stream = container.add_stream(coding.codec, options=dict(coding.options))
        assert isinstance(stream, VideoStream)
        stream.width, stream.height, stream.pix_fmt = width, height, coding.pix_fmt
        stream.metadata.update(coding.metadata)
        context = stream.codec_context
        context.time_base = Fraction(1, _CLOCK)
        context.thread_count = _THREADS
        context.colorspace, context.color_range = (
            Colorspace.ITU709,
            ColorRange.MPEG,
        )  # otherwise players guess from the size
        context.color_primaries, context.color_trc = ColorPrimaries.BT709, ColorTrc.BT709
        return container, stream

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if self._container is None or self._stream is None:
                return
            if kind is None or kind is KeyboardInterrupt:
                with writing(self._path):
                    self._container.mux(self._stream.encode(None))
                    self._container.close()
                    self._temporary.replace(self._path)
            else:
                with suppress(av.FFmpegError):  # the first error says more
                    self._container.close()
        finally:
            self._temporary.unlink(missing_ok=True)
