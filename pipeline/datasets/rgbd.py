"""Frames with depth for training the depth network, in the layout of the MannequinChallenge videos."""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from pipeline.core.archives import Archive
from pipeline.core.errors import UserError
from pipeline.core.images import decode_mask, decode_rgb
from pipeline.datasets.locate import open_published

_STEPS = 1000  # stored value = depth in scene units times this


class RgbdFrame(NamedTuple):
    """One frame.

    Attributes:
        rgb: uint8 H,W,3.
        depth: float32 H,W, distance in scene units (large is far); 0 where unknown.
        instances: uint8 H,W object ids, or None where the set has none.
    """

    rgb: NDArray[np.uint8]
    depth: NDArray[np.float32]
    instances: NDArray[np.uint8] | None


class RgbdSource:
    """Frames with depth; reading is safe across threads and forks."""

    def __init__(self, archive: Archive, root: str, frames: list[tuple[str, str]]) -> None:
        self._archive, self._root, self._frames = archive, root, frames

    def frames(self) -> list[tuple[str, str]]:
        """Video and frame id of every frame, sorted."""
        return list(self._frames)

    def read(self, video: str, frame_id: str) -> RgbdFrame:
        """Read one frame.

        Raises:
            UserError: missing or unreadable, or depth or instances of another size than the frame.
        """
        rgb_name, depth_name, ids_name = _members(f"{self._root}{video}", frame_id)
        rgb = decode_rgb(self._archive.read(rgb_name), self._say(rgb_name))
        depth = self._depth(depth_name)
        ids = None
        if self._archive.has(ids_name):
            ids = decode_mask(self._archive.read(ids_name), self._say(ids_name))
        for name, image in ((depth_name, depth), (ids_name, ids)):
            if image is not None and image.shape != rgb.shape[:2]:
                raise UserError(
                    f"{self._say(name)} is {image.shape[1]}x{image.shape[0]}, its frame {rgb.shape[1]}x{rgb.shape[0]}; "
                    "expected the same size; replace one of them"
                )
        return RgbdFrame(rgb, depth, ids)

    def _depth(self, member: str) -> NDArray[np.float32]:
        stored = cv2.imdecode(np.frombuffer(self._archive.read(member), np.uint8), cv2.IMREAD_UNCHANGED)
        if stored is None or stored.dtype != np.uint16 or stored.ndim != 2:
            found = "unreadable" if stored is None else f"{stored.dtype} of shape {stored.shape}"
            raise UserError(
                f"{self._say(member)} is {found}; expected a 16-bit grey PNG (depth times {_STEPS}); replace it"
            )
        return np.asarray(stored, np.float32) / np.float32(_STEPS)

    def _say(self, member: str) -> str:
        return f"{self._archive.path}: {member}"


def _members(video: str, frame_id: str) -> tuple[str, str, str]:
    return f"{video}/rgb/{frame_id}.jpg", f"{video}/depth/{frame_id}.png", f"{video}/instances/{frame_id}.png"


def open_rgbd(raw: Path, split: str) -> RgbdSource:
    """Open a split of frames with depth.

    Args:
        raw: a folder holding `mannequin.zip`, such an archive, or an extracted folder.
        split: "train" or "val".

    Raises:
        UserError: no frame of that split, or a frame without depth.
    """
    archive = open_published(raw, ["mannequin.zip"])
    pattern = re.compile(rf"((?:.*/)?{re.escape(split)}/)([^/]+)/rgb/([^/]+)\.jpg")
    found = [match.groups() for name in archive.names() if (match := pattern.fullmatch(name))]
    roots = sorted({root for root, _, _ in found})
    if len(roots) != 1:
        here = f"frames under {', '.join(roots)}" if roots else "no frame of that split"
        wanted = f"MannequinChallenge/{split}/<video>/rgb/<id>.jpg"
        raise UserError(f"{archive.path} has {here}; expected {wanted}; check the path or the split")
    frames = [(video, frame_id) for _, video, frame_id in found]
    for video, frame_id in frames:
        depth_name = _members(f"{roots[0]}{video}", frame_id)[1]
        if not archive.has(depth_name):
            raise UserError(f"{archive.path} has no {depth_name}; expected depth for each frame of {video}/rgb; add it")
    return RgbdSource(archive, roots[0], frames)
