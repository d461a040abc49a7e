"""The sample's MSRA10K, COCO and Pascal VOC, in the published layouts."""

from __future__ import annotations

import io
import json
import tarfile
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from pipeline.core.archives import ZipWriter
from pipeline.core.images import VOID, encode_jpeg, encode_mask, encode_png
from pipeline.core.kinds import Kind
from pipeline.sample.actors import Request
from pipeline.sample.config import WorldConfig
from pipeline.sample.footage import FIRST_CROWD, Footage, film_still
from pipeline.sample.process_pool import WorkerPool

_DURATION = 24.0  # a still is the first frame of a scene of this length
_CATEGORIES = {"blob": 1, "flower": 64, "box": 73, "walker": 18}  # with gaps between ids, as in the published file
_UNLISTED = 3  # VOC images without segmentation; most of the published images are like that


def _several(world: WorldConfig, index: int) -> tuple[WorldConfig, Request]:
    """World and request of a still with one to four objects; every third image is narrower."""
    objects = 1 + index % 4
    kind: Kind = "single" if objects == 1 else ("lookalike" if index % 3 == 2 else "multi")
    narrow = replace(world, frame_width=world.frame_width * 3 // 4)
    return narrow if index % 3 == 1 else world, Request(kind, objects, _DURATION, enlarge=1.0 if objects > 2 else 1.2)


def write_msra10k(world: WorldConfig, path: Path, pool: WorkerPool) -> None:
    """Write `MSRA10K_Imgs_GT.zip`: one salient object per image, its mask grey near the edge."""
    with ZipWriter(path) as archive:
        for index, (jpeg, png) in enumerate(pool.map(partial(_msra10k, world), range(world.stills.msra10k))):
            archive.write(f"MSRA10K_Imgs_GT/Imgs/{100001 + 7 * index}.jpg", jpeg)
            archive.write(f"MSRA10K_Imgs_GT/Imgs/{100001 + 7 * index}.png", png)


def _msra10k(world: WorldConfig, index: int) -> tuple[bytes, bytes]:
    request = Request("single", 1, _DURATION, enlarge=1.5, bare=True)
    picture = film_still(world, request, "msra10k", index).pictures[0]
    binary = ((picture.ids == 1) * 255).astype(np.uint8)
    return encode_jpeg(picture.rgb, world.jpeg_quality), encode_png(cv2.GaussianBlur(binary, (0, 0), 0.6))


def write_coco(world: WorldConfig, images: Path, annotations: Path, pool: WorkerPool) -> None:
    """Write `train2017.zip` and `annotations_trainval2017.zip`.

    Every 8th image has a crowd, every 5th two tiny objects, every 40th no annotation at all.
    """
    instances: dict[str, Any] = {
        "images": [],
        "annotations": [],
        "categories": [{"supercategory": "thing", "id": i, "name": name} for name, i in _CATEGORIES.items()],
    }
    with ZipWriter(images) as archive:
        for index, (jpeg, width, found) in enumerate(pool.map(partial(_coco, world), range(world.stills.coco))):
            number = 9 + 16 * index
            archive.write(f"train2017/{number:012d}.jpg", jpeg)
            instances["images"].append(
                {"file_name": f"{number:012d}.jpg", "height": world.frame_height, "width": width, "id": number}
            )
            for annotation in found:
                identity = len(instances["annotations"]) + 1
                instances["annotations"].append({**annotation, "image_id": number, "id": identity})
    with ZipWriter(annotations) as archive:
        archive.write("annotations/instances_train2017.json", json.dumps(instances).encode())


def _coco(world: WorldConfig, index: int) -> tuple[bytes, int, list[dict[str, Any]]]:
    """JPEG, its width, annotations without ids."""
    chosen, request = _several(world, index)
    footage = film_still(
        chosen,
        request,
        "coco",
        index,
        tiny=2 if index % 5 == 1 else 0,
        members=10 if index % 8 == 3 else 0,
        empty=index % 40 == 39,
    )
    picture = footage.pictures[0]
    return encode_jpeg(picture.rgb, world.jpeg_quality), chosen.frame_width, _annotations(footage)


def _annotations(footage: Footage) -> list[dict[str, Any]]:
    """COCO annotations of the visible objects: polygons, and one run-length region for a whole crowd."""
    ids = footage.pictures[0].ids
    found = []
    for actor in sorted(footage.scene.actors, key=lambda actor: actor.label):
        mask = ids == actor.label
        if not 0 < actor.label < FIRST_CROWD or not mask.any():
            continue
        polygons = outline_polygons(mask)
        found.append(_annotation(mask, polygons, _CATEGORIES[actor.outline.family], crowd=False))
    crowd = ids >= FIRST_CROWD
    if crowd.any():
        family = next(a.outline.family for a in footage.scene.actors if a.label >= FIRST_CROWD)
        region = {"counts": run_lengths(crowd), "size": list(crowd.shape)}
        found.append(_annotation(crowd, region, _CATEGORIES[family], crowd=True))
    return found


def _annotation(mask: NDArray[np.bool_], segmentation: Any, category: int, crowd: bool) -> dict[str, Any]:
    rows, cols = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    box = [cols[0], rows[0], cols[-1] - cols[0] + 1, rows[-1] - rows[0] + 1]
    return {
        "segmentation": segmentation,
        "area": float(mask.sum()),
        "iscrowd": int(crowd),
        "bbox": [float(v) for v in box],
        "category_id": category,
    }


def outline_polygons(mask: NDArray[np.bool_]) -> list[list[float]]:
    """Outer outlines of a mask (H,W) as COCO polygons [x0, y0, x1, y1, ...], in pixels with 0 at the image's edge."""
    zoom = 4  # contours run through pixel centres; after enlarging they follow the pixels' edges to within 1/8 pixel
    large = np.repeat(np.repeat(mask.astype(np.uint8), zoom, 0), zoom, 1)
    contours, _ = cv2.findContours(large, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    polygons = []
    for contour in contours:
        points = cv2.approxPolyDP(contour, 0.4 * zoom, True)[:, 0].astype(np.float64)
        if len(points) >= 3:
            polygons.append([round(float(v), 2) for v in ((points + 0.5) / zoom).ravel()])
    return polygons


def run_lengths(mask: NDArray[np.bool_]) -> list[int]:
    """COCO's uncompressed run lengths of a mask (H,W), column by column, starting with a run of zeros."""
    flat = np.concatenate([[False], mask.ravel(order="F"), [False]])
    changes = np.flatnonzero(flat[1:] != flat[:-1])
    ends = np.concatenate([[0], changes, [mask.size]])
    runs: list[int] = np.diff(ends).tolist()
    return runs[:-1] if runs[-1] == 0 else runs


def write_voc(world: WorldConfig, path: Path, pool: WorkerPool) -> None:
    """Write `VOCtrainval_11-May-2012.tar`: instance masks with void borders."""
    count = world.stills.voc
    root = "VOCdevkit/VOC2012"
    names = [f"2007_{33 + 9 * index:06d}" for index in range(count + (_UNLISTED if count else 0))]
    listed = names[:count]
    lists = {"train": [n for i, n in enumerate(listed) if i % 3 < 2], "val": listed[2::3], "trainval": listed}
    with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as archive:
        for name, (jpeg, png) in zip(names, pool.map(partial(_voc, world), range(len(names)))):
            _add(archive, f"{root}/JPEGImages/{name}.jpg", jpeg)
            if name in listed:
                _add(archive, f"{root}/SegmentationObject/{name}.png", png)
        for split, members in lists.items():
            text = "".join(f"{name}\n" for name in members)
            _add(archive, f"{root}/ImageSets/Segmentation/{split}.txt", text.encode())


def _voc(world: WorldConfig, index: int) -> tuple[bytes, bytes]:
    chosen, request = _several(world, index)
    picture = film_still(chosen, request, "voc", index).pictures[0]
    return encode_jpeg(picture.rgb, world.jpeg_quality), encode_mask(with_void_border(picture.ids))


def with_void_border(ids: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Set the pixels on both sides of every instance's border (H,W ids) to void (255)."""
    cross = cv2.getStructuringElement(cv2.MORPH_CROSS, (3, 3))
    border = cv2.dilate(ids, cross) != cv2.erode(ids, cross)
    return np.where(border, np.uint8(VOID), ids).astype(np.uint8)


def _add(archive: tarfile.TarFile, name: str, data: bytes) -> None:
    """Add a file without date or owner, so that equal content gives equal bytes."""
    info = tarfile.TarInfo(name)
    info.size, info.mode, info.mtime = len(data), 0o644, 0
    archive.addfile(info, io.BytesIO(data))
