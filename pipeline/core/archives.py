"""Read a folder, a zip or a tar through one interface; write deterministic zips and shards."""

from __future__ import annotations

import os
import tarfile
import threading
import zipfile
import zlib
from bisect import bisect_left
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType
from typing import IO, Protocol

from pipeline.core.errors import UserError

_ZIP_DATE = (
    1980,
    1,
    1,
    0,
    0,
    0,
)  # the earliest date of the format; a fixed one, so that equal content gives equal bytes


class Archive(Protocol):
    """Files by POSIX name inside a folder, a zip, a tar or a set of shards; safe across threads and forks."""

    path: Path

    def names(self) -> list[str]:
        """Names of all files, sorted."""
        ...

    def has(self, name: str) -> bool:
        """Whether a file of that name exists."""
        ...

    def read(self, name: str) -> bytes:
        """Content of a file; UserError if it is missing or cannot be read."""
        ...

    def close(self) -> None:
        """Release open handles."""
        ...


def _missing(archive: Path, name: str) -> UserError:
    return UserError(f"{archive} has no file {name}; the published layout has it; check or replace the archive")


class _Sorted:
    """Sorted names, found by bisection."""

    path: Path
    _names: list[str]

    def names(self) -> list[str]:
        return list(self._names)

    def has(self, name: str) -> bool:
        at = bisect_left(self._names, name)
        return at < len(self._names) and self._names[at] == name


class _Folder(_Sorted):
    def __init__(self, path: Path) -> None:
        self.path = path
        self._names = sorted(
            file.relative_to(path).as_posix()
            for folder, _, files in os.walk(path, followlinks=True)  # sequences are often links to another disk
            for file in map(Path(folder).joinpath, files)
            if file.is_file()
        )

    def read(self, name: str) -> bytes:
        if not self.has(name):
            raise _missing(self.path, name)
        return (self.path / name).read_bytes()

    def close(self) -> None:
        return


class _PerThread:
    """A file handle for each thread of each process, because a shared handle has only one position."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._local = threading.local()

    def handle(self) -> IO[bytes]:
        if getattr(self._local, "pid", None) != os.getpid():
            self._local.file = open(self._path, "rb")  # noqa: SIM115 - kept open for this thread
            self._local.pid = os.getpid()
        file: IO[bytes] = self._local.file
        return file

    def close(self) -> None:
        if getattr(self._local, "pid", None) == os.getpid():
            self._local.file.close()
            self._local.pid = None


class _Zip(_Sorted):
    """Finds the members once, in the central directory, then reads them by position without a lock."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            with zipfile.ZipFile(path) as archive:
                self._members = {m.filename: m for m in archive.infolist() if not m.is_dir()}
        except (zipfile.BadZipFile, OSError) as error:
            raise UserError(
                f"{path} is not a readable zip ({error}); expected a complete archive; download it again"
            ) from None
        self._names = sorted(self._members)
        self._files = _PerThread(path)

    def read(self, name: str) -> bytes:
        member = self._members.get(name)
        if member is None:
            raise _missing(self.path, name)
        file = self._files.handle()
        file.seek(member.header_offset)
        header = file.read(30)
        # local header: name and extra lengths are at 26 and 28 and may differ from the central directory's
        skip = int.from_bytes(header[26:28], "little") + int.from_bytes(header[28:30], "little")
        file.seek(skip, os.SEEK_CUR)
        data = file.read(member.compress_size)
        try:
            if member.compress_type == zipfile.ZIP_DEFLATED:
                data = zlib.decompressobj(-15).decompress(data)
            elif member.compress_type != zipfile.ZIP_STORED:
                with zipfile.ZipFile(self.path) as archive:
                    data = archive.read(name)
        except (zlib.error, zipfile.BadZipFile) as error:
            raise UserError(
                f"{self.path}: {name} is damaged ({error}); expected an intact file; download the archive again"
            ) from None
        if len(data) != member.file_size or zlib.crc32(data) != member.CRC:
            raise UserError(
                f"{self.path}: {name} is damaged (wrong checksum); expected an intact file; download the archive again"
            )
        return data

    def close(self) -> None:
        self._files.close()


class _Tar(_Sorted):
    """An uncompressed tar: finds the members once, then reads them by position."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            with tarfile.open(path, "r:") as archive:
                self._members = {
                    m.name.removeprefix("./"): (m.offset_data, m.size) for m in archive.getmembers() if m.isfile()
                }
        except (tarfile.TarError, OSError) as error:
            raise UserError(
                f"{path} is not a readable tar ({error}); expected a complete archive; download it again"
            ) from None
        self._names = sorted(self._members)
        self._files = _PerThread(path)

    def read(self, name: str) -> bytes:
        if name not in self._members:
            raise _missing(self.path, name)
        offset, length = self._members[name]
        file = self._files.handle()
        file.seek(offset)
        data = file.read(length)
        if len(data) != length:
            raise UserError(f"{self.path}: {name} ends early; expected {length} bytes; download the archive again")
        return data

    def close(self) -> None:
        self._files.close()


class _Shards(_Sorted):
    def __init__(self, path: Path, parts: list[Archive]) -> None:
        self.path = path
        self._where = {name: part for part in parts for name in part.names()}
        self._names = sorted(self._where)
        self._parts = parts

    def read(self, name: str) -> bytes:
        if name not in self._where:
            raise _missing(self.path, name)
        return self._where[name].read(name)

    def close(self) -> None:
        for part in self._parts:
            part.close()


def open_archive(path: Path) -> Archive:
    """Open a folder, a .zip or an uncompressed .tar.

    Raises:
        UserError: `path` does not exist, is damaged, or is a compressed tar (which has no random access).
    """
    if path.is_dir():
        return _Folder(path)
    if not path.exists():
        raise UserError(f"{path} does not exist; expected a folder, a .zip or a .tar; correct the path")
    if zipfile.is_zipfile(path) or path.suffix == ".zip":
        return _Zip(path)
    if path.name.endswith((".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")):
        raise UserError(
            f"{path} is a compressed tar; expected a .zip, an uncompressed .tar or a folder; unpack it first"
        )
    return _Tar(path)


def open_shards(folder: Path) -> Archive:
    """Open all `shard-*.zip` of a folder as one archive (empty if there are none)."""
    return _Shards(folder, [open_archive(p) for p in sorted(folder.glob("shard-*.zip"))])


class ZipWriter:
    """Write an uncompressed zip with fixed dates; it gets its name only when the block ends without an error."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self.path = path
        self.written = 0
        self._temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        self._zip = zipfile.ZipFile(self._temporary, "w", zipfile.ZIP_STORED)

    def write(self, name: str, data: bytes) -> None:
        """Add one file under a POSIX name."""
        info = zipfile.ZipInfo(name, _ZIP_DATE)
        info.external_attr = 0o644 << 16
        self._zip.writestr(info, data)
        self.written += len(data)

    def __enter__(self) -> ZipWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._zip.close()
        if kind is None:
            self._temporary.replace(self.path)
        else:
            self._temporary.unlink(missing_ok=True)


class ShardWriter:
    """Write groups of files into `shard-00000.zip`, `shard-00001.zip`, ... of about `limit_bytes` each."""

    def __init__(self, folder: Path, limit_bytes: int) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self._limit = limit_bytes
        self._count = 0
        self._open: ZipWriter | None = None

    def write_group(self, files: Iterable[tuple[str, bytes]]) -> None:
        """Add files that belong together (one video) to the same shard."""
        if self._open is None:
            self._open = ZipWriter(self.folder / f"shard-{self._count:05d}.zip")
        for name, data in files:
            self._open.write(name, data)
        if self._open.written >= self._limit:
            self._finish(None)

    def _finish(self, kind: type[BaseException] | None) -> None:
        if self._open is not None:
            self._open.__exit__(kind, None, None)
            self._open = None
            self._count += 1

    def __enter__(self) -> ShardWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._finish(kind)
