"""Image files as the frames of one video: which files of a folder, their order, and checks that they fit."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pipeline.core.errors import UserError
from pipeline.core.images import decode_rgb
from pipeline.core.names import NaturalKey, natural_key
from pipeline.core.runtime import log

IMAGES = (".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".bmp", ".tif", ".tiff", ".ppm", ".pgm")
_OTHER_IMAGES = (
    *(".gif", ".heic", ".heif", ".avif", ".jxl", ".jp2", ".j2k", ".tga", ".psd", ".xcf", ".svg", ".exr", ".hdr"),
    *(".dpx", ".pbm", ".pnm", ".ico", ".dng", ".cr2", ".cr3", ".nef", ".arw", ".raf", ".orf", ".rw2", ".raw"),
)
_ORIENTATION = 0x0112  # EXIF tag
_TRANSPOSED = (5, 6, 7, 8)  # its values that swap the sides


class ImageFiles:
    """Images in the natural order of their names (2 before 10), all of one size.

    Args:
        paths: the files; the header of each is read at the start, the rest when it is needed.
        origin: the user's argument, for messages.

    Attributes:
        paths: the files in order.

    Raises:
        UserError: there is no file, two files would have the same mask name, one is unreadable or animated, or there
            are several sizes.
    """

    def __init__(self, paths: Sequence[Path], origin: str) -> None:
        if not paths:
            raise UserError(f"{origin} holds no image; expected files {', '.join(IMAGES)}; correct the path")
        self.paths = tuple(sorted(paths, key=_natural))
        self._places: dict[str, int] = {}
        for place, path in enumerate(self.paths):
            other = self.paths[self._places.setdefault(_plain(path.stem), place)]
            if other != path:
                raise UserError(
                    f"{origin} holds several images named {path.stem} ({other} and {path}); expected different names, "
                    "because masks are named after them; move some away"
                )
        heads = [_head(path) for path in self.paths]
        for path, head in zip(self.paths, heads):
            self._compare(path, head.size, heads[0].size)
        clear = [path for path, head in zip(self.paths, heads) if head.alpha]
        if clear:
            log(f"{_count(clear)} with transparency ({_some(clear)}): it is dropped, colours count as they are stored")
        self._size: tuple[int, ...] | None = None

    def place_of(self, name: str) -> int | None:
        """Index of the file whose name without its suffix is this, on any file system."""
        return self._places.get(_plain(name))

    def read(self, place: int) -> NDArray[np.uint8]:
        """A frame, uint8 H,W,3 RGB, by its index.

        Raises:
            UserError: it cannot be decoded, or its size differs from the first one's.
        """
        path = self.paths[place]
        rgb = decode_rgb(_bytes(path), str(path))
        self._size = self._size or rgb.shape[:2]
        self._compare(path, rgb.shape[:2], self._size)
        return rgb

    def _compare(self, path: Path, size: tuple[int, ...], first: tuple[int, ...]) -> None:
        if size != first:
            raise UserError(
                f"{path} is {size[1]}x{size[0]}, but {self.paths[0]} is {first[1]}x{first[0]}; expected frames of one "
                "size; resize it or move it away"
            )


def pick_images(paths: Sequence[Path], origin: str) -> list[Path]:
    """The images among files; logs which were left out. Hidden files are ignored, because they belong to the system.

    Raises:
        UserError: there are files, but none of them is a supported image.
    """
    paths = sorted((path for path in paths if not path.name.startswith(".")), key=_natural)
    images = [path for path in paths if path.suffix.lower() in IMAGES and path.is_file()]
    if paths and not images:
        raise UserError(
            f"{origin} holds no image but {_some(paths)}; expected files {', '.join(IMAGES)}, or one video file as "
            "VIDEO; convert them or correct the path"
        )
    taken = set(images)
    skipped = [path for path in paths if path not in taken and path.suffix.lower() in IMAGES + _OTHER_IMAGES]
    if skipped:
        log(f"{_count(skipped)} left out ({_some(skipped)}): no file, or another format than {', '.join(IMAGES)}")
    return images


class _Head(NamedTuple):
    """What the header of an image says."""

    size: tuple[int, int]  # H, W, upright
    alpha: bool


def _head(path: Path) -> _Head:
    try:
        with Image.open(path) as image:
            return _inspect(path, image)
    except UserError:
        raise
    except Exception:  # damaged headers raise nearly anything; decoding reports the fault, or succeeds
        rgb = decode_rgb(_bytes(path), str(path))
        return _Head((rgb.shape[0], rgb.shape[1]), alpha=False)


def _inspect(path: Path, image: Image.Image) -> _Head:
    # a second picture in a JPEG is a phone's map of depth or brightness; in other formats it is an animation
    if image.format not in ("JPEG", "MPO") and getattr(image, "n_frames", 1) > 1:
        raise UserError(
            f"{path} is animated or has several pages; expected one image per file; make a video of it, or a folder of "
            "images"
        )
    width, height = image.size
    # EXIF after a PNG's pixels is not read, because Pillow would have to decode the pixels; a TIFF's size is upright
    looked_at = image.format != "TIFF" and (image.format != "PNG" or "exif" in image.info)
    if looked_at and image.getexif().get(_ORIENTATION) in _TRANSPOSED:
        width, height = height, width
    return _Head((height, width), image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info)


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}); expected an image; put it back") from None


def _natural(path: Path) -> tuple[NaturalKey, str]:
    return natural_key(path.stem), str(path)


def _plain(name: str) -> str:
    """Common form of names that are the same on some file systems, which ignore case and the encoding of accents."""
    return unicodedata.normalize("NFC", name).casefold()


def _count(paths: Sequence[Path]) -> str:
    return "1 image" if len(paths) == 1 else f"{len(paths)} images"


def _some(paths: Sequence[Path]) -> str:
    return ", ".join(path.name for path in paths[:3]) + (f" and {len(paths) - 3} more" if len(paths) > 3 else "")
