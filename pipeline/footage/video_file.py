"""The frames of a video file, upright and in the order in which they are shown."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple, cast

import av
import numpy as np
from av.container import InputContainer
from av.stream import Disposition
from av.video.frame import VideoFrame
from av.video.stream import VideoStream
from numpy.typing import NDArray

from pipeline.core.errors import UserError
from pipeline.footage.completeness import missing_end

STILL_RATE = 24.0  # frames per second if the file does not say when they are shown
_ENOUGH_KEYS = 16  # with so many key frames, they represent the video


class _Packets(NamedTuple):
    """The content of a file, found without decoding it."""

    shown: int  # number of packets of frames that are shown
    torn: bool  # whether the last one is cut off
    keys: tuple[int, ...]  # indices, among all packets, of those that need no other frame


class VideoFile:
    """A video file that can be read any number of times, one frame at a time.

    Rotation and mirror flags are applied. Every frame that is shown is returned once, however long it is shown; frames
    that an edit list cuts away are not returned.

    Args:
        path: the file.

    Attributes:
        broken_off: what is missing at the end of the file; None if nothing is known to be missing. For raw streams this
            is only known once their last frame has been decoded.

    Raises:
        UserError: it is not a video.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            self._packets = self._look_through()
            self.broken_off = missing_end(path) or ("its last frame is cut off" if self._packets.torn else None)
        except (av.FFmpegError, OSError) as error:
            raise UserError(
                f"{path} cannot be opened as a video ({_line(error)}); expected a video file, a folder of images or a "
                "glob; give another file"
            ) from None

    @property
    def length(self) -> int:
        """Number of frames, counted by packets; a damaged file may give fewer."""
        return self._packets.shown

    def frames(self, start: int = 0, stop: int | None = None) -> Iterator[tuple[float, NDArray[np.uint8]]]:
        """The frames, all or some of them.

        Args:
            start: index of the first frame; those before it are decoded, but not converted.
            stop: index after the last frame; None: up to the end.

        Yields:
            Time in seconds according to the file, and uint8 H,W,3 RGB.

        Raises:
            UserError: a frame cannot be decoded, or there is none. If the file breaks off, the damaged frame at its end
                ends the video without an error; see `broken_off`.
        """
        count, frame = 0, cast("VideoFrame | None", None)
        try:
            with self._open() as (container, stream):
                rate = float(stream.average_rate or 0) or STILL_RATE
                stream.thread_type, upright = "AUTO", _Upright()
                for frame in container.decode(stream):
                    if count == stop:
                        return
                    if count >= start:
                        yield count / rate if frame.time is None else frame.time, upright(frame)
                    count += 1
                if frame is not None and frame.is_corrupt and self.broken_off is None:
                    self.broken_off = "its last frame is damaged"
        except (av.FFmpegError, OSError) as error:
            if not count or self.broken_off is None:
                raise UserError(
                    f"{self._path} cannot be decoded at frame {count} ({_line(error)}); masks before it are complete; "
                    "repair the file (ffmpeg -i broken.mp4 repaired.mp4)"
                ) from None
        if not count:
            raise UserError(f"{self._path} holds no frame; expected a video with at least one; give another file")

    def spread(self, count: int) -> Iterator[NDArray[np.uint8]]:
        """Frames spread over the file, for statistics, without decoding all of a long file.

        Args:
            count: largest number of frames.

        Yields:
            uint8 H,W,3 RGB: only key frames if the file has enough of them; otherwise every n-th frame. Frames that
            cannot be decoded are left out; `frames` reports what is wrong with them.
        """
        keys = self._packets.keys
        if self.length > count and len(keys) >= _ENOUGH_KEYS:
            yield from self._key_frames({keys[i] for i in evenly(len(keys), count)})
        else:
            yield from self._single_frames(set(evenly(self.length, count)))

    def _single_frames(self, chosen: set[int]) -> Iterator[NDArray[np.uint8]]:
        with self._open() as (container, stream), suppress(av.FFmpegError):
            stream.thread_type, upright = "AUTO", _Upright()
            for i, frame in enumerate(container.decode(stream)):
                if i in chosen:
                    yield upright(frame)

    def _key_frames(self, chosen: set[int]) -> Iterator[NDArray[np.uint8]]:
        with self._open() as (container, stream), suppress(av.FFmpegError):
            decoder, upright = stream.codec_context, _Upright()
            for i, packet in enumerate(_packets(container, stream)):
                if i not in chosen:
                    continue
                with suppress(av.FFmpegError):
                    for frame in [*packet.decode(), *decoder.decode(None)]:
                        if isinstance(frame, VideoFrame):
                            yield upright(frame)
                decoder.flush_buffers()

    def _look_through(self) -> _Packets:
        count, keys, torn = 0, [], False
        with self._open() as (container, stream):
            try:
                for i, packet in enumerate(_packets(container, stream)):
                    if packet.is_discard:
                        continue
                    count, torn = count + 1, packet.is_corrupt
                    if packet.is_keyframe:
                        keys.append(i)
            except av.FFmpegError:
                if not count:
                    raise
        return _Packets(count, torn, tuple(keys))

    @contextmanager
    def _open(self) -> Iterator[tuple[InputContainer, VideoStream]]:
        # without `file:`, a name with a colon would be read as a protocol
        with av.open(f"file:{self._path}", metadata_errors="replace") as container:
            streams = [s for s in container.streams.video if not s.disposition & Disposition.attached_pic]  # no covers
            if not streams:
                raise UserError(
                    f"{self._path} holds no video stream; expected a video file, a folder of images or a glob; give "
                    "another file"
                )
            if any(stream.codec_context is None for stream in streams):
                raise UserError(
                    f"{self._path} holds a video of an unknown codec; expected one that FFmpeg decodes; convert it"
                )
            yield container, max(streams, key=lambda stream: stream.width * stream.height)


def evenly(length: int, count: int) -> list[int]:
    """At most `count` different indices from 0 to length - 1, including both ends, ascending."""
    return [int(i) for i in np.unique(np.linspace(0, length - 1, min(length, count)).round())] if length else []


def _packets(container: InputContainer, stream: VideoStream) -> Iterator[av.Packet[VideoStream]]:
    return (packet for packet in container.demux(stream) if packet.size)  # the last one is empty


class _Upright:
    """Pictures of one stream as uint8 H,W,3 RGB, rotated and mirrored according to the file.

    The display matrix takes the point (x, y), y down, to (a x + c y, b x + d y). Other angles are
    rounded to the nearest multiple of 90 degrees.
    """

    def __init__(self) -> None:
        self._angle: int | None = None
        self._matrix = (1, 0, 0, 1)

    def __call__(self, frame: VideoFrame) -> NDArray[np.uint8]:
        if frame.rotation != self._angle:
            # not for every frame, because a frame whose side data is read is freed only by the cycle collector
            self._angle, self._matrix = frame.rotation, _display_matrix(frame)
        # by default FFmpeg converts in several threads, and at some widths one overwrites another's pixels
        rgb = np.asarray(frame.to_ndarray(format="rgb24", threads=1), np.uint8)
        across, b, c, down = self._matrix
        if abs(b) + abs(c) > abs(across) + abs(down):
            rgb, across, down = rgb.transpose(1, 0, 2), c, b
        if across < 0:
            rgb = rgb[:, ::-1]
        if down < 0:
            rgb = rgb[::-1]
        return np.ascontiguousarray(rgb)


def _display_matrix(frame: VideoFrame) -> tuple[int, int, int, int]:
    data: Any = frame.side_data.get("DISPLAYMATRIX")
    if data is None:
        return 1, 0, 0, 1
    a, b, _, c, d = (int(value) for value in np.frombuffer(data, np.int32)[:5])
    return a, b, c, d


def _line(error: Exception) -> str:
    strerror = getattr(error, "strerror", None) or str(error)
    return (strerror.splitlines() or [type(error).__name__])[0][:160]
