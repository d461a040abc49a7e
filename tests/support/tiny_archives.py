"""Builders of tiny data sets in the published layouts, shared by the tests."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pipeline.core.archives import ShardWriter, ZipWriter
from pipeline.core.images import encode_depth, encode_jpeg, encode_mask

HEIGHT, WIDTH = 48, 64


class Toy(NamedTuple):
    """A short video: uint8 T,H,W,3; uint8 T,H,W; float32 T,H,W."""

    frames: NDArray[np.uint8]
    masks: NDArray[np.uint8]
    depths: NDArray[np.float32]


def make_toy(n_frames: int = 6, n_objects: int = 2, height: int = HEIGHT, width: int = WIDTH) -> Toy:
    """Plain discs of different colours moving over a ramp; depth differs from object to object."""
    rows, columns = np.mgrid[:height, :width]
    frames = np.empty((n_frames, height, width, 3), np.uint8)
    masks = np.zeros((n_frames, height, width), np.uint8)
    depths = np.full((n_frames, height, width), 0.1, np.float32)
    colours = np.array([[220, 40, 40], [40, 60, 220], [40, 200, 60], [220, 210, 40]], np.uint8)
    for t in range(n_frames):
        frames[t] = (80 + 60 * columns / width).astype(np.uint8)[..., None]
        for k in range(n_objects):
            row = height * (k + 1) / (n_objects + 1)
            column = width * (0.25 + 0.5 * t / max(1, n_frames - 1) * (1 if k % 2 == 0 else -1) + 0.5 * (k % 2))
            disc = (rows - row) ** 2 + (columns - column) ** 2 < (height / 6) ** 2
            frames[t][disc], masks[t][disc], depths[t][disc] = colours[k % 4], k + 1, 0.3 + 0.2 * (k % 4)
    return Toy(frames, masks, depths)


def write_zip(path: Path, files: Mapping[str, bytes]) -> Path:
    with ZipWriter(path) as archive:
        for name, data in files.items():
            archive.write(name, data)
    return path


def write_tar(path: Path, files: Mapping[str, bytes]) -> Path:
    with tarfile.open(path, "w") as archive:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return path


def write_folder(path: Path, files: Mapping[str, bytes]) -> Path:
    for name, data in files.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(data)
    return path


def davis_files(
    sequences: Mapping[str, Toy], splits: Mapping[str, Sequence[str]], root: str = "DAVIS/", masks: int | None = None
) -> dict[str, bytes]:
    """Files of a DAVIS; `splits` maps "2017/train" to names; `masks` limits how many frames have one."""
    files = {
        f"{root}ImageSets/{split}.txt": "".join(f"{n}\n" for n in names).encode() for split, names in splits.items()
    }
    for name, toy in sequences.items():
        for t in range(len(toy.frames)):
            files[f"{root}JPEGImages/480p/{name}/{t:05d}.jpg"] = encode_jpeg(toy.frames[t])
            if masks is None or t < masks:
                files[f"{root}Annotations/480p/{name}/{t:05d}.png"] = encode_mask(toy.masks[t])
    return files


def youtubevos_files(
    videos: Mapping[str, Toy], objects: Mapping[str, Mapping[str, Sequence[str]]], root: str = "train/", every: int = 5
) -> dict[str, bytes]:
    """Files of a YouTube-VOS split; `objects` maps video -> object id -> frames that show it."""
    meta = {
        video: {"objects": {key: {"category": "toy", "frames": list(seen)} for key, seen in entry.items()}}
        for video, entry in objects.items()
    }
    files = {f"{root}meta.json": json.dumps({"videos": meta}).encode()}
    for name, toy in videos.items():
        for t in range(len(toy.frames)):
            files[f"{root}JPEGImages/{name}/{t * every:05d}.jpg"] = encode_jpeg(toy.frames[t])
            files[f"{root}Annotations/{name}/{t * every:05d}.png"] = encode_mask(toy.masks[t])
    return files


def write_simulated(folder: Path, clips: Mapping[str, Toy], limit_bytes: int = 20_000) -> Path:
    """Shards as the synthesize stage writes them."""
    with ShardWriter(folder, limit_bytes) as shards:
        for name, toy in clips.items():
            frames = [(f"JPEGImages/{name}/{t:05d}.jpg", encode_jpeg(rgb)) for t, rgb in enumerate(toy.frames)]
            masks = [(f"Annotations/{name}/{t:05d}.png", encode_mask(mask)) for t, mask in enumerate(toy.masks)]
            shards.write_group(frames + masks)
    return folder


def write_depth(folder: Path, videos: Mapping[str, Toy], step: int = 1) -> Path:
    """Shards as the depth stage writes them; frame numbers are multiples of `step`."""
    with ShardWriter(folder, 20_000) as shards:
        for name, toy in videos.items():
            shards.write_group([(f"{name}/{t * step:05d}.png", encode_depth(d)) for t, d in enumerate(toy.depths)])
    return folder
