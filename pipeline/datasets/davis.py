"""DAVIS 2016 and 2017, read directly from the published archive."""

from __future__ import annotations

from pathlib import Path

from pipeline.core.archives import Archive
from pipeline.core.errors import UserError
from pipeline.core.names import natural_key
from pipeline.datasets.archive_videos import ArchiveVideos
from pipeline.datasets.find_archives import find_root, group_by_video, open_published, read_names
from pipeline.datasets.video import VideoSource

_USUAL = "480p"  # the size that the figures of papers are of
_ONE_MASK_SPLITS = ("test-dev", "test-challenge")  # only the first frame's mask is published


def open_davis(raw: Path, split: str, year: int = 2017, resolution: str | None = None) -> VideoSource:
    """Open a split of DAVIS.

    No mask is decoded here; the objects of a sequence are those of its first mask, read when first asked for.

    Args:
        raw: a folder holding the archive, the archive, or an extracted DAVIS folder.
        split: name of a file in `ImageSets/<year>`: train, val, test-dev, test-challenge.
        year: 2017, or 2016 (other split files; all objects merged into one).

        resolution: folder of the size to read (`480p`, `1080p`, `Full-Resolution`); None: `480p`, or the only one.

    Returns:
        The source of its sequences, in the order of the split file. In the test splits only the first frame counts
        as annotated.

    Raises:
        UserError: no such split, an empty one, a sequence missing from the archive, a frame without mask or a mask
            without frame.
    """
    published = [f"DAVIS-2017-{split if split in _ONE_MASK_SPLITS else 'trainval'}-480p.zip"]
    archive = open_published(raw, published)
    list_file = f"ImageSets/{year}/{split}.txt"
    root = find_root(archive, list_file)
    size = resolution or _only_resolution(archive, f"{root}Annotations/")
    frame_folder, mask_folder = f"{root}JPEGImages/{size}", f"{root}Annotations/{size}"
    frames = group_by_video(archive, frame_folder, ".jpg")
    masks = group_by_video(archive, mask_folder, ".png")

    listing = {}
    for sequence in read_names(archive, root + list_file):
        ids, annotated = frames.get(sequence, ()), masks.get(sequence, ())
        where = f"{archive.path}: sequence {sequence} of {root}{list_file}"
        if not ids:
            raise UserError(f"{where} has no frames in {frame_folder}; expected <id>.jpg; check the archive")
        expected = ids[:1] if split in _ONE_MASK_SPLITS else ids
        lacking = sorted(set(expected) - set(annotated), key=natural_key)
        if lacking:
            raise UserError(
                f"{where}: frame {lacking[0]} has no mask ({len(lacking)} such frames); expected "
                f"{mask_folder}/{sequence}/{lacking[0]}.png; check the archive"
            )
        orphans = sorted(set(annotated) - set(ids), key=natural_key)
        if orphans:
            raise UserError(f"{where}: mask {orphans[0]}.png has no frame in {frame_folder}; check the archive")
        listing[sequence] = (ids, expected)
    return ArchiveVideos(f"davis-{year}-{split}", archive, frame_folder, mask_folder, listing, merge=year == 2016)


def _only_resolution(archive: Archive, masks: str) -> str:
    """The folder of masks to read where none is named.

    Raises:
        UserError: several, none of them `480p`.
    """
    found = {name.removeprefix(masks).partition("/")[0] for name in archive.names() if name.startswith(masks)}
    if _USUAL in found or not found:
        return _USUAL
    if len(found) > 1:
        raise UserError(
            f"{archive.path} has {masks} in {', '.join(sorted(found))}; expected {_USUAL} or only one; choose one "
            "(pipeline.evaluate: --resolution) or remove the others"
        )
    return found.pop()
