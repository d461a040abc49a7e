"""The sample's DAVIS, YouTube-VOS and RGB + depth videos, in the published layouts."""

from __future__ import annotations

import json
import zlib
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from pipeline.core.archives import ZipWriter
from pipeline.core.images import encode_jpeg, encode_mask
from pipeline.core.kinds import Kind
from pipeline.sample.actors import Request
from pipeline.sample.config import KindCounts, WorldConfig
from pipeline.sample.footage import film, numbered
from pipeline.sample.process_pool import WorkerPool

Member = tuple[str, bytes]


@dataclass(frozen=True)
class _Video:
    """A video to render: its split, its index in the split (for the seed), its kind and its name."""

    split: str
    index: int
    kind: Kind
    name: str


def _videos(split: str, counts: KindCounts, first: KindCounts | None = None) -> list[_Video]:
    """The videos of a split, named by kind; numbers continue after those of `first`, as splits share one folder."""
    offset: dict[Kind, int] = {
        "single": first.single if first else 0,
        "multi": first.multi if first else 0,
        "lookalike": first.lookalike if first else 0,
    }
    return [
        _Video(split, index, kind, f"{kind}-{number + offset[kind]:03d}")
        for index, (kind, number) in enumerate(numbered(counts))
    ]


def write_davis(world: WorldConfig, path: Path, pool: WorkerPool) -> None:
    """Write `DAVIS-2017-trainval-480p.zip`."""
    train = _videos("train", world.davis.train)
    val = _videos("val", world.davis.val, world.davis.train)
    with ZipWriter(path) as archive:
        for members in pool.map(partial(_davis_video, world), train + val):
            for name, data in members:
                archive.write(name, data)
        for year in ("2016", "2017"):
            for split, videos in (("train", train), ("val", val)):
                listing = "".join(f"{video.name}\n" for video in videos)
                archive.write(f"DAVIS/ImageSets/{year}/{split}.txt", listing.encode())


def _davis_video(world: WorldConfig, video: _Video) -> list[Member]:
    frames = world.davis.frames
    request = Request(video.kind, None, duration=float(frames))
    footage = film(world, request, "davis", video.split, video.index, [float(t) for t in range(frames)])
    members = []
    for number, picture in enumerate(footage.pictures):
        stem = f"480p/{video.name}/{number:05d}"
        members.append((f"DAVIS/JPEGImages/{stem}.jpg", encode_jpeg(picture.rgb, world.jpeg_quality)))
        members.append((f"DAVIS/Annotations/{stem}.png", encode_mask(picture.ids)))
    return members


def write_youtubevos(world: WorldConfig, path: Path, pool: WorkerPool) -> None:
    """Write YouTube-VOS' `train.zip`: every 5th frame is stored and annotated, objects may appear late."""
    meta: dict[str, Any] = {}
    with ZipWriter(path) as archive:
        for name, objects, members in pool.map(
            partial(_youtubevos_video, world), _videos("train", world.youtubevos.train)
        ):
            meta[name] = {"objects": objects}
            for member, data in members:
                archive.write(member, data)
        archive.write("train/meta.json", json.dumps({"videos": meta}, sort_keys=True).encode())


def _youtubevos_video(world: WorldConfig, video: _Video) -> tuple[str, dict[str, Any], list[Member]]:
    """Name (ten hexadecimal digits, as published), objects for `meta.json`, files."""
    counts = world.youtubevos
    times = [t * counts.step for t in range(counts.frames)]
    # spread evenly over the videos with several objects, so that any number of videos has the right share
    late = video.kind != "single" and (video.index * 7) % 10 < round(counts.late_share * 15)
    request = Request(video.kind, None, duration=times[-1] + counts.step, late=late)
    footage = film(world, request, "youtubevos", video.split, video.index, times)
    name = f"{video.index:02x}{zlib.crc32(video.name.encode()):08x}"
    families = {actor.label: actor.outline.family for actor in footage.scene.actors if actor.label}
    objects: dict[str, Any] = {str(label): {"category": families[label], "frames": []} for label in sorted(families)}
    started: set[int] = set()
    members = []
    for number, picture in enumerate(footage.pictures):
        frame = f"{5 * number:05d}"
        ids = _without_the_unseen(picture.ids, started, world.min_pixels)
        for label in np.unique(ids[ids > 0]).tolist():
            objects[str(label)]["frames"].append(frame)
        members.append((f"train/JPEGImages/{name}/{frame}.jpg", encode_jpeg(picture.rgb, world.jpeg_quality)))
        members.append((f"train/Annotations/{name}/{frame}.png", encode_mask(ids)))
    return name, objects, members


def _without_the_unseen(ids: NDArray[np.uint8], started: set[int], min_pixels: int) -> NDArray[np.uint8]:
    """Only the labels that have started; one starts (and is added to `started`) when enough of it is visible."""
    kept = ids.copy()
    for label in np.unique(ids[ids > 0]).tolist():
        if label not in started and int((ids == label).sum()) < min_pixels:
            kept[ids == label] = 0
        else:
            started.add(label)
    return kept


def write_mannequin(world: WorldConfig, path: Path, pool: WorkerPool) -> None:
    """Write `mannequin.zip`: frames, depth (16-bit PNG, 1000 per unit) and instances."""
    train = _videos("train", world.mannequin.train)
    val = _videos("val", world.mannequin.val, world.mannequin.train)
    with ZipWriter(path) as archive:
        for members in pool.map(partial(_mannequin_video, world), train + val):
            for name, data in members:
                archive.write(name, data)


def _mannequin_video(world: WorldConfig, video: _Video) -> list[Member]:
    counts = world.mannequin
    frames = counts.train_frames if video.split == "train" else counts.val_frames
    times = [t * counts.step for t in range(frames)]
    request = Request(video.kind, None, duration=times[-1] + counts.step)
    footage = film(world, request, "mannequin", video.split, video.index, times)
    members = []
    for number, picture in enumerate(footage.pictures):
        folder = f"MannequinChallenge/{video.split}/{video.name}"
        members.append((f"{folder}/rgb/{number:05d}.jpg", encode_jpeg(picture.rgb, world.jpeg_quality)))
        members.append((f"{folder}/depth/{number:05d}.png", encode_millis(picture.depth)))
        members.append((f"{folder}/instances/{number:05d}.png", encode_mask(picture.ids)))
    return members


def encode_millis(depth: NDArray[np.float32]) -> bytes:
    """Encode depth in units (H,W, below 65.5) as a 16-bit grey PNG of thousandths; 0 stays "unknown"."""
    values = np.clip(np.rint(depth * 1000), 0, 65535).astype(np.uint16)
    _, data = cv2.imencode(".png", values, [cv2.IMWRITE_PNG_COMPRESSION, 1])
    return bytes(data.tobytes())
