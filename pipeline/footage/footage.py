"""A user's own video: a video file, a folder of images or a glob, frame by frame."""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from pipeline.core.errors import UserError
from pipeline.footage.image_files import IMAGES, ImageFiles, pick_images
from pipeline.footage.video_file import STILL_RATE, VideoFile, evenly


@dataclass(frozen=True)
class Shot:
    """One frame.

    Attributes:
        name: of the frame, and of its mask.
        seconds: time at which it is shown.
        rgb: uint8 H,W,3, upright.
    """

    name: str
    seconds: float
    rgb: NDArray[np.uint8]


class Footage(Protocol):
    """Frames that can be read any number of times.

    Attributes:
        length: number of frames; None if unknown.
    """

    length: int | None

    @property
    def broken_off(self) -> str | None:
        """What is missing at the end; None if nothing is known to be missing. Final once all shots have been read."""
        ...

    def shots(self, start: int = 0, stop: int | None = None) -> Iterator[Shot]:
        """Frames `start` to `stop` - 1 (to the last if None), read as they are needed; UserError for a bad one."""
        ...

    def name_of(self, index: int) -> str:
        """The name of a frame."""
        ...

    def spread(self, count: int) -> Iterator[NDArray[np.uint8]]:
        """At most `count` frames, uint8 H,W,3, spread over the video; as little else as possible is read."""
        ...


class VideoFootage:
    """A video file; frames are named by their number, from 00000 on.

    Args:
        path: the file.

    Attributes:
        files: the files that are read.
    """

    def __init__(self, path: Path) -> None:
        self.files: tuple[Path, ...] = (path,)
        self._video = VideoFile(path)
        self.length: int | None = self._video.length or None

    @property
    def broken_off(self) -> str | None:
        """See `Footage`."""
        return self._video.broken_off

    def names(self, name: str) -> bool:
        """Whether a frame may have this name."""
        return re.fullmatch(r"[0-9]{5,}", name) is not None

    def name_of(self, index: int) -> str:
        """The name of a frame."""
        return f"{index:05d}"

    def index_of(self, name: str) -> int | None:
        """Index of the frame with a name, padded with zeros or not; None if the name is not a number."""
        return int(name) if re.fullmatch(r"[0-9]+", name) else None

    def shots(self, start: int = 0, stop: int | None = None) -> Iterator[Shot]:
        """See `Footage`."""
        for i, (seconds, rgb) in enumerate(self._video.frames(start, stop), start=start):
            yield Shot(self.name_of(i), seconds, rgb)

    def spread(self, count: int) -> Iterator[NDArray[np.uint8]]:
        """See `Footage`."""
        return self._video.spread(count)


class ImageFootage:
    """Image files in the natural order of their names; frames have the names of the files.

    Args:
        paths: the files.
        origin: the user's argument, for messages.

    Attributes:
        files: the files that are read.
    """

    def __init__(self, paths: Sequence[Path], origin: str) -> None:
        self._images = ImageFiles(paths, origin)
        self.files = self._images.paths
        self.length: int | None = len(self.files)
        self.broken_off: str | None = None  # an image that is cut off is a separate error

    def names(self, name: str) -> bool:
        """Whether a frame has this name."""
        return self._images.place_of(name) is not None

    def name_of(self, index: int) -> str:
        """The name of a frame."""
        return self.files[index].stem

    def index_of(self, name: str) -> int | None:
        """Index of the frame with a name, on any file system; None if there is none."""
        return self._images.place_of(name)

    def shots(self, start: int = 0, stop: int | None = None) -> Iterator[Shot]:
        """See `Footage`."""
        for i, path in list(enumerate(self.files))[start:stop]:
            yield Shot(path.stem, i / STILL_RATE, self._images.read(i))

    def spread(self, count: int) -> Iterator[NDArray[np.uint8]]:
        """See `Footage`."""
        return (self._images.read(i) for i in evenly(len(self.files), count))


def open_footage(source: str) -> VideoFootage | ImageFootage:
    """Open a video file, a folder of images or a glob; the name of an existing file is not read as a glob.

    Raises:
        UserError: there is no such file, or it cannot be read.
    """
    path = Path(source) if os.path.lexists(source) else Path(source).expanduser()
    try:
        if path.is_dir():
            return ImageFootage(pick_images(list(path.iterdir()), source), source)
        if path.is_file():
            return ImageFootage([path], source) if path.suffix.lower() in IMAGES else VideoFootage(path)
        if glob.has_magic(source):
            found = [Path(name) for name in glob.glob(str(path), recursive=True)]
            return ImageFootage(pick_images(found, source), source)
    except PermissionError as error:
        raise UserError(
            f"{error.filename or source} may not be read; expected access to it; change its permissions"
        ) from None
    raise UserError(f"{source} does not exist; expected a video file, a folder of images or a glob; correct the path")
