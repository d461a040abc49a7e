"""YouTube-VOS, read directly from the published archive."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from pipeline.core.archives import Archive
from pipeline.core.errors import UserError
from pipeline.core.names import natural_key
from pipeline.core.runtime import log
from pipeline.datasets.archive_videos import ArchiveVideos
from pipeline.datasets.find_archives import find_root, group_by_video, open_published
from pipeline.datasets.video import VideoSource

_ANNOTATED_EVERY = 5


def open_youtubevos(raw: Path, split: str) -> VideoSource:
    """Open a split of YouTube-VOS.

    Objects and the frames at which they appear come from `meta.json`; no mask is decoded here. If an object's first
    frame has no mask, the next frame with a mask counts.

    Args:
        raw: a folder holding `<split>.zip` or `<split>.tar`, such an archive, or an extracted folder.
        split: "train", or "valid" (masks only where objects first appear).

    Returns:
        The source of its videos, in the order of `meta.json`.

    Raises:
        UserError: no readable meta.json, no video in it, a video without frames, an object without mask, or a mask
            without frame.
    """
    archive = open_published(raw, [f"{split}.zip", f"{split}.tar"])
    root = _find_split(archive, split)
    frame_folder, mask_folder = f"{root}JPEGImages", f"{root}Annotations"
    frames = group_by_video(archive, frame_folder, ".jpg")
    masks = group_by_video(archive, mask_folder, ".png")
    objects = _read_objects(archive, f"{root}meta.json")

    listing, first_seen = {}, {}
    for video, by_object in objects.items():
        ids, annotated = frames.get(video, ()), masks.get(video, ())
        where = f"{archive.path}: video {video} of {root}meta.json"
        if not ids:
            raise UserError(f"{where} has no frames in {frame_folder}; expected <id>.jpg; check the archive")
        orphans = sorted(set(annotated) - set(ids), key=natural_key)
        if orphans:
            raise UserError(f"{where}: mask {orphans[0]}.png has no frame in {frame_folder}; check the archive")
        listing[video] = (ids, annotated)
        first_seen[video] = {key: _first_mask(seen, annotated, key, where) for key, seen in sorted(by_object.items())}
    extra = sorted(frames.keys() - objects.keys())
    if extra:
        log(f"{archive.path}: {len(extra)} videos are not in meta.json and are left out: {', '.join(extra[:3])}, ...")
    _tell_frame_rate(archive, masks)
    return ArchiveVideos(f"youtubevos-{split}", archive, frame_folder, mask_folder, listing, first_seen)


def _find_split(archive: Archive, split: str) -> str:
    """Folder of the split: "train/" or "x/train/" if there is one, otherwise the folder of the only meta.json."""
    found = [name for name in archive.names() if f"/{name}".endswith(f"/{split}/meta.json")]
    if len(found) == 1:
        return found[0].removesuffix("meta.json")
    return find_root(archive, "meta.json")


def _read_objects(archive: Archive, member: str) -> dict[str, dict[int, list[str]]]:
    """Video -> object id -> ids of the frames that show it."""
    shape = '{"videos": {<video>: {"objects": {"1": {"frames": ["00000", ...]}}}}}'
    try:
        meta: Any = json.loads(archive.read(member))
        objects = {
            str(video): {
                int(key): sorted(map(str, entry["frames"]), key=natural_key) for key, entry in about["objects"].items()
            }
            for video, about in meta["videos"].items()
        }
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{archive.path}: {member} cannot be interpreted ({error!r}); expected {shape}") from None
    if not objects:
        raise UserError(f"{archive.path}: {member} lists no video; expected {shape}; choose another archive")
    return objects


def _first_mask(seen: list[str], annotated: tuple[str, ...], key: int, where: str) -> str:
    """The first annotated frame among those that show the object."""
    for frame_id in seen:
        if frame_id in annotated:
            return frame_id
    raise UserError(f"{where}: object {key} has no mask in any of its {len(seen)} frames; check the archive")


def _tell_frame_rate(archive: Archive, masks: dict[str, tuple[str, ...]]) -> None:
    """Log a warning if frame numbers are not those of the original release, because skips then mean other times."""
    odd = [video for video, ids in masks.items() if any(not i.isdigit() or int(i) % _ANNOTATED_EVERY for i in ids)]
    if odd:
        log(
            f"{archive.path}: in {len(odd)} of {len(masks)} videos annotated frame numbers are not multiples of "
            f"{_ANNOTATED_EVERY} (the 6-fps re-release?); skips still count annotated frames"
        )
