"""MSCOCO: images with instance masks as polygons or run lengths."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco_mask

from pipeline.core.archives import Archive, open_archive
from pipeline.core.errors import UserError
from pipeline.core.images import decode_rgb
from pipeline.datasets.find_archives import list_archives
from pipeline.datasets.stills import Instances, StillSource

_ANNOTATIONS = "instances_train2017.json"
_LAST_THING = 91  # detection categories end here; ids above are `stuff` of the panoptic files
_LEAST_POLYGON = 6  # coordinates of a triangle


class _Entry(NamedTuple):
    """One image: where it lies, its size, and its segmentations as the file gives them."""

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
        entry = self._entries[image_id]
        name = f"{entry.archive.path}: {entry.member}"
        image = decode_rgb(entry.archive.read(entry.member), name)
        if image.shape[:2] != (entry.height, entry.width):
            raise UserError(
                f"{name} is {image.shape[1]}x{image.shape[0]}; expected {entry.width}x{entry.height}, as annotated; "
                "replace one of them"
            )
        return image

    def instances(self, image_id: str) -> Instances:
        """Objects that are no crowd; crowd regions outside of them are void."""
        entry = self._entries[image_id]
        masks = [self._rasterize(segmentation, entry) for segmentation in entry.objects]
        crowds = [self._rasterize(segmentation, entry) for segmentation in entry.crowds]
        stacked = np.stack(masks)
        stacked = stacked[stacked.any(axis=(1, 2))]  # a polygon thinner than a pixel may cover none
        void = np.any(np.stack([np.zeros((entry.height, entry.width), np.bool_), *crowds]), axis=0)
        return Instances(stacked, void & ~stacked.any(axis=0))

    def _rasterize(self, segmentation: Any, entry: _Entry) -> NDArray[np.bool_]:
        try:
            return _decode(segmentation, entry.height, entry.width)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise UserError(
                f"{entry.archive.path}: a segmentation of {entry.member} cannot be decoded ({error}); expected "
                f"polygons or run lengths of {entry.width}x{entry.height}; check the annotation file"
            ) from None


def _decode(segmentation: Any, height: int, width: int) -> NDArray[np.bool_]:
    """Polygons, uncompressed or compressed run lengths to bool H,W."""
    if isinstance(segmentation, list):
        parts = coco_mask.frPyObjects(segmentation, height, width)
        return np.asarray(coco_mask.decode(coco_mask.merge(parts)), np.bool_)
    if tuple(segmentation["size"]) != (height, width):
        raise ValueError(f"its size is {segmentation['size']}")
    counts = segmentation["counts"]
    if isinstance(counts, list):
        runs = coco_mask.frPyObjects(segmentation, height, width)
    else:
        runs = {"size": [height, width], "counts": counts.encode() if isinstance(counts, str) else counts}
    return np.asarray(coco_mask.decode(runs), np.bool_)


def open_coco(raw: Path) -> StillSource:
    """Open COCO train2017: the images that hold at least one object that is neither crowd nor stuff.

    `counts` of the source: images, images_left_out (without such an object), instances, crowds (void), stuff (left
    out), degenerate (polygons of fewer than three points, left out).

    Args:
        raw: a folder holding `train2017.zip` and `annotations_trainval2017.zip` (names are free), or both extracted.

    Raises:
        UserError: no or several annotation files, an unreadable one, images missing, or no usable image.
    """
    archives = [open_archive(path) for path in list_archives(raw)] or [open_archive(raw)]
    annotations, member = _find_annotations(archives, raw)
    data = _read_json(annotations, member)
    files = {name.rsplit("/", 1)[-1]: (archive, name) for archive in archives for name in archive.names()}
    try:
        entries, counts, missing = _index(data, files)
    except (KeyError, TypeError, AttributeError) as error:
        raise _unlike_coco(annotations, member, error) from None
    if missing:
        raise UserError(
            f"{raw} lacks {len(missing)} images of {member}, the first {missing[0]}; expected them in train2017/; "
            "check the archive of images"
        )
    if not entries:
        raise UserError(f"{annotations.path}: {member} has no image with an object; expected instances; check the file")
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


def _unlike_coco(archive: Archive, member: str, error: Exception) -> UserError:
    found = f"{archive.path}: {member} cannot be understood ({error!r})"
    return UserError(f"{found}; expected COCO's detection format; replace the file")


def _read_json(archive: Archive, member: str) -> dict[str, Any]:
    try:
        data = json.loads(archive.read(member))
        if not isinstance(data, dict):
            raise ValueError("no mapping")
    except ValueError as error:
        raise _unlike_coco(archive, member, error) from None
    return data


def _index(
    data: dict[str, Any], files: dict[str, tuple[Archive, str]]
) -> tuple[dict[str, _Entry], dict[str, int], list[str]]:
    """Sort the annotations by image.

    Args:
        data: the annotation file.
        files: file name -> where it lies.

    Returns:
        Entries by image id ("000000142238"), counts of what was taken and left out, names of files that are nowhere.
    """
    kinds = ("images", "images_left_out", "instances", "crowds", "stuff", "degenerate")
    counts = Counter(dict.fromkeys(kinds, 0))
    stuff = {category["id"] for category in data.get("categories", []) if category.get("isthing", 1) == 0}
    objects: dict[int, list[Any]] = {}
    crowds: dict[int, list[Any]] = {}
    for annotation in data["annotations"]:
        segmentation = annotation["segmentation"]
        if annotation["category_id"] > _LAST_THING or annotation["category_id"] in stuff:
            counts["stuff"] += 1
            continue
        if isinstance(segmentation, list):
            whole = [polygon for polygon in segmentation if len(polygon) >= _LEAST_POLYGON]
            counts["degenerate"] += len(segmentation) - len(whole)
            if not whole:
                continue
            segmentation = whole
        crowd = bool(annotation.get("iscrowd", 0))
        counts["crowds" if crowd else "instances"] += 1
        (crowds if crowd else objects).setdefault(annotation["image_id"], []).append(segmentation)

    entries, missing = {}, []
    for image in data["images"]:
        key, file_name = image["id"], image["file_name"]
        if key not in objects:
            counts["images_left_out"] += 1
        elif file_name not in files:
            missing.append(file_name)
        else:
            place = (*files[file_name], image["height"], image["width"])
            entries[file_name.rsplit(".", 1)[0]] = _Entry(*place, objects[key], crowds.get(key, []))
    counts["images"] = len(entries)
    return entries, dict(counts), missing
