"""DAVIS 2016 and 2017, read directly from the published archive."""

from __future__ import annotations

from pathlib import Path

from pipeline.core.archives import Archive
from pipeline.core.errors import UserError
from pipeline.core.names import natural_key
from pipeline.core.runtime import log
from pipeline.datasets.archive_videos import ArchiveVideos, Objects
from pipeline.datasets.find_archives import find_root, group_by_video, open_published, read_names
from pipeline.datasets.video import VideoSource

_USUAL = "480p"  # the size that the figures of papers are of
_ONE_MASK_SPLITS = ("test-dev", "test-challenge")  # only the first frame's mask is published
_SPLITS = ("train", "val", *_ONE_MASK_SPLITS)
_OWN_2016 = ("480p", "1080p")  # folders of the lists in the archive of DAVIS 2016 itself, which name every file


def open_davis(raw: Path, split: str, year: int | None = None, resolution: str | None = None) -> VideoSource:
    """Open a split of DAVIS.

    No mask is decoded here; the objects of a sequence are those of its first mask, read when first asked for.

    Args:
        raw: a folder holding the archive, the archive, or an extracted DAVIS folder.
        split: name of a file in `ImageSets/<year>`: train, val, test-dev, test-challenge.
        year: 2017, or 2016 (other split files; all objects merged into one); None: 2017, or 2016 if the archive has
            only that. The archive of DAVIS 2016 itself has lists in `ImageSets/480p` and binary masks (0 and 255).
        resolution: folder of the size to read (`480p`, `1080p`, `Full-Resolution`); None: `480p`, or the only one.

    Returns:
        The source of its sequences, in the order of the split file. In the test splits only the first frame counts
        as annotated.

    Raises:
        UserError: no such split, an empty one, a sequence missing from the archive, a frame without mask or a mask
            without frame.
    """
    archive = _open(raw, split)
    list_file, objects = _find_list(archive, split, year)
    root = find_root(archive, list_file)
    size = resolution or _only_resolution(archive, f"{root}Annotations/")
    frame_folder, mask_folder = f"{root}JPEGImages/{size}", f"{root}Annotations/{size}"
    frames = group_by_video(archive, frame_folder, ".jpg")
    masks = group_by_video(archive, mask_folder, ".png")

    listing = {}
    for sequence in _sequences(archive, root + list_file, objects):
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
    shown = 2017 if objects == "ids" else 2016
    return ArchiveVideos(f"davis-{shown}-{split}", archive, frame_folder, mask_folder, listing, objects=objects)


def davis_splits(raw: Path) -> list[str]:
    """Names of the splits that a raw folder, an archive or an extracted folder has, in a fixed order."""
    found = []
    for split in _SPLITS:
        archive = _open(raw, split)
        if any(_holds(archive, list_file) for list_file, _ in _lists(split, None)):
            found.append(split)
        archive.close()
    return found


def _open(raw: Path, split: str) -> Archive:
    return open_published(raw, [f"DAVIS-2017-{split if split in _ONE_MASK_SPLITS else 'trainval'}-480p.zip"])


def _lists(split: str, year: int | None) -> list[tuple[str, Objects]]:
    """Split files that may exist, the preferred one first, and what the ids of the masks mean with each."""
    lists: list[tuple[str, Objects]] = [(f"ImageSets/2017/{split}.txt", "ids")] if year != 2016 else []
    if year != 2017:
        lists += [(f"ImageSets/2016/{split}.txt", "merged")]
        lists += [(f"ImageSets/{size}/{split}.txt", "binary") for size in _OWN_2016]
    return lists


def _holds(archive: Archive, list_file: str) -> bool:
    return any(f"/{name}".endswith(f"/{list_file}") for name in archive.names())


def _find_list(archive: Archive, split: str, year: int | None) -> tuple[str, Objects]:
    lists = _lists(split, year)
    found = next((entry for entry in lists if _holds(archive, entry[0])), lists[0])
    if year is None and found[1] != "ids":
        log(f"{archive.path} has no {lists[0][0]}; reading it as DAVIS 2016, with one object for each sequence")
    return found


def _sequences(archive: Archive, list_file: str, objects: Objects) -> list[str]:
    """Names of the sequences; the lists of DAVIS 2016 itself have a line for every frame and its mask instead."""
    lines = read_names(archive, list_file)
    if objects != "binary":
        return lines
    frames = [Path(line.split()[0]) for line in lines]
    return list(dict.fromkeys(frame.parent.name if frame.suffix else frame.name for frame in frames))


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
