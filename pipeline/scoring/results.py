"""A folder or zip of results: one indexed PNG a frame, `<sequence>/<frame>.png`, or that below `Annotations/`."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pipeline.core.archives import open_archive
from pipeline.core.errors import UserError
from pipeline.scoring.indexed_png import decode_indexed

_TOP = "Annotations/"


class Results:
    """Masks of a method; reading is safe across threads and forks.

    Args:
        path: a folder or a zip.

    Raises:
        UserError: no such folder or zip.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._archive = open_archive(path)
        names = self._archive.names()
        inside = bool(names) and all(name.startswith(_TOP) for name in names)
        self._top = _TOP if inside else ""  # the layout of YouTube-VOS' server

    def names(self) -> list[str]:
        """Names of all files, sorted, as `<sequence>/<frame>.png` where they are in order."""
        return [name.removeprefix(self._top) for name in self._archive.names()]

    def label(self, sequence: str, frame_id: str) -> str:
        """Path of a mask, for messages."""
        return f"{self.path}/{self._top}{sequence}/{frame_id}.png"

    def data(self, sequence: str, frame_id: str) -> bytes:
        """The bytes of a mask.

        Raises:
            UserError: it is missing.
        """
        name = f"{self._top}{sequence}/{frame_id}.png"
        if self._archive.has(name):
            return self._archive.read(name)
        names = self.names()
        if any(other.startswith(f"{sequence}/") for other in names):
            raise UserError(
                f"{self.label(sequence, frame_id)} is missing; expected a mask for every frame of the sequence, "
                "named as its annotation; add it (--check names every fault)"
            )
        tops = sorted({other.partition("/")[0] for other in names})
        found = f"{', '.join(tops[:3])}{', ...' if len(tops) > 3 else ''}" if tops else "nothing"
        raise UserError(
            f"{self.path}/{sequence} is missing; expected a folder for every sequence of the split; found {found}; "
            "add it or name the folder that holds the sequences"
        )

    def mask(self, sequence: str, frame_id: str) -> NDArray[np.uint8]:
        """A mask, uint8 H,W ids.

        Raises:
            UserError: missing, unreadable, or a colour image.
        """
        return decode_indexed(self.data(sequence, frame_id), self.label(sequence, frame_id))

    def extra_folders(self, expected: Iterable[str]) -> list[str]:
        """Top folders, with or without files, that belong to no expected sequence; sorted."""
        found = {name.partition("/")[0] for name in self.names() if "/" in name}
        if self.path.is_dir():
            found |= {entry.name for entry in (self.path / self._top).iterdir() if entry.is_dir()}
        return sorted(found - set(expected))
