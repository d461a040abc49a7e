"""Read a folder, a zip or a tar through one interface; write deterministic zips and shards."""

from __future__ import annotations

import os
import tarfile
import zipfile
import zlib
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from pathlib import Path
from types import TracebackType
from typing import Protocol

import numpy as np

from pipeline.core.archive_index import cached_table
from pipeline.core.errors import UserError
from pipeline.core.members import (
    DEFLATED,
    SPARSE,
    STORED,
    Member,
    Names,
    PositionalFile,
    Table,
    follow_links,
    inflate,
    link_target,
    refuse_bomb,
)

COMPRESSED_TARS = (".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")
_ZIP_DATE = (1980, 1, 1, 0, 0, 0)  # the earliest of the format; fixed, so that equal content gives equal bytes
_SYMLINK, _KIND_OF_FILE = 0o120000, 0o170000  # of the Unix mode in a zip


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
    _names: Sequence[str]

    def names(self) -> list[str]:
        return self._names[:]  # type: ignore[return-value]  # a list, or Names, whose slices are lists

    def has(self, name: str) -> bool:
        return self._find(name) is not None

    def _find(self, name: str) -> int | None:
        at = bisect_left(self._names, name)
        return at if at < len(self._names) and self._names[at] == name else None


class _Folder(_Sorted):
    def __init__(self, path: Path) -> None:
        self.path = path
        self._names = Names.of(sorted(_walk(path, "", ())))

    def read(self, name: str) -> bytes:
        if not self.has(name):
            raise _missing(self.path, name)
        return (self.path / name).read_bytes()

    def close(self) -> None:
        return


def _walk(folder: Path, prefix: str, above: tuple[tuple[int, int], ...]) -> Iterator[str]:
    """Names of the files below a folder, through links (sequences are often links to another disk).

    A link to a folder that it is in is not followed: it would show the same files again without end.
    """
    about = folder.stat()
    here = (about.st_dev, about.st_ino)
    if here in above:
        return
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_dir():
                yield from _walk(folder / entry.name, f"{prefix}{entry.name}/", (*above, here))
            elif entry.is_file():
                yield prefix + entry.name


class _Packed(_Sorted):
    """Finds the members once, then reads them by position without a lock."""

    def __init__(self, path: Path, table: Table) -> None:
        self.path = path
        self.table = table
        self._names = table.names
        self._file = PositionalFile(path)

    def _member(self, name: str) -> Member:
        at = self._find(name)
        if at is None:
            raise _missing(self.path, name)
        return self.table.member(at)

    def close(self) -> None:
        self._file.close()


class _Zip(_Packed):
    def __init__(self, path: Path) -> None:
        super().__init__(path, cached_table(path, _index_zip))

    def read(self, name: str) -> bytes:
        member = self._member(name)
        refuse_bomb(self.path, name, member.packed, member.length)
        header = self._file.read(member.start, 30)
        # local header: name and extra lengths are at 26 and 28 and may differ from the central directory's
        skip = 30 + int.from_bytes(header[26:28], "little") + int.from_bytes(header[28:30], "little")
        data = self._file.read(member.start + skip, member.packed)
        try:
            if member.method == DEFLATED:
                data = inflate(data, member)
            elif member.method != STORED:
                with zipfile.ZipFile(self.path) as archive, archive.open(name) as file:
                    data = file.read(member.length + 1)
        except (zlib.error, zipfile.BadZipFile, NotImplementedError, RuntimeError) as error:
            raise UserError(
                f"{self.path}: {name} is damaged or encrypted ({error}); expected an intact file; download the archive "
                "again"
            ) from None
        if len(data) != member.length or zlib.crc32(data) != member.crc:
            raise UserError(
                f"{self.path}: {name} is damaged (wrong checksum); expected an intact file; download the archive again"
            )
        return data


def _index_zip(path: Path) -> Table:
    files: dict[str, Member] = {}
    links: dict[str, str] = {}
    try:
        with zipfile.ZipFile(path) as archive:
            for info in archive.infolist():
                if info.is_dir():
                    continue
                if (info.external_attr >> 16) & _KIND_OF_FILE == _SYMLINK and info.file_size < 4096:
                    links[info.filename] = link_target(info.filename, archive.read(info).decode("utf-8", "replace"))
                    continue
                place = (info.header_offset, info.compress_size, info.file_size, info.CRC, info.compress_type)
                files[info.filename] = Member(*place)
    except (zipfile.BadZipFile, OSError, RuntimeError, zlib.error) as error:
        raise UserError(
            f"{path} is not a readable zip ({error}); expected a complete archive; download it again"
        ) from None
    follow_links(path, files, links)
    return Table.of(files)


class _Tar(_Packed):
    """An uncompressed tar."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, cached_table(path, _index_tar))

    def read(self, name: str) -> bytes:
        member = self._member(name)
        if member.method == SPARSE:
            refuse_bomb(self.path, name, member.packed, member.length)
            with tarfile.open(self.path, "r:") as archive:
                archive.offset = member.start  # of its header
                info = archive.next()
                file = info and archive.extractfile(info)
                return file.read() if file else b""
        data = self._file.read(member.start, member.length)
        if len(data) != member.length:
            raise UserError(
                f"{self.path}: {name} ends early; expected {member.length} bytes; download the archive again"
            )
        return data


def _index_tar(path: Path) -> Table:
    files: dict[str, Member] = {}
    links: dict[str, str] = {}
    try:
        with tarfile.open(path, "r:") as archive:
            for info in archive:
                name = info.name.removeprefix("./")
                if info.issparse():
                    files[name] = Member(info.offset, info.size, info.size, 0, SPARSE)
                elif info.isfile():
                    files[name] = Member(info.offset_data, info.size, info.size, 0, STORED)
                elif info.islnk():  # a second name of a file; its target is a name in the archive
                    links[name] = info.linkname.removeprefix("./")
                elif info.issym():
                    links[name] = link_target(name, info.linkname)
            end = archive.offset
    except (tarfile.TarError, OSError) as error:
        raise UserError(
            f"{path} is not a readable tar ({error}); expected a complete archive; download it again"
        ) from None
    with open(path, "rb") as opened:
        opened.seek(end)
        if opened.read(512) != bytes(512):  # tarfile takes the end of the file, and damage, for the end of the archive
            raise UserError(
                f"{path} has no more readable files after {len(files)}, and not the zeros that end a tar, so it is cut "
                "off or damaged; expected a complete archive; download it again"
            )
    follow_links(path, files, links)
    return Table.of(files)


class _Shards(_Sorted):
    """Several archives as one: which part each name is in, as a number."""

    def __init__(self, path: Path, parts: list[Archive]) -> None:
        self.path = path
        self._parts = parts
        names = [part.names() for part in parts]
        order = sorted(chain.from_iterable(((name, i) for name in part) for i, part in enumerate(names)))
        self._names = Names.of([name for name, _ in order])
        self._where = np.array([i for _, i in order], np.int32)

    def read(self, name: str) -> bytes:
        at = self._find(name)
        if at is None:
            raise _missing(self.path, name)
        return self._parts[self._where[at]].read(name)

    def close(self) -> None:
        for part in self._parts:
            part.close()


def open_archive(path: Path) -> Archive:
    """Open a folder, a .zip or an uncompressed .tar.

    Links inside an archive are further names of their targets.

    Raises:
        UserError: `path` does not exist, is damaged or cut off, has a link to something outside it, or is a compressed
            tar (which has no random access).
    """
    if path.is_dir():
        return _Folder(path)
    if not path.exists():
        raise UserError(f"{path} does not exist; expected a folder, a .zip or a .tar; correct the path")
    if zipfile.is_zipfile(path) or path.suffix == ".zip":
        return _Zip(path)
    if path.name.endswith(COMPRESSED_TARS):
        raise UserError(
            f"{path} is a compressed tar; expected a .zip, an uncompressed .tar or a folder; unpack it first"
        )
    return _Tar(path)


def table_digest(path: Path) -> str:
    """Digest of the names, positions, lengths and (in a zip) checksums of an archive's members.

    Raises:
        UserError: as `open_archive`.
    """
    archive = open_archive(path)
    archive.close()
    return archive.table.digest() if isinstance(archive, _Packed) else ""


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
