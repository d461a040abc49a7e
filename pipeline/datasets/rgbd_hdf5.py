"""Frames with depth in HDF5 files: which split and which video each file belongs to.

A file holds either one frame, in the layout that the published loaders of the MannequinChallenge read, or one video.
The split comes from lists `train.txt` and `val.txt`, else from folders `train/` and `val/`, else it is not given.
"""

from __future__ import annotations

import re
from functools import partial
from pathlib import PurePosixPath

from pipeline.core.archives import Archive
from pipeline.core.errors import UserError
from pipeline.core.runtime import log
from pipeline.datasets.find_archives import read_names
from pipeline.datasets.rgbd_frame import Splits, Videos
from pipeline.datasets.rgbd_hdf5_file import Hdf5File, count_frames, kind_of, locate, read_frame, read_video_frame

SUFFIXES = (".h5", ".hdf5")
_SPLITS = ("train", "val")
_FRAME_NAME = re.compile(r"(?:(.+)_)?([0-9]+)(?:\.jpg|\.jpeg|\.png)?")  # <video>_<number>.jpg.h5 as published


def hdf5_members(archive: Archive) -> list[str]:
    """Names of the HDF5 files of an archive, sorted."""
    return [name for name in archive.names() if name.endswith(SUFFIXES)]


def hdf5_videos(archive: Archive, members: list[str]) -> Splits:
    """The videos of HDF5 files.

    Args:
        archive: that holds them.
        members: their names, at least one.

    Raises:
        UserError: files of another layout, lists that do not fit the files, or train and val folders in several places.
    """
    paths = _listed(archive, members) or _in_folders(archive, members)
    sources = locate(archive, members)
    make = _of_frames if kind_of(sources[members[0]]) == "frame" else _of_videos
    return {split: make(files, sources) for split, files in paths.items()}


def _of_videos(files: dict[str, str], sources: dict[str, Hdf5File]) -> Videos:
    """Each file is a video, named by its path."""
    videos: Videos = {}
    for member, path in files.items():
        source, video = sources[member], str(PurePosixPath(path).with_suffix(""))
        if video in videos:
            raise UserError(f"{source.name} is a second file for the video {video}; expected one; rename or remove it")
        videos[video] = {f"{i:05d}": partial(read_video_frame, source, i) for i in range(count_frames(source))}
    return videos


def _of_frames(files: dict[str, str], sources: dict[str, Hdf5File]) -> Videos:
    """Each file is a frame; its video is the start of its name, or its folder. Frames are sorted by number.

    The published numbers are microseconds with different numbers of digits, so sorting by name would be wrong.
    """
    found: dict[str, list[tuple[int, str, str]]] = {}
    for member, path in files.items():
        file = PurePosixPath(path)
        match = _FRAME_NAME.fullmatch(file.stem)
        if match is None:
            raise UserError(
                f"{sources[member].name} contains a frame but has no number; expected <video>_<number>.h5 or <video>/"
                "<number>.h5; rename it"
            )
        folder = "" if str(file.parent) == "." else str(file.parent)
        video = "/".join(filter(None, (folder, match[1]))) or sources[member].archive.path.stem
        found.setdefault(video, []).append((int(match[2]), file.name, member))
    return {
        video: {name: partial(read_frame, sources[member]) for _, name, member in sorted(frames)}
        for video, frames in found.items()
    }


def _in_folders(archive: Archive, members: list[str]) -> dict[str, dict[str, str]]:
    """Split -> member -> its path inside the split's folder; or one split "" if no folder is called train or val."""
    parts = {name: name.split("/") for name in members}
    depths = {name: next((i for i, part in enumerate(p[:-1]) if part in _SPLITS), -1) for name, p in parts.items()}
    bases = {"/".join(parts[name][:i]) if i >= 0 else None for name, i in depths.items()}
    if bases == {None}:
        shared = len(_common([parts[name][:-1] for name in members]))
        return {"": {name: "/".join(parts[name][shared:]) for name in members}}
    if len(bases) > 1:
        outside = next((name for name, i in depths.items() if i < 0), members[0])
        raise UserError(
            f"{archive.path} has {outside} and files in train/ or val/ elsewhere; expected all of them in train/ and "
            "val/ of one folder; move them"
        )
    splits: dict[str, dict[str, str]] = {}
    for name, i in depths.items():
        splits.setdefault(parts[name][i], {})[name] = "/".join(parts[name][i + 1 :])
    return splits


def _common(folders: list[list[str]]) -> list[str]:
    """The folders that all paths begin with."""
    first, last = min(folders), max(folders)
    n = next((i for i, (a, b) in enumerate(zip(first, last)) if a != b), min(len(first), len(last)))
    return first[:n]


def _listed(archive: Archive, members: list[str]) -> dict[str, dict[str, str]]:
    """Split -> member -> its path relative to the lists; empty if there is no list.

    If there is only one list, the files that it does not name form the other split.
    """
    lists = {name: PurePosixPath(name) for name in archive.names() if name.endswith(("train.txt", "val.txt"))}
    lists = {name: path for name, path in lists.items() if path.stem in _SPLITS}
    if not lists:
        return {}
    folder = next(iter(lists.values())).parent
    if any(path.parent != folder for path in lists.values()):
        raise UserError(f"{archive.path} has lists {', '.join(lists)}; expected them in one folder; move or remove one")
    start = "" if str(folder) == "." else f"{folder}/"
    below = {name.removeprefix(start): name for name in members if name.startswith(start)}
    splits: dict[str, dict[str, str]] = {}
    for name, path in lists.items():
        found = [_resolved(archive, name, line, below) for line in read_names(archive, name)]
        splits[path.stem] = {below[line]: line for line in found}
    both = next(iter(splits.get("train", {}).keys() & splits.get("val", {}).keys()), None)
    if both:
        raise UserError(f"{archive.path}: both lists name {both}; expected each file in one of them; correct a list")
    rest = {name: path for path, name in below.items() if not any(name in files for files in splits.values())}
    if rest and len(splits) == 1:
        (given,) = splits
        splits["val" if given == "train" else "train"] = rest
    elif len(rest) or len(below) < len(members):
        n_files = len(rest) + len(members) - len(below)
        log(f"{archive.path.name}: {n_files} HDF5 files are in neither list and left out")
    return splits


def _resolved(archive: Archive, name: str, line: str, below: dict[str, str]) -> str:
    """The file that a line names: the line, or its end if it starts with folders of another machine."""
    parts = PurePosixPath(line).parts
    path = next((end for i in range(len(parts)) if (end := "/".join(parts[i:])) in below), None)
    if path is None:
        raise UserError(
            f"{archive.path}: {name} names {line}; expected a file in or below the list's folder; correct it"
        )
    return path
