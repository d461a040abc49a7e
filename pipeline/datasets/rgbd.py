"""Frames with depth for training the depth network: pictures in the project's own layout, or HDF5 files.

Where the data names no validation split, a tenth of the videos is held out, the same ones whatever else the data holds.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from functools import partial
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from pipeline.core.archives import Archive
from pipeline.core.errors import UserError
from pipeline.core.images import decode_mask, decode_rgb
from pipeline.core.names import natural_key
from pipeline.core.runtime import log
from pipeline.datasets.find_archives import open_published
from pipeline.datasets.rgbd_frame import RgbdFrame, Splits, Videos, of_one_size
from pipeline.datasets.rgbd_hdf5 import hdf5_members, hdf5_videos

_STEPS = 1000  # stored value of a depth PNG = depth in scene units times this
_HELD_OUT = 0.1  # share of the videos that becomes the validation split where the data names none
_PICTURE = re.compile(r"((?:.*/)?)([^/]+)/rgb/([^/]+)\.jpg")


class RgbdSource:
    """Frames with depth; reading is safe across threads and forks."""

    def __init__(self, videos: Videos) -> None:
        self._videos = videos

    def frames(self) -> list[tuple[str, str]]:
        """Video and frame id of every frame: video by video, in temporal order."""
        return [(video, frame_id) for video, frames in self._videos.items() for frame_id in frames]

    def read(self, video: str, frame_id: str) -> RgbdFrame:
        """Read one frame.

        Raises:
            UserError: unreadable, or depth or instances of another size than the frame.
        """
        return self._videos[video][frame_id]()


def open_rgbd(raw: Path, split: str) -> RgbdSource:
    """Open a split of frames with depth.

    Args:
        raw: a folder holding `mannequin.zip`, such an archive, or an extracted folder.
        split: "train" or "val". If the data has no validation split, "val" is what `held_out` returns and "train" the
            rest, and a log line says so.

    Raises:
        UserError: no frame of that split, a frame without depth, or HDF5 files of another layout.
    """
    archive = open_published(raw, ["mannequin.zip"])
    pictures = next((name for name in archive.names() if _PICTURE.fullmatch(name)), None)
    files = hdf5_members(archive)
    if pictures and files:
        raise UserError(f"{archive.path} holds {pictures} and {files[0]}; expected pictures or HDF5; remove one kind")
    splits = hdf5_videos(archive, files) if files else _picture_videos(archive)
    if split in ("train", "val") and splits and "val" not in splits:
        splits = _divided(archive.path, splits.get("train") or splits[""], split)
    if split not in splits:
        raise UserError(
            f"{archive.path} has no frame of that split ({split}); expected MannequinChallenge/{split}/<video>/rgb/"
            "<id>.jpg or an HDF5 layout of docs/formats.md; check the path or the split"
        )
    return RgbdSource(splits[split])


def held_out(videos: list[str]) -> set[str]:
    """A tenth of the videos, at least one: those whose names have the smallest SHA-256.

    So the choice depends only on the names, and adding or removing a video changes it by at most one.
    """
    ordered = sorted(videos, key=lambda name: hashlib.sha256(name.encode()).digest())
    return set(ordered[: max(1, round(_HELD_OUT * len(videos)))])


def _divided(path: Path, videos: Videos, split: str) -> Splits:
    """A validation split for data that has none: some of the videos, or the end of the only one."""
    if len(videos) > 1:
        chosen = held_out(list(videos))
        parts = {
            "train": {name: frames for name, frames in videos.items() if name not in chosen},
            "val": {name: frames for name, frames in videos.items() if name in chosen},
        }
        part = f"{len(parts[split])} of {len(videos)} videos"
    else:
        ((name, frames),) = videos.items()
        if len(frames) < 2:
            raise UserError(f"{path} has a single frame and no validation split; expected more frames; add some")
        start = len(frames) - max(1, round(_HELD_OUT * len(frames)))
        parts = {"train": {name: dict(list(frames.items())[:start])}, "val": {name: dict(list(frames.items())[start:])}}
        part = f"the {'first' if split == 'train' else 'last'} {len(parts[split][name])} of {len(frames)} frames"
    purpose = "to train on" if split == "train" else "held out for validation"
    log(f"{path.name} has no validation split: {part} {purpose}")
    return parts


def _picture_videos(archive: Archive) -> Splits:
    """The videos of the project's own layout: `[<split>/]<video>/{rgb/<id>.jpg,depth/<id>.png,instances/<id>.png}`."""
    found = [match.groups() for name in archive.names() if (match := _PICTURE.fullmatch(name))]
    names = {root: Path(root).name if Path(root).name in ("train", "val") else "" for root, _, _ in found}
    bases = {root.removesuffix(f"{split}/") if split else root for root, split in names.items()}
    if len(bases) > 1 or ("" in names.values() and len(names) > 1):
        folders = ", ".join(root or "." for root in sorted(names))
        raise UserError(f"{archive.path} has videos in {folders}; expected train/ and val/ in one folder; move them")
    splits: Splits = {}
    for root, video, frame_id in found:
        depth_name = f"{root}{video}/depth/{frame_id}.png"
        if not archive.has(depth_name):
            raise UserError(f"{archive.path} has no {depth_name}; expected depth for each frame of {video}/rgb; add it")
        read = partial(_read_pictures, archive, f"{root}{video}", frame_id)
        splits.setdefault(names[root], {}).setdefault(video, {})[frame_id] = read
    return {split: {video: _in_order(frames) for video, frames in videos.items()} for split, videos in splits.items()}


def _in_order(frames: dict[str, Callable[[], RgbdFrame]]) -> dict[str, Callable[[], RgbdFrame]]:
    return {frame_id: frames[frame_id] for frame_id in sorted(frames, key=natural_key)}


def _read_pictures(archive: Archive, video: str, frame_id: str) -> RgbdFrame:
    rgb_name, depth_name = f"{video}/rgb/{frame_id}.jpg", f"{video}/depth/{frame_id}.png"
    ids_name = f"{video}/instances/{frame_id}.png"
    rgb = decode_rgb(archive.read(rgb_name), f"{archive.path}: {rgb_name}")
    depth = _depth(archive.read(depth_name), f"{archive.path}: {depth_name}")
    ids = decode_mask(archive.read(ids_name), f"{archive.path}: {ids_name}") if archive.has(ids_name) else None
    return of_one_size(str(archive.path), RgbdFrame(rgb, depth, ids), depth_name, ids_name)


def _depth(data: bytes, name: str) -> NDArray[np.float32]:
    stored = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    if stored is None or stored.dtype != np.uint16 or stored.ndim != 2:
        found = "unreadable" if stored is None else f"{stored.dtype} of shape {stored.shape}"
        raise UserError(f"{name} is {found}; expected a 16-bit grey PNG (depth times {_STEPS}); replace it")
    return np.asarray(stored, np.float32) / np.float32(_STEPS)
