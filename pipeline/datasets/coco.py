"""MSCOCO: images with instance masks as polygons or run lengths; also for your own data in that format."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pipeline.core.archives import Archive
from pipeline.core.errors import UserError
from pipeline.core.plain_names import open_plain, plain_name
from pipeline.core.runtime import log
from pipeline.core.stills import Instances, StillSource
from pipeline.datasets.coco_annotations import AnnotationIndex
from pipeline.datasets.coco_segmentation import draw
from pipeline.datasets.find_archives import list_archives
from pipeline.datasets.still_pairs import read_image

_ANNOTATIONS = "instances_train2017.json"


class _Entry(NamedTuple):
    """One image: its file, its size, and its segmentations as the file gives them."""

    archive: Archive
    member: str
    height: int
    width: int
    objects: list[Any]
    crowds: list[Any]


class _Coco:
    name = "coco"

    def __init__(self, entries: dict[str, _Entry], counts: dict[str, int]) -> None:
        self._entries = entries
        self.images = tuple(sorted(entries))
        self.counts = counts

    def image(self, image_id: str) -> NDArray[np.uint8]:
        """The image, turned as it was annotated; UserError if its size differs."""
        entry = self._entries[image_id]
        return read_image(entry.archive, entry.member, (entry.height, entry.width), "annotated")

    def instances(self, image_id: str) -> Instances:
        """Objects that are not crowds; crowd regions outside of them are void."""
        entry = self._entries[image_id]
        shape = (entry.height, entry.width)
        stacked = np.stack([draw(segmentation, *shape) for segmentation in entry.objects])
        stacked = stacked[stacked.any(axis=(1, 2))]  # a polygon thinner than a pixel may cover none
        void = np.zeros(shape, np.bool_)
        for segmentation in entry.crowds:
            void |= draw(segmentation, *shape)
        return Instances(stacked, void & ~stacked.any(axis=0))


def open_coco(raw: Path) -> StillSource:
    """Open COCO train2017, or your own data: the images with at least one object that is neither crowd nor stuff.

    Stuff is a category whose `isthing` is 0, or one of the published stuff categories (by id and `supercategory`).
    One log line says how many annotations were left out, and why.

    `counts` of the source: images, images_left_out (without such an object), instances, crowds (void), and annotations
    left out: stuff, degenerate (polygons of fewer than three points), without_segmentation (none, or an empty one),
    without_image (of an image that the file does not list).

    Args:
        raw: a folder holding `train2017.zip` and `annotations_trainval2017.zip` (names are free), or both extracted.

    Raises:
        UserError: no or several annotation files, an unreadable one, a segmentation that cannot be drawn, images
            missing, or no usable image.
    """
    archives = [open_plain(path) for path in list_archives(raw)] or [open_plain(raw)]
    annotations, member = _find_annotations(archives, raw)
    data = _read_json(annotations, member)
    where = f"{annotations.path}: {member}"
    try:
        index = AnnotationIndex(data, where)
        entries, missing = _locate(data["images"], index, _Files(archives))
    except (KeyError, TypeError, AttributeError) as error:
        raise _unlike_coco(where, error) from None
    if missing:
        raise UserError(
            f"{raw} lacks {len(missing)} images of {member}, the first {missing[0]}; expected them in train2017/; "
            "check the archive of images"
        )
    left_out = index.left_out()
    if not entries:
        reason = f" ({left_out})" if left_out else ""
        raise UserError(f"{where} has no image with an object{reason}; expected instances; check the file")
    if left_out:
        log(f"{where}: left out {left_out}")
    counts = {"images": len(entries), "images_left_out": len(data["images"]) - len(entries), **index.counts}
    return _Coco(entries, counts)


def _find_annotations(archives: Sequence[Archive], raw: Path) -> tuple[Archive, str]:
    found = [
        (archive, name)
        for archive in archives
        for name in archive.names()
        if (base := name.rsplit("/", 1)[-1]).startswith("instances_") and base.endswith(".json")
    ]
    wanted = [hit for hit in found if hit[1].endswith(_ANNOTATIONS)] or found
    if len(wanted) != 1:
        names = ", ".join(f"{archive.path.name}: {name}" for archive, name in wanted) or "no instances_*.json"
        raise UserError(
            f"{raw} holds {names}; expected one annotations/{_ANNOTATIONS} in it or its archives; check the path"
        )
    return wanted[0]


def _unlike_coco(where: str, error: Exception) -> UserError:
    found = f"{where} cannot be interpreted ({error!r})"
    return UserError(f"{found}; expected COCO's detection format; replace the file")


def _read_json(archive: Archive, member: str) -> dict[str, Any]:
    try:
        data = json.loads(archive.read(member))
        if not isinstance(data, dict):
            raise ValueError("not a mapping")
    except (ValueError, RecursionError) as error:
        raise _unlike_coco(f"{archive.path}: {member}", error) from None
    return data


class _Files:
    """Members of archives, found by the file name that an annotation file gives an image."""

    def __init__(self, archives: Sequence[Archive]) -> None:
        self._by_base: dict[str, list[tuple[Archive, str]]] = {}
        for archive in archives:
            for name in archive.names():
                self._by_base.setdefault(name.rsplit("/", 1)[-1], []).append((archive, name))

    def find(self, file_name: str) -> tuple[Archive, str] | None:
        """The file of an image; folders in its name only decide between several files, as archives differ in them.

        Raises:
            UserError: several files match.
        """
        path = plain_name(file_name.replace("\\", "/"))
        found = self._by_base.get(path.rsplit("/", 1)[-1], [])
        exact = [hit for hit in found if hit[1] == path or hit[1].endswith(f"/{path}")]
        found = exact or found
        if len(found) > 1:
            names = " and ".join(f"{archive.path}: {name}" for archive, name in found[:2])
            raise UserError(
                f"the image {file_name} may be {names}; expected one file of that name; write its folder in file_name"
            )
        return found[0] if found else None


def _locate(
    images: Sequence[Mapping[str, Any]], index: AnnotationIndex, files: _Files
) -> tuple[dict[str, _Entry], list[str]]:
    """Entries of the images that show an object, by image id ("000000142238"), and names of files that do not exist."""
    entries: dict[str, _Entry] = {}
    missing = []
    for image in images:
        key, file_name = image["id"], image["file_name"]
        if key not in index.objects:
            continue
        place = files.find(file_name)
        if place is None:
            missing.append(file_name)
            continue
        name = file_name.rsplit(".", 1)[0]
        name = name if name not in entries else f"{name} ({key})"
        entries[name] = _Entry(*place, image["height"], image["width"], index.objects[key], index.crowds.get(key, []))
    return entries, missing
