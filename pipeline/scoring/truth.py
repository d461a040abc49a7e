"""Annotations in any folder or archive of PNG masks, without lists of a split and without frames."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pipeline.core.archives import Archive, open_archive
from pipeline.core.errors import UserError
from pipeline.core.images import VOID
from pipeline.core.names import natural_key
from pipeline.core.runtime import progress
from pipeline.scoring.indexed_png import decode_indexed
from pipeline.scoring.results import RESOLUTION

_IMAGES = (".jpg", ".jpeg", ".png")


@dataclass(frozen=True)
class TruthVideo:
    """A sequence of a ground-truth folder.

    Attributes:
        name: its folder below the masks' top folder; for masks directly in that folder, the name of the folder or
            archive.
        frames: ids of its frames, in natural order: all of them if there are images next to the masks, otherwise the
            annotated ones.
        annotated: ids of the frames that have a mask.
        first_seen: object id -> id of the first frame whose mask shows it.
    """

    name: str
    frames: tuple[str, ...]
    annotated: tuple[str, ...]
    first_seen: dict[int, str]

    @property
    def kind(self) -> str:
        """`single` or `multi`, by the number of objects."""
        return "multi" if len(self.first_seen) > 1 else "single"


class Truth:
    """Every sequence of masks in a folder or archive.

    Masks are named `<sequence>/<frame>.png` or, for a single sequence, `<frame>.png`. Above the sequences there may be
    `Annotations` and a folder named by a resolution (`480p`, `1080p`, `Full-Resolution`), with `JPEGImages` next to it.
    If all masks contain only the ids 0 and 255, 255 is the one object; otherwise 255 is void.

    Args:
        path: a folder, a .zip or a .tar.
        resolution: which of several resolutions; None: there is only one.

    Attributes:
        name: of the data set, for messages.
        videos: the sequences, in natural order.
        binary: whether 255 is the object.
        knows_frames: whether there are images next to the masks, so that frames without a mask are also known.

    Raises:
        UserError: no mask, a sequence without object, several folders that may contain the masks, or an unreadable
            mask.
    """

    def __init__(self, path: Path, resolution: str | None) -> None:
        self.name = str(path)
        self._archive = open_archive(path)
        self._top, groups = _group_masks(self._archive, resolution)
        own = path.resolve().stem
        self._folders = {folder or own: folder for folder in groups}
        images = _group_images(self._archive, self._top)
        self.knows_frames = bool(images)
        seen = self._find_objects(groups)
        self.binary = all(set(objects) <= {VOID} for objects in seen.values()) and any(seen.values())
        self.videos = tuple(
            TruthVideo(name, images.get(folder, groups[folder]), groups[folder], self._first_seen(name, seen[folder]))
            for name, folder in self._folders.items()
        )

    def mask(self, video: TruthVideo, frame_id: str) -> NDArray[np.uint8]:
        """An annotation, uint8 H,W ids; 255 is void; binary masks have the ids 0 and 1.

        Raises:
            UserError: unreadable, or a colour image.
        """
        ids = self._read(self._folders[video.name], frame_id)
        return (ids > 0).astype(np.uint8) if self.binary else ids

    def _read(self, folder: str, frame_id: str) -> NDArray[np.uint8]:
        name = f"{self._top}{folder}/{frame_id}.png" if folder else f"{self._top}{frame_id}.png"
        return decode_indexed(self._archive.read(name), f"{self._archive.path}/{name}")

    def _find_objects(self, groups: dict[str, tuple[str, ...]]) -> dict[str, dict[int, str]]:
        """Folder -> object id (including 255) -> id of the first frame that shows it."""
        seen: dict[str, dict[int, str]] = {folder: {} for folder in groups}
        masks = [(folder, frame_id) for folder, ids in groups.items() for frame_id in ids]
        for folder, frame_id in progress(masks, len(masks), "reading the ground truth"):
            counts = np.bincount(self._read(folder, frame_id).reshape(-1))
            for object_id in np.flatnonzero(counts):
                if object_id:
                    seen[folder].setdefault(int(object_id), frame_id)
        return seen

    def _first_seen(self, name: str, seen: dict[int, str]) -> dict[int, str]:
        objects = {1: seen[VOID]} if self.binary and seen else {i: seen[i] for i in sorted(seen) if i != VOID}
        if not objects:
            raise UserError(
                f"{self.name}: no mask of {name} has an object; expected ids from 1 on; correct the masks or remove "
                "the sequence"
            )
        return objects


def _group_masks(archive: Archive, resolution: str | None) -> tuple[str, dict[str, tuple[str, ...]]]:
    """The masks' top folder ("" or "Annotations/480p/"), and frame ids by folder below it, in natural order."""
    names = [name for name in archive.names() if name.endswith(".png") and not _hidden(name)]
    tops = {name[: at + len("Annotations/")] for name in names if (at := f"/{name}".find("/Annotations/")) >= 0}
    if not names:
        raise UserError(f"{archive.path} contains no PNG; expected masks, <sequence>/<frame>.png; correct the path")
    if len(tops) > 1:
        raise _several(archive, sorted(tops), "name one of them")
    top = tops.pop() if tops else ""
    below = [name[len(top) :] for name in names if name.startswith(top)]
    heads = {name.split("/")[0] for name in below}
    if all(RESOLUTION.fullmatch(head) for head in heads) or resolution:
        if resolution is None and len(heads) > 1:
            raise _several(archive, sorted(heads), "choose with --resolution")
        top += f"{resolution or heads.pop()}/"
        below = [name[len(top) :] for name in names if name.startswith(top)]
    if not below:
        raise UserError(f"{archive.path} has no mask in {top}; expected some; correct --resolution")
    return top, _group(below)


def _group_images(archive: Archive, top: str) -> dict[str, tuple[str, ...]]:
    """Frame ids by folder of the images next to the masks; empty if there are none."""
    if "Annotations/" not in top:
        return {}
    beside = top.replace("Annotations/", "JPEGImages/")
    names = [n for n in archive.names() if n.startswith(beside) and n.lower().endswith(_IMAGES) and not _hidden(n)]
    return _group([name[len(beside) :] for name in names])


def _group(names: Sequence[str]) -> dict[str, tuple[str, ...]]:
    groups: dict[str, list[str]] = {}
    for name in sorted(names, key=natural_key):
        folder, _, file = name.rpartition("/")
        groups.setdefault(folder, []).append(file.rpartition(".")[0])
    return {folder: tuple(sorted(ids, key=natural_key)) for folder, ids in groups.items()}


def _hidden(name: str) -> bool:
    return any(part.startswith(".") or part == "__MACOSX" for part in name.split("/"))


def _several(archive: Archive, found: Sequence[str], remedy: str) -> UserError:
    return UserError(f"{archive.path} contains masks in {' and '.join(found)}; expected them in one folder; {remedy}")
