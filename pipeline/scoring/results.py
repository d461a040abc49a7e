"""A folder or zip of results: indexed PNGs named `<sequence>/<frame>.png`, or the same below `Annotations/`."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pipeline.core.archives import open_archive
from pipeline.core.errors import UserError
from pipeline.core.names import natural_key
from pipeline.scoring.indexed_png import decode_indexed

RESOLUTION = re.compile(r"\d+p|Full-Resolution")
"""Name of a folder for one of several sizes of a data set."""

_TOP = "Annotations/"


class Results:
    """Masks of a method; reading is safe across threads and forks.

    Args:
        path: a folder or a zip.
        only: name of the sequence if there is only one: its masks may also be in `path` itself, or in a folder of any
            name.

    Raises:
        UserError: there is no such folder or zip.
    """

    def __init__(self, path: Path, only: str | None = None) -> None:
        self.path = path
        self._archive = open_archive(path)
        self._top = _top_of(self._archive.names())
        self._masks: dict[str, list[str]] = {}
        for name in self.names():
            if name.endswith(".png"):
                folder, _, file = name.rpartition("/")
                self._masks.setdefault(folder, []).append(file.removesuffix(".png"))
        self._folders: dict[str, str] = {}
        if only is not None and only not in self._masks and len(self._masks) == 1:
            self._folders[only] = next(iter(self._masks))

    def names(self) -> list[str]:
        """Names of all files, sorted, in the form `<sequence>/<frame>.png` if they are correct."""
        return [name.removeprefix(self._top) for name in self._archive.names()]

    def frames(self, sequence: str) -> list[str]:
        """Names of a sequence's masks without `.png`, in natural order; empty if there are none."""
        return sorted(self._masks.get(self._folders.get(sequence, sequence), []), key=natural_key)

    def label(self, sequence: str, frame_id: str) -> str:
        """Path of a mask, for messages."""
        return f"{self.path}/{self._member(sequence, frame_id)}"

    def _member(self, sequence: str, frame_id: str) -> str:
        folder = self._folders.get(sequence, sequence)
        return f"{self._top}{folder}/{frame_id}.png" if folder else f"{self._top}{frame_id}.png"

    def data(self, sequence: str, frame_id: str) -> bytes:
        """The bytes of a mask.

        Raises:
            UserError: it is missing.
        """
        name = self._member(sequence, frame_id)
        if self._archive.has(name):
            return self._archive.read(name)
        if self.frames(sequence):
            raise UserError(
                f"{self.label(sequence, frame_id)} is missing; expected a mask for every frame of the sequence, "
                "named like its annotation; add it (--check lists every fault)"
            )
        tops = sorted({other.partition("/")[0] for other in self.names()})
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
        """Top folders, including empty ones, that belong to no expected sequence; sorted."""
        found = {name.partition("/")[0] for name in self.names() if "/" in name}
        if self.path.is_dir():
            found |= {entry.name for entry in (self.path / self._top).iterdir() if entry.is_dir()}
        return sorted(found - {*expected, *self._folders.values()})


def _top_of(names: list[str]) -> str:
    """The folder of all sequences: YouTube-VOS' server expects `Annotations/`, DAVIS adds one for the resolution."""
    top = _TOP if names and all(name.startswith(_TOP) for name in names) else ""
    heads = {name.removeprefix(top).partition("/")[0] for name in names}
    if len(heads) == 1 and RESOLUTION.fullmatch(head := heads.pop()):
        top += f"{head}/"
    return top
