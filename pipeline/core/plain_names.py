"""Names of a data set's files as its publisher wrote them, whatever a copy has added or changed."""

from __future__ import annotations

from bisect import bisect_left
from pathlib import Path

from pipeline.core.archives import Archive, open_archive
from pipeline.core.errors import UserError

SINGLE_FILES = (".h5", ".hdf5")  # that may be a data set by themselves
_JUNK = (".DS_Store", "Thumbs.db", "desktop.ini")
_SUFFIXES = {".jpeg": ".jpg", ".jpg": ".jpg", ".png": ".png"}


def is_junk(name: str) -> bool:
    """Whether an operating system left a file beside the real ones, as macOS leaves `._00000.jpg`."""
    base = name.rsplit("/", 1)[-1]
    return base.startswith("._") or base in _JUNK or name.startswith("__MACOSX/") or "/__MACOSX/" in name


def plain_name(name: str) -> str:
    """A name with `.jpg` for `.JPG`, `.jpeg` and `.JPEG`, and `.png` for `.PNG`."""
    stem, dot, suffix = name.rpartition(".")
    plain = _SUFFIXES.get(f".{suffix.lower()}") if dot else None
    return stem + plain if plain else name


class _Plain:
    """An archive under plain names; a name that is plain already has precedence over one that becomes the same."""

    def __init__(self, archive: Archive, names: list[str]) -> None:
        self.path = archive.path
        self._archive = archive
        self._real = {plain_name(name): name for name in names if plain_name(name) != name}
        for name in names:
            self._real.pop(name, None)
        self._names = sorted({plain_name(name) for name in names})

    def names(self) -> list[str]:
        return list(self._names)

    def has(self, name: str) -> bool:
        at = bisect_left(self._names, name)
        return at < len(self._names) and self._names[at] == name

    def read(self, name: str) -> bytes:
        if not self.has(name):
            raise UserError(
                f"{self.path} has no file {name}; the published layout has it; check or replace the archive"
            )
        return self._archive.read(self._real.get(name, name))

    def close(self) -> None:
        self._archive.close()


class _Single:
    """One file that is a data set by itself, as if it were alone in its folder."""

    def __init__(self, path: Path) -> None:
        self.path = path.parent
        self._file = path

    def names(self) -> list[str]:
        return [self._file.name]

    def has(self, name: str) -> bool:
        return name == self._file.name

    def read(self, name: str) -> bytes:
        return (self.path / name).read_bytes()

    def close(self) -> None:
        return


def open_plain(path: Path) -> Archive:
    """Open a folder, a .zip, an uncompressed .tar or a single HDF5 file of a data set.

    Files that an operating system leaves beside the real ones (`._*`, `__MACOSX`, `.DS_Store`) are not shown, and
    `.JPG`, `.jpeg` and `.PNG` are shown as `.jpg` and `.png`.

    Raises:
        UserError: as `open_archive`.
    """
    if path.suffix in SINGLE_FILES and path.is_file():
        return _Single(path)
    archive = open_archive(path)
    names = archive.names()
    kept = [name for name in names if not is_junk(name)]
    if len(kept) == len(names) and all(name == plain_name(name) for name in names):
        return archive
    return _Plain(archive, kept)
