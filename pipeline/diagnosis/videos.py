"""Faults of a set of videos: frames, masks, object ids."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from PIL import Image

from pipeline.core.errors import UserError
from pipeline.core.images import object_ids
from pipeline.core.runtime import available_cores, progress
from pipeline.datasets.archive_videos import ArchiveVideos
from pipeline.datasets.video import Video
from pipeline.diagnosis.findings import Diagnosis, Level

T = TypeVar("T")
R = TypeVar("R")
Fault = tuple[Level, str, str]
"""Level, kind and place of a fault."""


def examine_videos(source: ArchiveVideos, listed: bool, limit: int | None, diagnosis: Diagnosis) -> None:
    """Look at the frames and masks of a split.

    Args:
        source: the split.
        listed: whether the data set lists the objects of each video (`meta.json`), with which masks are compared.
        limit: largest number of videos looked at, evenly spread; None: all.
        diagnosis: extended.
    """
    split = source.name.rsplit("-", 1)[-1] if "test-" not in source.name else source.name.partition("test-")[2]
    diagnosis.count(f"videos of {split}", len(source.videos))
    diagnosis.count(f"frames of {split}", sum(len(video.frames) for video in source.videos))
    diagnosis.count(f"masks of {split}", sum(len(video.annotated) for video in source.videos))
    chosen = spread(source.videos, limit)
    diagnosis.count("videos looked at", len(chosen))
    for faults in in_threads(lambda video: _faults(source, video, listed), chosen, f"videos of {source.name}"):
        for fault in faults:
            diagnosis.add(*fault)


def _faults(source: ArchiveVideos, video: Video, listed: bool) -> list[Fault]:
    found: list[Fault] = []
    seen: set[int] = set()
    for frame_id in video.frames:
        try:
            source.frame(video, frame_id)
        except UserError as error:
            found.append(("error", "unreadable frame", str(error)))
    for frame_id in video.annotated:
        where = f"{video.name}/{frame_id}"
        try:
            ids = object_ids(source.mask(video, frame_id))
            mode = _mode(source.encoded_mask(video, frame_id))
        except UserError as error:
            found.append(("error", "unusable mask", str(error)))
            continue
        seen.update(ids)
        if not ids:
            found.append(("warning", "mask without an object", where))
        if mode != "P":
            found.append(("warning", f"mask without a palette (mode {mode})", where))
    return found + _id_faults(video, seen, listed)


def _id_faults(video: Video, seen: set[int], listed: bool) -> list[Fault]:
    found: list[Fault] = []
    ids = sorted(seen)
    if ids and ids != list(range(1, len(ids) + 1)):
        found.append(("warning", "object ids with gaps", f"{video.name} has {', '.join(map(str, ids))}"))
    if listed:
        extra, absent = seen - set(video.first_seen), set(video.first_seen) - seen
        found += [("warning", "object that is not in meta.json", f"{video.name}, id {i}") for i in sorted(extra)]
        found += [("warning", "object of meta.json in no mask", f"{video.name}, id {i}") for i in sorted(absent)]
    return found


def _mode(data: bytes) -> str:
    with Image.open(io.BytesIO(data)) as opened:
        return str(opened.mode)


def spread(items: Sequence[T], limit: int | None) -> list[T]:
    """At most `limit` of the items, evenly spread, with the first and the last."""
    if limit is None or len(items) <= limit:
        return list(items)
    return [items[i * (len(items) - 1) // max(1, limit - 1)] for i in range(limit)]


def in_threads(look: Callable[[T], R], items: Sequence[T], what: str) -> Iterator[R]:
    """What `look` returns for each item, in order, by one thread for each core."""
    with ThreadPoolExecutor(available_cores()) as pool:
        yield from progress(pool.map(look, items), len(items), what)
