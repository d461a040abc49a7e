"""A user's own video: a video file, a folder of images or a glob, frame by frame."""

from __future__ import annotations

import glob
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import av
import numpy as np
from numpy.typing import NDArray

from pipeline.core.errors import UserError
from pipeline.core.images import decode_rgb

_IMAGES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff")
_STILL_RATE = 24.0  # frames a second that images are shown at


@dataclass(frozen=True)
class Shot:
    """One frame.

    Attributes:
        name: what its mask is named after.
        seconds: when it is shown.
        rgb: uint8 H,W,3, upright.
    """

    name: str
    seconds: float
    rgb: NDArray[np.uint8]


class Footage(Protocol):
    """Frames that can be gone through any number of times.

    Attributes:
        length: number of frames; None where a video file does not say.
    """

    length: int | None

    def shots(self) -> Iterator[Shot]:
        """The frames, in order, read as they are needed; UserError for an unreadable one."""
        ...


class VideoFootage:
    """A video file; frames are named by their number.

    Rotation flags are applied, and every frame that is shown counts once, whatever its duration.

    Args:
        path: the file.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            with av.open(path) as container:
                if not container.streams.video:
                    raise UserError(
                        f"{path} holds no video stream; expected a video file, a folder of images or a glob"
                    )
                self.length: int | None = container.streams.video[0].frames or None
        except (av.FFmpegError, OSError) as error:
            raise UserError(
                f"{path} cannot be opened as a video ({_line(error)}); expected a video file, a folder of images or a "
                "glob; give another file"
            ) from None

    def shots(self) -> Iterator[Shot]:
        """See `Footage`."""
        count = 0
        try:
            with av.open(self._path) as container:
                stream = container.streams.video[0]
                stream.thread_type = "AUTO"
                for frame in container.decode(stream):
                    rgb = np.rot90(frame.to_ndarray(format="rgb24"), frame.rotation // 90)
                    seconds = count / _STILL_RATE if frame.time is None else frame.time
                    yield Shot(f"{count:05d}", seconds, np.ascontiguousarray(rgb))
                    count += 1
        except av.FFmpegError as error:
            raise UserError(
                f"{self._path} cannot be decoded at frame {count} ({_line(error)}); the masks before it are whole; "
                "repair the file (ffmpeg -i broken.mp4 repaired.mp4)"
            ) from None
        if not count:
            raise UserError(f"{self._path} holds no frame; expected a video with at least one; give another file")


class ImageFootage:
    """Image files in the natural order of their names (2 before 10); frames are named as the files.

    Args:
        paths: the files.
        origin: what the user gave, for messages.
    """

    def __init__(self, paths: list[Path], origin: str) -> None:
        paths = sorted(
            paths, key=lambda p: [(len(n), n) if n.isdigit() else (0, n) for n in re.split(r"(\d+)", p.stem)]
        )
        if not paths:
            raise UserError(f"{origin} holds no image; expected files {', '.join(_IMAGES)}; correct the path")
        names = [path.stem for path in paths]
        twice = next((name for name in names if names.count(name) > 1), None) if len(set(names)) < len(names) else None
        if twice is not None:
            raise UserError(f"{origin} holds several images named {twice}; expected different names; move some away")
        self._paths = paths
        self.length: int | None = len(paths)

    def shots(self) -> Iterator[Shot]:
        """See `Footage`."""
        for i, path in enumerate(self._paths):
            yield Shot(path.stem, i / _STILL_RATE, decode_rgb(path.read_bytes(), str(path)))


def open_footage(source: str) -> Footage:
    """Open a video file, a folder of images or a glob.

    Raises:
        UserError: there is nothing, or nothing that can be read.
    """
    path = Path(source)
    if path.is_dir():
        return ImageFootage([p for p in path.iterdir() if p.suffix.lower() in _IMAGES and p.is_file()], source)
    if path.is_file():
        return ImageFootage([path], source) if path.suffix.lower() in _IMAGES else VideoFootage(path)
    if glob.has_magic(source):
        found = [Path(p) for p in glob.glob(source, recursive=True)]
        return ImageFootage([p for p in found if p.suffix.lower() in _IMAGES], source)
    raise UserError(f"{source} does not exist; expected a video file, a folder of images or a glob; correct the path")


def _line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:160]
