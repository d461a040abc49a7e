"""Single HDF5 files of frames with depth: random access inside archives, and the two layouts a file may have.

A file is opened again for every frame, at its position in the archive, with its own file descriptor. So nothing is
shared between threads or forked processes, and opening takes less time than decoding a frame.
"""

from __future__ import annotations

import io
import os
import tarfile
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import h5py
import numpy as np
from numpy.typing import NDArray

from pipeline.core.archives import Archive
from pipeline.core.errors import UserError
from pipeline.datasets.rgbd_frame import RgbdFrame, of_one_size

Kind = Literal["frame", "video"]

_KNOWN_FROM = 1e-8  # the published loader treats smaller depths as unknown
_SLACK = 0.01  # resampling may move colours out of [0, 1] by this much
_FRAME = ("gt/img_1", "gt/gt_depth")
_VIDEO = ("rgb", "depth")


class Place(NamedTuple):
    """Position of a file's bytes: `length` bytes of `path` from `start` on."""

    path: Path
    start: int
    length: int


@dataclass(frozen=True)
class Hdf5File:
    """An HDF5 file inside an archive.

    Attributes:
        archive: the archive.
        member: its name there.
        place: its position; None if it is compressed and can only be read completely.
    """

    archive: Archive
    member: str
    place: Place | None

    @property
    def name(self) -> str:
        """For messages."""
        return f"{self.archive.path}: {self.member}"

    @contextmanager
    def open(self) -> Iterator[h5py.File]:
        """Open it for reading.

        Raises:
            UserError: it is not an HDF5 file, or damaged; also if that is only noticed inside the block.
        """
        content = _Window(self.place) if self.place else io.BytesIO(self.archive.read(self.member))
        try:
            with content, h5py.File(content, "r") as file:
                yield file
        except (OSError, RuntimeError, KeyError, ValueError) as error:
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            raise UserError(
                f"{self.name} is not a readable HDF5 file ({reason}); expected an intact one; replace it"
            ) from None


def locate(archive: Archive, members: Sequence[str]) -> dict[str, Hdf5File]:
    """Files of an archive, with their positions in it."""
    found: dict[str, Place] = {}
    if archive.path.is_dir():
        paths = {name: archive.path / name for name in members}
        found = {name: Place(path, 0, path.stat().st_size) for name, path in paths.items()}
    elif zipfile.is_zipfile(archive.path):
        found = dict(_stored(archive.path, members))
    else:
        with tarfile.open(archive.path, "r:") as tar:
            found = {m.name.removeprefix("./"): Place(archive.path, m.offset_data, m.size) for m in tar if m.isfile()}
    return {name: Hdf5File(archive, name, found.get(name)) for name in members}


def _stored(path: Path, members: Sequence[str]) -> Iterator[tuple[str, Place]]:
    """The members of a zip that are not compressed."""
    with zipfile.ZipFile(path) as archive, open(path, "rb") as file:
        for name in members:
            member = archive.getinfo(name)
            if member.compress_type == zipfile.ZIP_STORED:
                # a local header has 30 bytes, at 26 and 28 the lengths of the name and the extra field after it
                file.seek(member.header_offset + 26)
                lengths = file.read(4)
                skip = int.from_bytes(lengths[:2], "little") + int.from_bytes(lengths[2:], "little")
                yield name, Place(path, member.header_offset + 30 + skip, member.file_size)


class _Window(io.RawIOBase):
    """A part of a file as a file."""

    def __init__(self, place: Place) -> None:
        self._file = os.open(place.path, os.O_RDONLY)
        self._start, self._length, self._at = place.start, place.length, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        self._at = offset + {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._length}[whence]
        return self._at

    def readinto(self, buffer: Any) -> int:
        wanted = memoryview(buffer)[: max(0, self._length - self._at)]
        count = os.preadv(self._file, [wanted], self._start + self._at)
        self._at += count
        return count

    def close(self) -> None:
        if not self.closed:
            os.close(self._file)
        super().close()


def kind_of(source: Hdf5File) -> Kind:
    """Whether a file contains one frame or a video.

    Raises:
        UserError: neither, or not an HDF5 file.
    """
    with source.open() as file:
        if _FRAME[0] in file:
            return "frame"
        if _VIDEO[0] in file:
            return "video"
        found = ", ".join(sorted(file)) or "nothing"
    raise UserError(
        f"{source.name} holds {found}; expected {' and '.join(_FRAME)} (a frame) or {' and '.join(_VIDEO)} (a video) "
        "as in docs/formats.md; write it again"
    )


def count_frames(source: Hdf5File) -> int:
    """Number of frames of a video file.

    Raises:
        UserError: not an HDF5 file, compressed in its archive, or its data sets are not those of a video.
    """
    if source.place is None:
        raise UserError(f"{source.name} is compressed; expected videos to be stored (zip -0); pack the archive again")
    with source.open() as file:
        rgb = _data_set(file, source.name, "rgb", 4, "u", "N,H,W,3 uint8")
        if rgb.dtype != np.uint8 or rgb.shape[3] != 3:
            raise _refused(source.name, rgb, "N,H,W,3 uint8")
        parts = [_data_set(file, source.name, "depth", 3, "f", "N,H,W float")]
        if "instances" in file:
            parts.append(_data_set(file, source.name, "instances", 3, "ui", "N,H,W integers"))
        for part in parts:
            if part.shape != rgb.shape[:3]:
                raise _refused(source.name, part, f"{','.join(map(str, rgb.shape[:3]))} as rgb has")
        return int(rgb.shape[0])


def read_video_frame(source: Hdf5File, index: int) -> RgbdFrame:
    """Frame `index` of a video file.

    Raises:
        UserError: unreadable, a negative depth, or an object id outside 0 to 255.
    """
    with source.open() as file:
        rgb, depth = np.asarray(file["rgb"][index], np.uint8), np.asarray(file["depth"][index], np.float32)
        ids = np.asarray(file["instances"][index]) if "instances" in file else None
    where = f"{source.name}: frame {index}"
    if (depth < 0).any():
        raise UserError(f"{where} has a depth of {np.nanmin(depth):g}; expected 0 (unknown) or more; correct it")
    if ids is not None and not 0 <= ids.min() <= ids.max() <= 255:
        raise UserError(f"{where} has object ids {ids.min()} to {ids.max()}; expected 0 to 255; renumber them")
    return RgbdFrame(rgb, _known(depth), None if ids is None else ids.astype(np.uint8))


def read_frame(source: Hdf5File) -> RgbdFrame:
    """The frame of a file with one frame.

    Raises:
        UserError: unreadable, data sets of another form, colours outside [0, 1], or depth of another size.
    """
    expected = "H,W,3 float in [0, 1], or uint8"
    with source.open() as file:
        image = _data_set(file, source.name, _FRAME[0], 3, "fu", expected)
        if image.shape[2] != 3 or (image.dtype.kind == "u" and image.dtype != np.uint8):
            raise _refused(source.name, image, expected)
        rgb = np.asarray(image[()])
        depth = np.asarray(_data_set(file, source.name, _FRAME[1], 2, "f", "H,W float")[()], np.float32)
    if rgb.dtype != np.uint8:
        low, high = float(rgb.min()), float(rgb.max())
        if not (low >= -_SLACK and high <= 1 + _SLACK):
            raise UserError(f"{source.name}: {_FRAME[0]} holds {low:g} to {high:g}; expected [0, 1]; scale it")
        rgb = np.rint(np.clip(rgb, 0, 1) * 255).astype(np.uint8)
    return of_one_size(source.name, RgbdFrame(rgb, _known(depth), None), _FRAME[1], "")


def _known(depth: NDArray[np.float32]) -> NDArray[np.float32]:
    """Depth with 0 for unknown values: those that are not finite or almost 0."""
    return np.where(np.isfinite(depth) & (depth > _KNOWN_FROM), depth, np.float32(0))


def _data_set(file: h5py.File, name: str, key: str, ndim: int, kinds: str, expected: str) -> h5py.Dataset:
    found = file.get(key)
    if not isinstance(found, h5py.Dataset):
        raise UserError(f"{name} has no data set {key}; expected {expected}; write the file again")
    if found.ndim != ndim or found.dtype.kind not in kinds or not found.size:
        raise _refused(name, found, expected)
    return found


def _refused(name: str, found: h5py.Dataset, expected: str) -> UserError:
    shape = ",".join(map(str, found.shape))
    key = found.name.removeprefix("/")
    return UserError(f"{name}: {key} is {shape} {found.dtype}; expected {expected}; write the file again")
