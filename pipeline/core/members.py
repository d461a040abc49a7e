"""The members of a zip or tar in a compact table, and reading them by position through few file descriptors."""

from __future__ import annotations

import hashlib
import os
import threading
import weakref
import zlib
from collections import OrderedDict, deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import Path, PurePosixPath
from typing import NamedTuple, overload

import numpy as np
from numpy.typing import NDArray

from pipeline.core.errors import UserError

STORED, DEFLATED, SPARSE = 0, 8, 1000  # as in a zip; SPARSE is a tar's file with holes
_MOST_OPEN = 64  # file descriptors of archives in a process; systems allow 1024 or more
_BOMB_BYTES, _BOMB_RATIO = 64 << 20, 100  # a larger member that shrinks more than this is refused


class Member(NamedTuple):
    """One file of an archive.

    Attributes:
        start: position in the archive: of its data (tar), or of its local header (zip).
        packed: bytes in the archive.
        length: bytes of the file.
        crc: CRC-32 of the file; 0 in a tar, which has none.
        method: how it is compressed: STORED, DEFLATED, another number of the zip format, or SPARSE.
    """

    start: int
    packed: int
    length: int
    crc: int
    method: int


class Names(Sequence[str]):
    """Sorted names in one block of bytes, a tenth of the memory of a list of strings.

    Args:
        text: all names in UTF-8, one after the other.
        ends: int64 N, the position after each name.
    """

    def __init__(self, text: bytes, ends: NDArray[np.int64]) -> None:
        self.text, self.ends = text, ends

    @classmethod
    def of(cls, names: Sequence[str]) -> Names:
        """Pack sorted names."""
        parts = [name.encode("utf-8", "surrogateescape") for name in names]
        return cls(b"".join(parts), np.cumsum([len(part) for part in parts], dtype=np.int64))

    def __len__(self) -> int:
        return len(self.ends)

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> list[str]: ...
    def __getitem__(self, index: int | slice) -> str | list[str]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        if index < 0:
            index += len(self)
        if not 0 <= index < len(self):
            raise IndexError(index)
        start = int(self.ends[index - 1]) if index else 0
        return self.text[start : int(self.ends[index])].decode("utf-8", "surrogateescape")


@dataclass(frozen=True)
class Table:
    """All members of an archive, sorted by name.

    Attributes:
        names: sorted.
        columns: int64 N,5, the fields of `Member`.
    """

    names: Names
    columns: NDArray[np.int64]

    @classmethod
    def of(cls, members: Mapping[str, Member]) -> Table:
        """The table of some members."""
        names = sorted(members)
        columns = np.array([members[name] for name in names], np.int64).reshape(len(names), len(Member._fields))
        return cls(Names.of(names), columns)

    def digest(self) -> str:
        """Hexadecimal digest of all of it."""
        content = hashlib.sha256(self.names.text)
        content.update(np.ascontiguousarray(self.names.ends, "<i8").tobytes())
        content.update(np.ascontiguousarray(self.columns, "<i8").tobytes())
        return content.hexdigest()

    def member(self, index: int) -> Member:
        """The member at a position of `names`."""
        return Member(*(int(value) for value in self.columns[index]))


def follow_links(archive: Path, files: dict[str, Member], links: Mapping[str, str]) -> None:
    """Add the links of an archive to its files, as further names of the same bytes.

    Args:
        archive: for the error.
        files: by name; extended.
        links: name -> the name of its target inside the archive; a file, or a folder.

    Raises:
        UserError: a link to something that is not in the archive.
    """
    left = dict(links)
    while left:
        found: dict[str, Member] = {}
        for name, target in left.items():
            if target in files:
                found[name] = files[target]
            elif inside := {other: m for other, m in files.items() if other.startswith(f"{target}/")}:
                found |= {name + other[len(target) :]: member for other, member in inside.items()}
        done = [name for name, target in left.items() if name in found or _any_below(found, name)]
        if not done:
            name, target = next(iter(left.items()))
            raise UserError(
                f"{archive} has the link {name} to {target}, which is not in the archive ({len(left)} such links); "
                "expected files; pack it again with the files themselves (tar -h, zip without -y)"
            )
        for name in done:
            del left[name]
        files |= found


def _any_below(found: Mapping[str, Member], name: str) -> bool:
    return any(other.startswith(f"{name}/") for other in found)


def link_target(name: str, target: str) -> str:
    """The name inside an archive that a symbolic link refers to; one that leads out of it keeps its `..`."""
    parts: list[str] = []
    for part in (PurePosixPath(name).parent / target).parts:
        if part == ".." and parts and parts[-1] != "..":
            parts.pop()
        elif part != ".":
            parts.append(part)
    return "/".join(parts)


class _Descriptors:
    """File descriptors of a process, the least recently used closed first; reads by position share one safely."""

    def __init__(self) -> None:
        self._open: OrderedDict[int, list[int]] = OrderedDict()  # token -> [descriptor, readers]
        self._dropped: deque[int] = deque()
        self._lock = threading.Lock()
        self._tokens = count()
        os.register_at_fork(after_in_child=self._after_fork)

    def _after_fork(self) -> None:
        self._lock = threading.Lock()  # another thread of the parent may have held it
        for entry in self._open.values():
            entry[1] = 0

    def token(self) -> int:
        """A name for one archive's descriptor."""
        return next(self._tokens)

    @contextmanager
    def borrow(self, token: int, path: Path) -> Iterator[int]:
        """The descriptor of `path`, open until the block ends."""
        with self._lock:
            self._close_dropped()
            if token not in self._open:
                self._open[token] = [os.open(path, os.O_RDONLY | os.O_CLOEXEC), 0]
            self._open.move_to_end(token)
            entry = self._open[token]
            entry[1] += 1
            self._shrink()
        try:
            yield entry[0]
        finally:
            with self._lock:
                entry[1] -= 1

    def _shrink(self) -> None:
        for token in [t for t, (_, readers) in self._open.items() if not readers][: len(self._open) - _MOST_OPEN]:
            os.close(self._open.pop(token)[0])

    def _close_dropped(self) -> None:
        for _ in range(len(self._dropped)):
            token = self._dropped.popleft()
            if token in self._open:
                os.close(self._open.pop(token)[0])

    def drop(self, token: int) -> None:
        """Close an archive's descriptor soon; takes no lock, because the garbage collector calls it at any moment."""
        self._dropped.append(token)


_descriptors = _Descriptors()


class PositionalFile:
    """A file that is read by position, from any number of threads and forked processes."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._token = _descriptors.token()
        self.close = weakref.finalize(self, _descriptors.drop, self._token)

    def read(self, start: int, length: int) -> bytes:
        """Up to `length` bytes from `start`; fewer at the end of the file."""
        with _descriptors.borrow(self._token, self.path) as descriptor:
            data = os.pread(descriptor, length, start)
            while 0 < len(data) < length and (more := os.pread(descriptor, length - len(data), start + len(data))):
                data += more
        return data


def inflate(data: bytes, member: Member) -> bytes:
    """Decompress a deflated member, at most to its length and one byte.

    Raises:
        zlib.error: damaged.
    """
    return zlib.decompressobj(-15).decompress(data, member.length + 1)


def refuse_bomb(archive: Path, name: str, packed: int, length: int) -> None:
    """Refuse a file that would fill the memory although it is small in its archive.

    Raises:
        UserError: it is one.
    """
    if length > _BOMB_BYTES and length > _BOMB_RATIO * max(packed, 1):
        raise UserError(
            f"{archive}: {name} unpacks from {packed / 1e6:.1f} MB to {length / 1e6:.0f} MB; expected at most "
            f"{_BOMB_RATIO} times its packed length; unpack it yourself if you trust it, and use the folder"
        )
