"""The annotations of a COCO file by image: which are objects, which are crowds, and what is left out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pipeline.core.errors import UserError
from pipeline.datasets.coco_segmentation import MIN_POLYGON, compact, find_fault

_KINDS = ("instances", "crowds", "stuff", "degenerate", "without_segmentation", "without_image")
_STUFF_IDS = range(92, 184)  # of the published stuff annotations, which have no `isthing`
_STUFF_GROUPS = {
    "textile", "building", "raw-material", "furniture-stuff", "floor", "food-stuff", "water", "ground", "sky", "plant",
    "structural", "window", "wall", "ceiling", "solid", "other",
}  # fmt: skip


class AnnotationIndex:
    """The annotations of a file by image.

    Args:
        data: the annotation file.
        where: its name, for errors.

    Attributes:
        objects: image id -> segmentations of its objects, in compact form.
        crowds: image id -> segmentations of its crowds, in compact form.
        counts: how many were used, and how many left out.
        stuff: names of the stuff categories that were left out.

    Raises:
        UserError: a segmentation that cannot be drawn.
    """

    def __init__(self, data: Mapping[str, Any], where: str) -> None:
        self.objects: dict[Any, list[Any]] = {}
        self.crowds: dict[Any, list[Any]] = {}
        self.counts = dict.fromkeys(_KINDS, 0)
        self.stuff: set[str] = set()
        images = {image["id"]: image for image in data["images"]}
        stuff = {c["id"]: f"{c['id']} {c.get('name', '')}".strip() for c in data.get("categories", []) if _is_stuff(c)}
        faults = []
        for annotation in data["annotations"]:
            image = images.get(annotation["image_id"])
            if annotation["category_id"] in stuff:
                self.counts["stuff"] += 1
                self.stuff.add(stuff[annotation["category_id"]])
            elif not annotation.get("segmentation"):
                self.counts["without_segmentation"] += 1
            elif image is None:
                self.counts["without_image"] += 1
            elif fault := self._add(annotation, image):
                faults.append(
                    f"the segmentation of annotation {annotation.get('id')} of {image['file_name']} cannot be drawn: "
                    f"{fault}"
                )
        if faults:
            more = f" ({len(faults)} such annotations)" if len(faults) > 1 else ""
            raise UserError(
                f"{where}: {faults[0]}{more}; expected polygons or run lengths that cover the image; correct or remove"
                " the annotation"
            )

    def _add(self, annotation: Mapping[str, Any], image: Mapping[str, Any]) -> str | None:
        """Add an annotation; returns why its segmentation cannot be drawn, or None."""
        segmentation = annotation["segmentation"]
        if isinstance(segmentation, list):
            polygons = [segmentation] if isinstance(segmentation[0], int | float) else segmentation
            segmentation = [polygon for polygon in polygons if len(polygon) >= MIN_POLYGON]
            self.counts["degenerate"] += len(polygons) - len(segmentation)
            if not segmentation:
                return None
        fault = find_fault(segmentation, image["height"], image["width"])
        if fault is None:
            crowd = bool(annotation.get("iscrowd", 0))
            self.counts["crowds" if crowd else "instances"] += 1
            (self.crowds if crowd else self.objects).setdefault(image["id"], []).append(compact(segmentation))
        return fault

    def left_out(self) -> str:
        """What was left out and why, for the log; empty if nothing was."""
        names = sorted(self.stuff)
        listed = ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")
        reasons = {
            "stuff": f"annotations of stuff categories ({listed})",
            "without_segmentation": "annotations without a segmentation",
            "degenerate": "polygons of fewer than three points",
            "without_image": "annotations of images that the file does not list",
        }
        return ", ".join(f"{self.counts[key]} {what}" for key, what in reasons.items() if self.counts[key])


def _is_stuff(category: Mapping[str, Any]) -> bool:
    """Whether a category is stuff (grass, sky), not things that can be counted."""
    if "isthing" in category:
        return category["isthing"] == 0
    return category["id"] in _STUFF_IDS and category.get("supercategory") in _STUFF_GROUPS
